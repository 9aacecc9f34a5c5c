"""The merge engine. Imports neither `evolve` nor `tasks`."""
