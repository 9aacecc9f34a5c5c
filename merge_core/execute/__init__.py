"""Plans carried out: to disk, or into a live model."""
