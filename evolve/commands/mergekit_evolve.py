"""The options of mergekit-evolve, as settings of a search; what has no meaning here is said in a line."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

Settings = dict[str, Any]


@dataclass(frozen=True)
class PeerOption:
    """An option of mergekit-evolve.

    Attributes:
        name: as typed; a flag with its opposite, `--vllm/--no-vllm`.
        kind: of its value: bool for a flag, list[str] where it may be repeated.
        settings: what it stands for here; empty where it has no effect.
        reason: why it has none, for who gives it.
    """

    name: str
    kind: Any
    settings: Callable[[Any], Settings] = lambda value: {}
    reason: str = ""


NONE_TYPED: Mapping[PeerOption, Any] = {}


def _if_given(**settings: Any) -> Callable[[bool], Settings]:
    return lambda given: {key.replace("__", "."): value for key, value in settings.items()} if given else {}


def _gpus(count: int) -> Settings:
    return {"workers.count": max(count, 1), "workers.gpus": 1 if count else 0}


OPTIONS = (
    PeerOption("--max-fevals", int, lambda count: {"budget.evaluations": count}),
    PeerOption("--timeout", float, lambda seconds: {"budget.minutes": seconds / 60}),
    PeerOption("--sigma0", float, lambda sigma: {"optimizer.sigma": sigma}),
    PeerOption("--force-population-size", int, lambda size: {"optimizer.population_size": size}),
    PeerOption("--task-search-path", list[str], lambda paths: {"task_search_path": list(paths)} if paths else {}),
    PeerOption("--storage-path", str, lambda path: {"output": path}),
    PeerOption("--num-gpus", int, _gpus),
    PeerOption("--vllm/--no-vllm", bool, _if_given(backend__name="vllm")),
    PeerOption("--load-in-8bit", bool, _if_given(backend__quantization="8bit")),
    PeerOption("--load-in-4bit", bool, _if_given(backend__quantization="4bit")),
    PeerOption("--i-understand-the-depths-of-the-evils-i-am-unleashing", bool, _if_given(allow_benchmark_test=True)),
    PeerOption("--wandb/--no-wandb", bool, lambda on: {"callbacks": [{"name": "wandb", "options": {}}]} if on else {}),
    PeerOption("--wandb-project", str, lambda name: {"callbacks.0.options.project": name}),
    PeerOption("--wandb-entity", str, lambda name: {"callbacks.0.options.entity": name}),
    PeerOption(
        "--strategy",
        str,
        lambda name: {"workers.count": 1} if name == "serial" else {},
        "workers are a pool, and each is given the next candidate",
    ),
    PeerOption("--batch-size", str, reason="batches are filled by tokens, --set backend.max_batch_tokens=N"),
    PeerOption("--in-memory/--no-in-memory", bool, reason="candidates are always merged in memory"),
    PeerOption("--merge-cuda/--no-merge-cuda", bool, reason="candidates are merged where they are run"),
    PeerOption("--reshard/--no-reshard", bool, reason="models are read as they are"),
    PeerOption("--allow-crimes/--no-allow-crimes", bool, reason="nothing here needs it"),
    PeerOption("--save-final-model/--no-save-final-model", bool, reason="the best model is always written, and proven"),
    PeerOption(
        "--trust-remote-code/--no-trust-remote-code", bool, reason="a search runs no code that comes with a model"
    ),
)


def takes_mergekit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, unseen in its help; it gets those that were typed as `peer_options`.

    Args:
        command: its signature is read by typer.
    """
    options = {f"peer_{number}": option for number, option in enumerate(OPTIONS)}
    own = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(
            key,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[option.kind | None, typer.Option(option.name, *_short(option), hidden=True)],
        )
        for key, option in options.items()
    ]

    @functools.wraps(command)
    def call(**values: Any) -> Any:
        typed = {option: values.pop(key) for key, option in options.items()}
        return command(**values, peer_options={option: value for option, value in typed.items() if value is not None})

    kept = [parameter for parameter in own.parameters.values() if parameter.name != "peer_options"]
    call.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    return call


def _short(option: PeerOption) -> tuple[str, ...]:
    return ("-s",) if option.name == "--strategy" else ()


def settings_of(typed: Mapping[PeerOption, Any]) -> tuple[Settings, list[str]]:
    """What mergekit-evolve's options stand for.

    Args:
        typed: option -> its value.

    Returns:
        Path of a setting -> value; and a line for every option that stands for nothing.
    """
    settings: Settings = {}
    notes = []
    for option, value in typed.items():
        meant = option.settings(value)
        settings |= meant
        if not meant and option.reason:
            notes.append(f"{option.name.partition('/')[0]} has no effect: {option.reason}")
    if "callbacks" not in settings:  # a project without --wandb says nothing, there too
        settings = {path: value for path, value in settings.items() if not path.startswith("callbacks.")}
    return settings, notes
