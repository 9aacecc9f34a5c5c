"""The commands, one file each: a function that registers itself, and calls what does the work."""

from __future__ import annotations

from evolve.commands.registry import register

__all__ = ["register"]
