"""The search from a prepared file to its results."""
