"""What libraries say by themselves, which would bury what we say; errors still reach the user as ours."""

from __future__ import annotations

import logging
import os
import sys


def quiet_libraries() -> None:
    """Have the libraries below speak of errors alone, unless the environment says otherwise."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():  # at a terminal, who waits for gigabytes sees them come
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name in ("lm_eval", "lm-eval", "datasets", "transformers", "ray", "httpx", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
