"""Candidates scored: in this process or in Ray actors."""
