"""Racing: which candidates need no more items, and what may be said of them. Numbers only: no models, no files."""
