"""Model files: read lazily, written atomically."""
