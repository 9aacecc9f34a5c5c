"""What may stand under `layers` in a recipe of a search: which layers of which model follow one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evolve import bounds
from evolve.space.genes import RangeGene
from evolve.space.template import Template

NAMES = ("each_block", "any", "same_depth")  # that need no mapping around them
SCALED_BY_DEFAULT = ("o_proj", "down_proj")  # what a layer adds to its input goes through them


class ScaleGene(RangeGene):
    """The strength of a repeated layer."""

    filters: tuple[str, ...] = Field(
        default=SCALED_BY_DEFAULT,
        min_length=1,
        description="Substrings of the names of the tensors to scale: those that a layer's output passes through.",
    )
    layers: None = None


class _LayerGenes(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    longest: int | None = Field(default=None, ge=1, le=bounds.LAYERS, description="Maximum number of layers.")
    scale: ScaleGene | None = Field(
        default=None,
        description="A gene for the strength of a repeated layer, 1 being full: mergekit's `scale` of what the layer "
        "adds to its input.",
    )


class RepeatGenes(_LayerGenes):
    """One block of consecutive layers of one model is passed twice: `layers: {repeat: each_block}`."""

    repeat: Literal["each_block"] = Field(description="Which blocks are repeated.")


class PathGenes(_LayerGenes):
    """Layers of several models in a row: `layers: {path: any}`."""

    path: Literal["any", "same_depth"] = Field(
        description="any: at each depth any layer of any model, so that layers are moved, skipped and repeated. "
        "same_depth: at each depth that layer of one of the models, or none where `shortest` allows it."
    )
    shortest: int | None = Field(default=None, ge=1, le=bounds.LAYERS, description="Minimum number of layers.")

    @model_validator(mode="after")
    def _consistent(self) -> PathGenes:
        if self.shortest is not None and self.longest is not None and self.shortest > self.longest:
            raise ValueError(f"shortest {self.shortest} is above longest {self.longest}")
        return self


def kind_of_layers(written: object) -> type[RepeatGenes | PathGenes]:
    """Which of the two something under `layers` is meant to be."""
    names = written.keys() if isinstance(written, Mapping) else [written]
    return RepeatGenes if "repeat" in names or "each_block" in names else PathGenes


def parse_layers(written: object) -> RepeatGenes | PathGenes:
    """Read what stands under `layers`; `each_block`, `any` and `same_depth` need no mapping around them.

    Raises:
        pydantic.ValidationError: it is wrong.
    """
    kind = kind_of_layers(written)
    named = {"repeat" if kind is RepeatGenes else "path": written} if isinstance(written, str) else written
    return kind.model_validate(named)


def merges_layers(template: Template) -> bool:
    """Whether layers stand beside a merge, whose layers the path goes through, and not beside models as they are."""
    return template.document.get("merge_method") != "passthrough"
