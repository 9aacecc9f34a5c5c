"""The `callbacks` section of search.yml."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from evolve.config.section import Section
from evolve.trackers.callback import Callback
from evolve.trackers.registry import check_callback_options, find_callback


def callback_of(name: str, info: ValidationInfo) -> type[Callback]:
    """A tracker, or the user's own; the context of a validation says where that is looked for."""
    return find_callback(name, *([info.context] if info.context is not None else []))


class CallbackConfig(Section):
    """Trackers of a search: `callbacks: [tensorboard, {name: mlflow, options: {experiment: x}}]`."""

    name: str = Field(description="tensorboard, mlflow, wandb, or your own `module:Class`, an evolve.Callback.")
    options: dict[str, Any] = Field(default_factory=dict, description="Arguments of the class, by name.")

    @field_validator("name")
    @classmethod
    def _found(cls, value: str, info: ValidationInfo) -> str:
        callback_of(value, info)
        return value

    @field_validator("options")
    @classmethod
    def _taken(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "name" in info.data:
            check_callback_options(callback_of(info.data["name"], info), value)
        return value
