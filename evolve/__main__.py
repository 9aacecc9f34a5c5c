"""`python -m evolve`: the command line where its script is not on the path."""

from __future__ import annotations

from evolve.commands.cli import program

if __name__ == "__main__":
    program()
