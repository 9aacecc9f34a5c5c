"""Datasets of tasks that are on the Hugging Face Hub, on a machine that does not reach it.

`datasets` asks the hub for every task, cached or not, and again for half a minute where nothing answers. Here it is
asked once; where it does not answer, datasets come from the cache alone.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SECONDS = 5.0  # to wait for an answer

_ON_THE_HUB = re.compile(r"Couldn't (?:reach(?: the Hugging Face Hub for dataset)?|find cache for) '?([\w./-]+)")
"""What `datasets` says of one that it has not: it has no exceptions of its own for that."""


def may_be_of_the_hub(config: Mapping[str, Any]) -> bool:
    """Whether the data of a task may have to be fetched: they are neither files nor a directory here.

    Args:
        config: of the task, or of a group, as its file has it.
    """
    from datasets import packaged_modules

    if "include" in config:  # another file may say
        return True
    path = config.get("dataset_path")
    readers = getattr(packaged_modules, "_PACKAGED_DATASETS_MODULES", {})  # "json", "csv", ...: no public name has them
    return isinstance(path, str) and path not in readers and not Path(path).exists()


@functools.cache
def ask_the_hub() -> bool:
    """Whether the hub answers; where it does not, or may not be asked, nothing else here asks it for a dataset."""
    import datasets
    import httpx2
    from huggingface_hub import constants, get_session

    if datasets.config.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
    except httpx2.HTTPError as error:
        datasets.config.HF_HUB_OFFLINE = True
        kept = datasets.config.HF_DATASETS_CACHE
        print(f"{constants.ENDPOINT} is not reached ({error}): datasets are taken from {kept}", file=sys.stderr)
        return False
    return True


def explain_missing(text: str) -> str | None:
    """What to do where a dataset is not here; None for any other text of an error.

    Args:
        text: of what `datasets` raised.
    """
    import datasets
    from huggingface_hub import constants

    found = _ON_THE_HUB.match(text)
    if found is None:
        return None
    why = "offline mode is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} is not reached"
    return (
        f"its dataset {found[1]} is not in {datasets.config.HF_DATASETS_CACHE}, and {why}. Run evolve check once where "
        "there is a network, which fetches it, and copy that cache here, or set HF_HOME to one that has it"
    )
