"""The commands, one file each: a function that registers itself, and calls what does the work."""
