"""Whoever is told of a search as it goes: trackers, and callbacks of the user's own."""
