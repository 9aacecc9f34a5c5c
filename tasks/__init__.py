"""What a candidate is scored on. Imports neither `evolve` nor `merge_core`."""
