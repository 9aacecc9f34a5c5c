"""What several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

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


def read_overrides(settings: list[str] | None) -> dict[str, Any]:
    """What `--set` options say: path of a setting → value.

    Raises:
        ConfigError: one is no KEY.PATH=VALUE, or its value no YAML.
    """
    overrides = {}
    for setting in settings or ():
        key, equals, text = setting.partition("=")
        if not equals or not key:
            message = "expected KEY.PATH=VALUE. Example: --set budget.evaluations=50"
            raise ConfigError(Problem((), message, f"--set {setting}"))
        try:
            overrides[key] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            raise ConfigError(Problem((), "the value is not YAML", f"--set {setting}")) from None
    return overrides
