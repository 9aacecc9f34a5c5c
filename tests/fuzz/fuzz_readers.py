"""Fuzz every reader for as long as one likes, and count what it should not raise.

python tests/fuzz/fuzz_readers.py --seconds 1200            # all targets, in equal shares of the time
python tests/fuzz/fuzz_readers.py --only journal --seed 7   # one of them, with other inputs
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from targets import DOCUMENTED, Target, targets

LONGEST_SECONDS = 60
"""For one input, after which it counts as one that never ends."""


@dataclass
class Count:
    """What came of a target's inputs."""

    accepted: int = 0
    refused: int = 0
    undocumented: Counter[str] = field(default_factory=Counter)
    examples: dict[str, bytes] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """How many there were."""
        return self.accepted + self.refused + self.undocumented.total()


def try_one(target: Target, data: bytes, count: Count) -> None:
    """Give a reader one input."""
    signal.alarm(LONGEST_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(data)
        count.accepted += 1
    except DOCUMENTED:
        count.refused += 1
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:80]!r}"
        count.undocumented[kind] += 1
        count.examples.setdefault(kind, data)
    finally:
        signal.alarm(0)


def fuzz(target: Target, seed: int, inputs: int | None = None, seconds: float | None = None) -> Count:
    """Give a reader inputs, until there were so many or so long."""
    choose = random.Random(f"{target.name} {seed}")
    count = Count()
    end = None if seconds is None else time.monotonic() + seconds
    while (inputs is None or count.inputs < inputs) and (end is None or time.monotonic() < end):
        try_one(target, target.make(choose), count)
    return count


class TooLong(BaseException):
    """No `Exception`, and above all no `OSError`: readers would make one of theirs of it."""


def _out_of_time(*_: object) -> None:
    raise TooLong(f"an input takes longer than {LONGEST_SECONDS} s")


def main() -> None:
    """Count, and show one input of each kind of undocumented exception."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a part of a target's name")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _out_of_time)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as root:
        chosen = [target for target in targets(Path(root)) if not options.only or options.only in target.name]
        print(f"{'reader':26} {'inputs':>9} {'accepted':>9} {'refused':>9} {'undocumented':>13}", flush=True)
        counts = []
        for target in chosen:
            count = fuzz(target, options.seed, seconds=options.seconds / len(chosen))
            counts.append(count)
            row = (count.inputs, count.accepted, count.refused, count.undocumented.total())
            print(f"{target.name:26} {row[0]:9} {row[1]:9} {row[2]:9} {row[3]:13}", flush=True)
            for kind, times in count.undocumented.most_common():
                print(f"    {times} x {kind}\n        {count.examples[kind][:300]!r}", flush=True)
        total = sum(count.inputs for count in counts), sum(count.undocumented.total() for count in counts)
        print(f"{'all':26} {total[0]:9} {'':9} {'':9} {total[1]:13}")


if __name__ == "__main__":
    main()
