"""Recipe + checkpoint headers → ordered tensor jobs and the result's config. Reads no data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from merge_core.checkpoint.layout import PREDICTION, Layout, checkpoint_layout
from merge_core.checkpoint.reader import Checkpoint
from merge_core.checkpoint.weight_files import TensorHeader
from merge_core.errors import MergeError, Problem, and_more
from merge_core.input_files import reading
from merge_core.methods import METHODS
from merge_core.plan.common_tensors import common_names
from merge_core.plan.job_builder import JobBuilder
from merge_core.plan.merged_config import LayerOrigin, displaced_layers, merged_config, states_layers
from merge_core.plan.output_quantization import QUANTIZED_DTYPES, quantize_outputs
from merge_core.plan.output_vocabulary import OutputVocabulary
from merge_core.plan.prediction_layers import check_graft, prediction_tensors, take_prediction_settings
from merge_core.plan.slice_context import SliceContext
from merge_core.plan.tensor_job import TensorJob
from merge_core.plan.towers import check_modules, language_recipe, layer_positions, module_recipe, module_slice
from merge_core.recipe.parameters import MissingParameterError, layer_position
from merge_core.recipe.parts import OutputSlice, SliceSource
from merge_core.recipe.recipe import Recipe
from merge_core.recipe.slices import output_slices, whole_models
from merge_core.recipe.user_methods import own_method_notice
from merge_core.vocabulary.tokenizer_files import OutputTokenizer

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
DTYPES |= dict.fromkeys(QUANTIZED_DTYPES, torch.bfloat16)  # of what is not written quantized


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What to make, in order.

    Attributes:
        jobs: one per output tensor.
        config: the result's ``config.json``, as of a model with float weights.
        template: the model whose config the result takes.
        tied: whether the head is the embedding, and so has no job of its own.
        warnings: what a user should know, one line each.
        tokenizer: the result's tokenizer and chat template.
        extra: outputs that are copied because the model has them, but that a live model may lack (layers for
            multi-token prediction).
        layer_count: layers of the result's language model, without such.
        count_key: path in the config of their number, () when the config does not say.
        quantization: what the saved config says of weights that are written quantized.
    """

    jobs: tuple[TensorJob, ...]
    config: dict[str, Any]
    template: str
    tied: bool
    warnings: tuple[str, ...]
    tokenizer: OutputTokenizer
    extra: frozenset[str] = frozenset()
    layer_count: int = 0
    count_key: tuple[str, ...] = ()
    quantization: Mapping[str, Any] = field(default_factory=dict)

    @property
    def saved_config(self) -> dict[str, Any]:
        """The ``config.json`` that is written."""
        return self.config | ({"quantization_config": dict(self.quantization)} if self.quantization else {})

    @property
    def headers(self) -> dict[str, TensorHeader]:
        """Of the result's tensors as they are read, before there is a file that holds them."""
        return {job.output: TensorHeader(job.dtype, job.shape, Path()) for job in self.jobs}

    @property
    def parameter_count(self) -> int:
        """Elements of all tensors of the result."""
        return sum(math.prod(job.shape) for job in self.jobs)


def build_plan(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], seed: int = 0, mtp_from: str | None = None
) -> MergePlan:
    """Plan a merge.

    Args:
        recipe: what to merge.
        checkpoints: for every reference of the recipe, by its text, the opened model.
        seed: of randomised methods.
        mtp_from: whose layers for multi-token prediction the result gets, one of ``checkpoints``. By default those of
            the model that it is modelled on, if that has any.

    Raises:
        MergeError: tensors that are missing or differ in shape, layers out of range, a required parameter
            without value, a feature that is not supported.
    """
    try:
        return _Planner(recipe, checkpoints, seed, mtp_from).plan()
    except MissingParameterError as error:  # it may stand where nothing reads it
        raise MergeError(*error.problems, *recipe.ignored) from error


class _Planner:
    def __init__(self, recipe: Recipe, checkpoints: Mapping[str, Checkpoint], seed: int, mtp_from: str | None) -> None:
        self.whole, self.recipe = recipe, language_recipe(recipe)
        self.checkpoints, self.mtp_from = checkpoints, mtp_from
        notice = own_method_notice(METHODS[self.recipe.merge_method].name)
        self.warnings: dict[str, None] = {} if notice is None else {notice: None}
        self.slices = self.find_slices()
        self.layer_count = sum(part.layer_count for part in self.slices)
        used = list(dict.fromkeys(str(source.model) for part in self.slices for source in part.sources))
        self.several = len(used) > 1
        self.layouts = {model: self.layout(model) for model in used}
        self.check_ranges()
        base = self.recipe.base_model
        self.template = str(base) if base is not None and str(base) in used else used[0]
        template = self.layouts[self.template]
        self.check_layer_count(template)
        check_modules(recipe, self.template, template)
        # Tied stays tied only where every model is: one with a head of its own unties the result.
        self.tied = all(layout.tied for layout in self.layouts.values())
        ordered = list(dict.fromkeys([self.template, *used]))
        self.vocabulary = OutputVocabulary(self.recipe, ordered, self.layouts, self.layout, checkpoints)
        dtype = recipe.out_dtype or recipe.dtype
        self.builder = JobBuilder(
            checkpoints,
            self.layouts,
            self.template,
            self.vocabulary,
            dtype=None if dtype is None else DTYPES[dtype],
            seed=seed,
            warnings=self.warnings,
        )

    def plan(self) -> MergePlan:
        template, start = self.layouts[self.template], 0
        jobs = list(self.outside(self.slices[0], "before"))
        for part in self.slices:
            jobs += self.layers(part, template.layers_name, start)
            start += part.layer_count
        jobs += self.outside(self.slices[-1], "after")
        self.vocabulary.warn_of_unaligned()
        if self.builder.whole_numbers:
            found = and_more(self.builder.whole_numbers)
            self.warnings[f'weights of whole numbers are not merged but copied from "{self.template}": {found}'] = None
        prediction = list(self.prediction_layers(template))
        jobs += [*prediction, *self.modules(template)]
        config = self.config(template, jobs)
        quantization: dict[str, Any] = {}
        if self.recipe.out_dtype in QUANTIZED_DTYPES:
            own = self.checkpoints[self.template]
            jobs, quantization = quantize_outputs(self.recipe.out_dtype, jobs, template, own)
        return MergePlan(
            jobs=tuple(jobs),
            config=self.vocabulary.config(config),
            template=self.template,
            tied=self.tied,
            warnings=(*self.warnings, *self.vocabulary.warnings),
            tokenizer=self.vocabulary.tokenizer,
            extra=frozenset((*(job.output for job in prediction), *template.modules.get(PREDICTION, {}).values())),
            layer_count=self.layer_count,
            count_key=template.count_key,
            quantization=quantization,
        )

    # Structure ----------------------------------------------------------------------------------------------

    def find_slices(self) -> tuple[OutputSlice, ...]:
        """The recipe's slices; ``models`` is one slice of all layers, the base added when it is not listed."""
        recipe = self.recipe
        if recipe.slices is not None:
            return recipe.slices
        counts = {str(model): self.layout(str(model)).layer_count for model, _ in whole_models(recipe)}
        if len(set(counts.values())) > 1:
            found = ", ".join(f'"{model}" {count}' for model, count in counts.items())
            message = f"all need as many layers, got {found}. Choose layers with slices"
            raise MergeError(Problem(("models",), message, recipe.where))
        return output_slices(recipe, next(iter(counts.values())))

    def layout(self, model: str) -> Layout:
        checkpoint = self.checkpoints.get(model)
        if checkpoint is None:
            raise MergeError(Problem((), f'model "{model}" was not opened', self.recipe.where))
        return checkpoint_layout(checkpoint)

    def check_ranges(self) -> None:
        problems = []
        for index, part in enumerate(self.slices):
            for source in part.sources:
                count = self.layouts[str(source.model)].layer_count
                if source.layer_range[1] > count:
                    message = (
                        f'"{source.model}" has layers 0 to {count - 1}, got layer_range {list(source.layer_range)}. '
                        f"The end is at most {count}"
                    )
                    problems.append(Problem(("slices", index), message, self.recipe.where))
        if problems:
            raise MergeError(*problems)

    def check_layer_count(self, template: Layout) -> None:
        count = self.layer_count
        whole = all(source.layer_range == (0, count) for part in self.slices for source in part.sources)
        per_layer = next((name for inner, name in template.before.items() if "per_layer" in inner), None)
        if per_layer is not None and (count != template.layer_count or not whole):
            message = (
                f'{per_layer} of "{self.template}" has a part for every layer, so layers keep their order. Use models'
            )
            raise MergeError(Problem(("slices",), message, self.recipe.where))
        if count != template.layer_count and not states_layers(self.checkpoints[self.template].config, template):
            message = (
                f'the config of "{self.template}" does not state its number of layers, so it cannot be changed from '
                f"{template.layer_count} to {count}. Add num_hidden_layers to its config"
            )
            raise MergeError(Problem(("slices",), message, self.recipe.where))

    def config(self, template: Layout, jobs: Sequence[TensorJob]) -> dict[str, Any]:
        """The result's config, but for what depends on its tokenizer."""
        own = self.checkpoints[self.template]
        origins = [self.origin(part.sources[0]) for part in self.slices]
        with reading(own.directory / "config.json"):
            displaced = displaced_layers(own.config, template, origins)
            if displaced:
                self.warnings[
                    f"layers {and_more(map(str, displaced))} of the result are of another kind than the config of "
                    f'"{self.template}" has at their place, and it names no layers by kind: the result may not load'
                ] = None
            dtype, aligned = self.builder.dtype or self.builder.widened, self.vocabulary.aligned
            config = merged_config(own.config, template, origins, jobs, self.tied, dtype, aligned)
            if self.mtp_from is not None:
                grafted = self.layout(self.mtp_from)
                take_prediction_settings(config, template, self.checkpoints[self.mtp_from].config, grafted)
        return config

    def origin(self, source: SliceSource) -> LayerOrigin:
        """Where a slice's part of the config's per-layer lists comes from."""
        model = str(source.model)
        return self.checkpoints[model].config, self.layouts[model], range(*source.layer_range)

    # Jobs ---------------------------------------------------------------------------------------------------

    def layers(self, part: OutputSlice, layers_name: str, start: int) -> Iterator[TensorJob]:
        """The jobs of a slice's layers, which are the result's layers from ``start`` on."""
        context = SliceContext(self.recipe, part)
        for offset in range(part.layer_count):
            prefix = f"{layers_name}.{start + offset}."
            names = self.builder.layer_names(
                context.models, [source.layer_range[0] + offset for source in part.sources]
            )
            position = layer_position(offset, part.layer_count)
            for inner in common_names(names, context.models, prefix):
                yield self.builder.job(context, prefix + inner, [own[inner] for own in names], position)

    def prediction_layers(self, template: Layout) -> Iterator[TensorJob]:
        """The jobs of what is for multi-token prediction, unless the recipe merges it as a module."""
        named = PREDICTION in dict(self.whole.modules or ())
        source, layout = self.template, template
        if self.mtp_from is not None:
            if named:
                message = f'"{PREDICTION}" is merged by the recipe and taken from "{self.mtp_from}". Remove one of them'
                raise MergeError(Problem(("modules",), message, self.recipe.where))
            source, layout = self.mtp_from, self.layout(self.mtp_from)
            check_graft(source, self.checkpoints[source], layout, self.checkpoints[self.template], template)
        for output, name in prediction_tensors(layout, template, self.layer_count):
            if not (named and name in layout.modules.get(PREDICTION, {}).values()):
                yield self.builder.copy(output, name, source)

    def modules(self, template: Layout) -> Iterator[TensorJob]:
        """The towers beside the language model: merged as whole models are, or as the recipe says of each.

        Copied from the template is what no module of the recipe names, what is left out of a stack of slices, and what
        a model lacks.
        """
        copied = []
        for module, tensors in template.modules.items():
            if module == PREDICTION and module not in dict(self.whole.modules or ()):
                continue
            recipe = self.recipe_of(module)
            if recipe is None:
                copied.append(module)
                yield from (self.builder.copy(name, name, self.template) for name in tensors.values())
                continue
            context = SliceContext(recipe, module_slice(recipe, self.layouts, module))
            names = [self.layouts[model].modules.get(module, {}) for model in context.models]
            for inner, position in layer_positions(common_names(names, context.models, f"{module}: ")):
                yield self.builder.job(context, tensors.get(inner, inner), [own[inner] for own in names], position)
        if copied and self.several:
            self.warnings[
                f'{", ".join(copied)}: copied from "{self.template}". Name them under modules to merge them too'
            ] = None

    def recipe_of(self, module: str) -> Recipe | None:
        """What a module beside the language model is merged by; None where it is copied."""
        if module in dict(self.whole.modules or ()):
            recipe = module_recipe(self.whole, module)
            for source in recipe.references():
                self.layouts.setdefault(str(source), self.layout(str(source)))
            return recipe
        whole = self.whole.modules is None and self.whole.slices is None
        everywhere = all(module in layout.modules for layout in self.layouts.values())
        return self.recipe if whole and everywhere else None

    def outside(self, part: OutputSlice, side: str) -> Iterator[TensorJob]:
        """The jobs before or after the layers."""
        context, template = SliceContext(self.recipe, part), self.layouts[self.template]
        names = [dict(getattr(self.layouts[model], side)) for model in context.models]
        if side == "after":
            self.settle_heads(names, context)
        for inner in common_names(names, context.models, ""):
            own = getattr(template, side).get(inner) or next(
                (getattr(layout, side)[inner] for layout in self.layouts.values() if inner in getattr(layout, side)),
                inner,
            )
            yield self.builder.job(context, own, [tensors[inner] for tensors in names], 0.0, crop=True)

    def settle_heads(self, names: list[dict[str, str]], context: SliceContext) -> None:
        """Where some models are tied and some not, the tied ones' head is their embedding."""
        head = next((layout.head for layout in self.layouts.values() if layout.head is not None), None)
        if self.tied or head is None:
            return
        for tensors, model in zip(names, context.models, strict=True):
            layout = self.layouts[model]
            if layout.tied and layout.embedding is not None:
                tensors[head] = layout.embedding
