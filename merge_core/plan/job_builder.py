"""The job of one tensor of the result, from its sources' names and headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from merge_core.checkpoint.expert_forms import ExpertPart, in_form_of, is_stack
from merge_core.checkpoint.layout import Layout
from merge_core.checkpoint.reader import Checkpoint
from merge_core.checkpoint.weight_files import TensorHeader
from merge_core.plan.common_tensors import common_rows, widened_dtype
from merge_core.plan.output_vocabulary import OutputVocabulary
from merge_core.plan.slice_context import SliceContext
from merge_core.plan.tensor_job import JobInput, TensorJob


class JobBuilder:
    """Makes the jobs of a plan.

    Args:
        checkpoints: by reference.
        layouts: of the merged models, by reference.
        template: reference of the model that the result is modelled on.
        vocabulary: of the result.
        dtype: of the result; None for those of the sources.
        seed: of randomised methods.
        warnings: the plan's, which are added to.

    Attributes:
        dtype: as above.
        widened: a dtype that results have because their sources have several; None where none has.
        whole_numbers: results that are copied, since their weights are whole numbers.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        layouts: Mapping[str, Layout],
        template: str,
        vocabulary: OutputVocabulary,
        *,
        dtype: torch.dtype | None,
        seed: int,
        warnings: dict[str, None],
    ) -> None:
        self._checkpoints, self._layouts, self._template = checkpoints, layouts, template
        self._vocabulary, self._seed, self._warnings = vocabulary, seed, warnings
        self._experts: dict[tuple[str, str], ExpertPart] = {}
        self.dtype = dtype
        self.widened: torch.dtype | None = None
        self.whole_numbers: list[str] = []

    def layer_names(self, models: Sequence[str], layers: Sequence[int]) -> list[Mapping[str, str]]:
        """The names of a layer's tensors in each model, experts in the form of the template's or the first model's.

        Args:
            models: references.
            layers: the layer's number in each.
        """
        names = [self._layouts[model].layers[layer] for model, layer in zip(models, layers, strict=True)]
        if all(own.keys() == names[0].keys() for own in names):
            return names
        chosen = models.index(self._template) if self._template in models else 0
        found: list[Mapping[str, str]] = []
        for model, layer, own in zip(models, layers, names, strict=True):
            parts = in_form_of(names[chosen], self._checkpoints[models[chosen]], own, self._checkpoints[model])
            prefix = f"{self._layouts[model].layers_name}.{layer}."
            self._experts |= {
                (model, prefix + inner): part for inner, part in parts.items() if not isinstance(part, str)
            }
            found.append({inner: part if isinstance(part, str) else prefix + inner for inner, part in parts.items()})
        return found

    def copy(self, output: str, name: str, model: str) -> TensorJob:
        """A tensor of a model as it is."""
        header = self._checkpoints[model].tensors[name]
        dtype = self.dtype if self.dtype is not None and header.dtype.is_floating_point else header.dtype
        return _copy(output, model, name, header.shape, dtype)

    def job(
        self, context: SliceContext, output: str, names: Sequence[str], position: float, crop: bool = False
    ) -> TensorJob:
        """A merged tensor.

        Args:
            context: of its slice.
            output: its name.
            names: its name in each of the slice's models.
            position: of its layer in the slice, see `layer_position`.
            crop: whether it may be an embedding, whose sources may differ in their numbers of rows.

        Raises:
            MergeError: shapes that differ, or a required parameter without value.
        """
        headers = [self._header(model, name) for model, name in zip(context.models, names, strict=True)]
        shape = headers[0].shape
        vocabulary = crop and self._vocabulary.covers(context.models, names)
        for header in headers:
            if header.shape != shape:
                if vocabulary and header.shape[1:] == shape[1:]:
                    continue
                shape, warning = common_rows(output, context.models, headers, crop)
                self._warnings[warning] = None
                break
        index = context.models.index(self._template) if self._template in context.models else 0
        own_dtype = headers[index].dtype
        if not own_dtype.is_floating_point:
            # Averaging integers or flags has no meaning; that of weights may be expected all the same.
            if len(names) > 1 and output.endswith("weight") and own_dtype is not torch.bool:
                self.whole_numbers.append(output)
            return _copy(output, context.models[index], names[index], shape, own_dtype)
        dtype = self.dtype
        if dtype is None:
            wider = widened_dtype(headers)
            self.widened = wider or self.widened
            dtype = wider or own_dtype
        one_by_one = len(shape) == 3 and is_stack(output) and context.each_expert(output, position)
        job = TensorJob(
            output,
            context.method.name,
            context.inputs(names, position, self._experts),
            context.base,
            context.settings(output, position),
            shape,
            dtype,
            self._seed if context.method.randomised else 0,
            experts=shape[0] if one_by_one else 0,
        )
        return self._vocabulary.align(job, [header.shape[0] for header in headers]) if vocabulary else job

    def _header(self, model: str, name: str) -> TensorHeader:
        """Of a tensor that the model stores, or can be read as having."""
        part = self._experts.get((model, name))
        return self._checkpoints[model].tensors[name] if part is None else part.header(self._checkpoints[model])


def _copy(output: str, model: str, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> TensorJob:
    return TensorJob(output, "passthrough", (JobInput(model, name),), None, (), shape, dtype, 0)
