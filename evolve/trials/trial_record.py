"""Trials and evaluations as the JSON of the journal: one encoder, one decoder, and what version 0.1.0 wrote.

Fields of an evaluation are taken from its class, so that a new measurement is written and read without a change here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from evolve.trials.trial import Evaluation, Kind, Trial

_PROPOSED = ("kind", "label", "batch", "vector", "recipe")  # known when a trial begins
_SCORED = ("task_scores", "objective", "objective_values", "fitness")  # made of its evaluation
_RENAMED = {"guide": "fitness", "objectives": "objective_values"}  # version 0.1.0's name -> today's


def proposal_to_json(trial: Trial) -> dict[str, Any]:
    """What a trial is before it is scored; number and genes are Optuna's to keep."""
    return {name: getattr(trial, name) for name in _PROPOSED}


def result_to_json(trial: Trial) -> dict[str, Any]:
    """What a trial is after it was scored."""
    return evaluation_to_json(trial.measured) | {name: getattr(trial, name) for name in _SCORED}


def trial_from_json(
    number: int, genes: Mapping[str, Any], proposal: Mapping[str, Any], result: Mapping[str, Any] | None
) -> Trial:
    """The trial of which the functions above wrote the parts; without a result it is running."""
    values = {**proposal, "kind": Kind(proposal["kind"]), "vector": _tuple(proposal["vector"])}
    trial = Trial(number=number, genes=genes, **values)
    if result is None:
        return trial
    found = {_RENAMED.get(name, name): value for name, value in result.items()}
    return replace(
        trial,
        evaluation=evaluation_from_json(number, found),
        **{name: _tuple(found[name]) for name in _SCORED},
    )


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Every field but the number, which is the trial's."""
    return {name: _to_json(value) for name, value in vars(evaluation).items() if name != "number"}


def evaluation_from_json(number: int, kept: Mapping[str, Any]) -> Evaluation:
    """What `evaluation_to_json` was given; a field that is missing, as in an earlier version, has its default."""
    found: dict[str, Any] = {
        field.name: _from_json(kept[field.name])
        for field in fields(Evaluation)
        if kept.get(field.name) is not None  # version 0.1.0 wrote null for the scores of a failure
    }
    return Evaluation(**{**found, "number": number})


def held_out_of_0_1_0(notes: Mapping[str, Any]) -> dict[int, Evaluation]:
    """The held-out evaluations of version 0.1.0, which kept scores and violations, each under a key of its own."""
    numbers = [int(key.removeprefix("held_out:")) for key in notes if key.startswith("held_out:")]
    return {
        number: evaluation_from_json(
            number,
            {"scores": notes[f"held_out:{number}"], "violations": notes.get(f"held_out_violations:{number}", {})},
        )
        for number in numbers
    }


def _to_json(value: Any) -> Any:
    """A mapping in a mapping, such as item id -> score, as two lists: JSON has no integer keys."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: {"items": list(inner), "values": list(inner.values())} if isinstance(inner, Mapping) else inner
        for key, inner in value.items()
    }


def _from_json(value: Any) -> Any:
    """What `_to_json` was given."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: dict(zip(inner["items"], inner["values"], strict=True)) if isinstance(inner, Mapping) else inner
        for key, inner in value.items()
    }


def _tuple(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(value) if isinstance(value, list) else value
