"""The search. May import `merge_core`."""
