"""What `import evolve` offers: the actions of the command line, with Python's objects in place of files."""

from __future__ import annotations

from evolve.library_noise import quiet_libraries

quiet_libraries()
