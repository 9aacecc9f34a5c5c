"""What several commands take."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from evolve.problems import ConfigError, Problem

RunArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Output directory of a run.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Override a setting, such as budget.evaluations=50. Repeatable.",
    ),
]

ShardSizeOption = Annotated[
    str,
    typer.Option(
        "--shard-size", "--out-shard-size", metavar="SIZE", help="Maximum file size: 5GB (or 5B), 500M, a number of GB."
    ),
]
CacheOption = Annotated[
    Path | None, typer.Option("--transformers-cache", metavar="DIR", help="Cache directory for models from the Hub.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Refuse keys of a recipe or genome that have no effect, instead of warning.")
]

JsonEventsOption = Annotated[bool, typer.Option("--json", help="One JSON object per event on stdout.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress; only warnings, and the table at the end.")
]


def require_file(path: Path) -> None:
    """Say that there is no such file before anything that takes seconds to import.

    Raises:
        ConfigError: there is none.
    """
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(Problem((), f"cannot be read: {reason}", str(path))) from None


def require_run(directory: Path) -> None:
    """Say that there is no run before anything that takes seconds to import.

    Raises:
        ConfigError: there is none, or its search.yml cannot be read.
    """
    from evolve.config.run_storage import run_storage
    from evolve.trials.run_directory import RunDirectory

    run_storage(RunDirectory(directory))


def require_models(models: Sequence[str]) -> None:
    """Say which recipes and models are not there; what may be on the hub is left to it, unless it is not to be asked.

    Raises:
        ConfigError: with all of them.
    """
    problems = []
    for text in models:
        is_recipe = text.endswith((".yml", ".yaml"))
        name = text if is_recipe else text.split("+")[0].split("@")[0]
        is_path = name.startswith(("/", ".", "~")) or name.count("/") > 1
        if os.path.exists(os.path.expanduser(name)):
            continue
        if is_recipe or is_path:
            problems.append(Problem((), f"no {'file' if is_recipe else 'directory'} {name}. Correct the path", text))
        elif not _may_be_had(name):
            what = f"no directory {name}, and no copy from the hub, which HF_HUB_OFFLINE says not to ask"
            download = f", or run `hf download {name}` with a network" if "/" in name else ""
            problems.append(Problem((), f"{what}. Correct the path{download}", text))
    if problems:
        raise ConfigError(*problems)


def _may_be_had(model: str) -> bool:
    """Whether the hub may be asked for a model, or was asked before; without what takes seconds to import."""
    from huggingface_hub import constants

    copy = Path(constants.HF_HUB_CACHE, f"models--{model.replace('/', '--')}")
    return not constants.HF_HUB_OFFLINE or copy.is_dir()


def say_at_once(text: str) -> None:
    """Tell who waits at a terminal what goes on, before what takes seconds to import."""
    if sys.stderr.isatty():
        typer.echo(text, err=True)


def read_overrides(settings: list[str] | None) -> dict[str, Any]:
    """What `--set` options say: path of a setting → value.

    Raises:
        ConfigError: one is no KEY.PATH=VALUE, or its value no YAML.
    """
    if not settings:
        return {}
    from merge_core import MergeError  # takes seconds
    from merge_core.yaml_text import parse_yaml

    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            message = "expected KEY.PATH=VALUE. Example: --set budget.evaluations=50"
            raise ConfigError(Problem((), message, f"--set {setting}"))
        try:
            (overrides[key],) = parse_yaml(text) or (None,)
        except MergeError:
            raise ConfigError(Problem((), "the value is not YAML", f"--set {setting}")) from None
    return overrides
