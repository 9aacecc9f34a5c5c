"""Fuzz one reader by coverage, with atheris: inputs that reach new code are kept and changed further.

python tests/fuzz/fuzz_with_coverage.py recipe -max_total_time=600   # libFuzzer's options come after the name
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["merge_core", "evolve", "targets"]):
    from targets import DOCUMENTED, targets


def main() -> None:
    """Fuzz the reader that the first argument names, from sound inputs and changed ones; stop at what it raises."""
    root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    (root / "files").mkdir()
    (target,) = [target for target in targets(root / "files") if target.name == sys.argv[1]]
    corpus = root / "corpus"
    corpus.mkdir()
    choose = random.Random(0)
    for number in range(200):
        (corpus / str(number)).write_bytes(target.make(choose))

    def read(data: bytes) -> None:
        with contextlib.suppress(*DOCUMENTED):
            target.read(data)

    atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
