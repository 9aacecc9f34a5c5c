"""Recipe + checkpoint headers → ordered tensor jobs and the result's config. Reads no data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from merge_core.checkpoint.expert_forms import ExpertPart, in_form_of, is_stack
from merge_core.checkpoint.layout import PREDICTION, Layout, checkpoint_layout
from merge_core.checkpoint.reader import Checkpoint
from merge_core.checkpoint.weight_files import TensorHeader
from merge_core.errors import MergeError, Problem, and_more
from merge_core.input_files import reading
from merge_core.methods import METHODS
from merge_core.plan.common_tensors import common_names, common_rows, widened_dtype
from merge_core.plan.merged_config import displaced_layers, merged_config, states_layers
from merge_core.plan.output_quantization import QUANTIZED_DTYPES, quantize_outputs
from merge_core.plan.output_vocabulary import OutputVocabulary
from merge_core.plan.prediction_layers import check_graft, prediction_tensors, take_prediction_settings
from merge_core.plan.slice_context import SliceContext
from merge_core.plan.tensor_job import JobInput, TensorJob
from merge_core.plan.towers import check_modules, language_recipe, layer_positions, module_recipe, module_slice
from merge_core.recipe.parameters import MissingParameterError, layer_position
from merge_core.recipe.parts import OutputSlice
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
    def __init__(
        self, recipe: Recipe, checkpoints: Mapping[str, Checkpoint], seed: int, mtp_from: str | None = None
    ) -> None:
        self.mtp_from = mtp_from
        self.whole = recipe
        self.recipe = language_recipe(recipe)
        self.method = METHODS[self.recipe.merge_method]
        self.checkpoints = checkpoints
        self.seed = seed
        self.warnings: dict[str, None] = {}
        self.whole_numbers: list[str] = []
        dtype = recipe.out_dtype or recipe.dtype
        self.dtype = None if dtype is None else DTYPES[dtype]
        self.widened: torch.dtype | None = None
        self.experts: dict[tuple[str, str], ExpertPart] = {}

    def plan(self) -> MergePlan:
        if (notice := own_method_notice(self.method.name)) is not None:
            self.warnings[notice] = None
        slices = self.slices()
        used = list(dict.fromkeys(str(source.model) for part in slices for source in part.sources))
        self.layouts = {model: self.layout(model) for model in used}
        self.check_ranges(slices)
        self.template = self.find_template(used)
        template = self.layouts[self.template]
        self.check_layer_count(slices, template)
        check_modules(self.whole, self.template, template)
        ordered = list(dict.fromkeys([self.template, *used]))
        self.vocabulary = OutputVocabulary(self.recipe, ordered, self.layouts, self.layout, self.checkpoints)
        # Tied stays tied only where every model is: one with a head of its own unties the result.
        self.tied = all(layout.tied for layout in self.layouts.values())
        first, last = SliceContext(self.recipe, slices[0]), SliceContext(self.recipe, slices[-1])
        jobs = list(self.outside(first, "before"))
        start = 0
        for part in slices:
            jobs += self.layers(part, template.layers_name, start)
            start += part.layer_count
        jobs += self.outside(last, "after")
        self.vocabulary.warn_of_unaligned()
        if self.whole_numbers:
            found = and_more(self.whole_numbers)
            self.warnings[f'weights of whole numbers are not merged but copied from "{self.template}": {found}'] = None
        mtp = list(self.prediction_layers(template, start))
        jobs += [*mtp, *self.modules(template, several=len(used) > 1)]
        own = self.checkpoints[self.template]
        origins = [_layer_origins(part, self.checkpoints, self.layouts) for part in slices]
        with reading(own.directory / "config.json"):
            displaced = displaced_layers(own.config, template, origins)
            if displaced:
                self.warnings[
                    f"layers {and_more(map(str, displaced))} of the result are of another kind than the config of "
                    f'"{self.template}" has at their place, and it names no layers by kind: the result may not load'
                ] = None
            config = merged_config(
                own.config,
                template,
                origins,
                jobs,
                self.tied,
                dtype=self.dtype or self.widened,
                aligned=self.vocabulary.aligned,
            )
            if self.mtp_from is not None:
                grafted = self.layout(self.mtp_from)
                take_prediction_settings(config, template, self.checkpoints[self.mtp_from].config, grafted)
        names = frozenset((*(job.output for job in mtp), *template.modules.get(PREDICTION, {}).values()))
        quantization: dict[str, Any] = {}
        if self.recipe.out_dtype in QUANTIZED_DTYPES:
            jobs, quantization = quantize_outputs(self.recipe.out_dtype, jobs, template, own)
        return MergePlan(
            tuple(jobs),
            self.vocabulary.config(config),
            self.template,
            self.tied,
            (*self.warnings, *self.vocabulary.warnings),
            self.vocabulary.tokenizer,
            names,
            start,
            template.count_key,
            quantization,
        )

    # Structure ----------------------------------------------------------------------------------------------

    def slices(self) -> tuple[OutputSlice, ...]:
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

    def check_ranges(self, slices: Sequence[OutputSlice]) -> None:
        problems = []
        for index, part in enumerate(slices):
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

    def check_layer_count(self, slices: Sequence[OutputSlice], template: Layout) -> None:
        count = sum(part.layer_count for part in slices)
        whole = all(source.layer_range == (0, count) for part in slices for source in part.sources)
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

    def find_template(self, used: list[str]) -> str:
        base = self.recipe.base_model
        return str(base) if base is not None and str(base) in used else used[0]

    # Jobs ---------------------------------------------------------------------------------------------------

    def layers(self, part: OutputSlice, layers_name: str, start: int) -> Iterator[TensorJob]:
        """The jobs of a slice's layers, which are the result's layers from ``start`` on."""
        context = SliceContext(self.recipe, part)
        layouts = [self.layouts[model] for model in context.models]
        for offset in range(part.layer_count):
            prefix = f"{layers_name}.{start + offset}."
            layers = [source.layer_range[0] + offset for source in part.sources]
            names = [layout.layers[layer] for layout, layer in zip(layouts, layers, strict=True)]
            if any(own.keys() != names[0].keys() for own in names):
                names = self.in_one_form(context.models, layers, names)
            position = layer_position(offset, part.layer_count)
            for inner in common_names(names, context.models, prefix):
                yield self.job(context, prefix + inner, [own[inner] for own in names], position)

    def in_one_form(
        self, models: Sequence[str], layers: Sequence[int], names: Sequence[Mapping[str, str]]
    ) -> list[Mapping[str, str]]:
        """A layer of each model with its experts in the form of the template's, or of the first model's."""
        chosen = models.index(self.template) if self.template in models else 0
        found: list[Mapping[str, str]] = []
        for model, layer, own in zip(models, layers, names, strict=True):
            parts = in_form_of(names[chosen], self.checkpoints[models[chosen]], own, self.checkpoints[model])
            prefix = f"{self.layouts[model].layers_name}.{layer}."
            self.experts |= {
                (model, prefix + inner): part for inner, part in parts.items() if not isinstance(part, str)
            }
            found.append({inner: part if isinstance(part, str) else prefix + inner for inner, part in parts.items()})
        return found

    def header(self, model: str, name: str) -> TensorHeader:
        """Of a tensor that the model stores, or can be read as having."""
        part = self.experts.get((model, name))
        return self.checkpoints[model].tensors[name] if part is None else part.header(self.checkpoints[model])

    def prediction_layers(self, template: Layout, start: int) -> Iterator[TensorJob]:
        """The jobs of what is for multi-token prediction, unless the recipe merges it as a module."""
        named = PREDICTION in dict(self.whole.modules or ())
        source, layout = self.template, template
        if self.mtp_from is not None:
            if named:
                message = f'"{PREDICTION}" is merged by the recipe and taken from "{self.mtp_from}". Remove one of them'
                raise MergeError(Problem(("modules",), message, self.recipe.where))
            source, layout = self.mtp_from, self.layout(self.mtp_from)
            check_graft(source, self.checkpoints[source], layout, self.checkpoints[self.template], template)
        for output, name in prediction_tensors(layout, template, start):
            if not (named and name in layout.modules.get(PREDICTION, {}).values()):
                yield self.copy(output, name, source)

    def modules(self, template: Layout, several: bool) -> Iterator[TensorJob]:
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
                yield from (self.copy(name, name) for name in tensors.values())
                continue
            context = SliceContext(recipe, module_slice(recipe, self.layouts, module))
            names = [self.layouts[model].modules.get(module, {}) for model in context.models]
            for inner, position in layer_positions(common_names(names, context.models, f"{module}: ")):
                yield self.job(context, tensors.get(inner, inner), [own[inner] for own in names], position)
        if copied and several:
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

    def copy(self, output: str, name: str, model: str | None = None) -> TensorJob:
        """A tensor of a model, of the template by default, as it is."""
        model = model or self.template
        header = self.checkpoints[model].tensors[name]
        dtype = self.dtype if self.dtype is not None and header.dtype.is_floating_point else header.dtype
        return TensorJob(output, "passthrough", (JobInput(model, name),), None, (), header.shape, dtype, 0)

    def outside(self, context: SliceContext, side: str) -> Iterator[TensorJob]:
        """The jobs before or after the layers."""
        template = self.layouts[self.template]
        names = [dict(getattr(self.layouts[model], side)) for model in context.models]
        if side == "after":
            self.settle_heads(names, context)
        for inner in common_names(names, context.models, ""):
            own = getattr(template, side).get(inner) or next(
                (getattr(layout, side)[inner] for layout in self.layouts.values() if inner in getattr(layout, side)),
                inner,
            )
            yield self.job(context, own, [tensors[inner] for tensors in names], 0.0, crop=True)

    def settle_heads(self, names: list[dict[str, str]], context: SliceContext) -> None:
        """Where some models are tied and some not, the tied ones' head is their embedding."""
        head = next((layout.head for layout in self.layouts.values() if layout.head is not None), None)
        if self.tied or head is None:
            return
        for tensors, model in zip(names, context.models, strict=True):
            layout = self.layouts[model]
            if layout.tied and layout.embedding is not None:
                tensors[head] = layout.embedding

    def job(
        self, context: SliceContext, output: str, names: Sequence[str], position: float, crop: bool = False
    ) -> TensorJob:
        headers = [self.header(model, name) for model, name in zip(context.models, names, strict=True)]
        shape = headers[0].shape
        vocabulary = crop and self.vocabulary.covers(context.models, names)
        for header in headers:
            if header.shape != shape:
                if vocabulary and header.shape[1:] == shape[1:]:
                    continue
                shape, warning = common_rows(output, context.models, headers, crop)
                self.warnings[warning] = None
                break
        index = context.models.index(self.template) if self.template in context.models else 0
        own_dtype = headers[index].dtype
        if not own_dtype.is_floating_point:
            # Averaging integers or flags has no meaning; that of weights may be expected all the same.
            if len(names) > 1 and output.endswith("weight") and own_dtype is not torch.bool:
                self.whole_numbers.append(output)
            kept = JobInput(context.models[index], names[index])
            return TensorJob(output, "passthrough", (kept,), None, (), shape, own_dtype, 0)
        dtype = self.dtype
        if dtype is None:
            wider = widened_dtype(headers)
            self.widened = wider or self.widened
            dtype = wider or own_dtype
        job = TensorJob(
            output,
            context.method.name,
            context.inputs(names, position, self.experts),
            context.base,
            context.settings(output, position),
            shape,
            dtype,
            self.seed if context.method.randomised else 0,
            experts=shape[0] if self.apart(context, output, shape, position) else 0,
        )
        return self.vocabulary.align(job, [header.shape[0] for header in headers]) if vocabulary else job

    def apart(self, context: SliceContext, output: str, shape: tuple[int, ...], position: float) -> bool:
        """Whether the experts of a stack are merged one by one."""
        return len(shape) == 3 and is_stack(output) and context.each_expert(output, position)


def _layer_origins(
    part: OutputSlice, checkpoints: Mapping[str, Checkpoint], layouts: Mapping[str, Layout]
) -> tuple[Mapping[str, Any], Layout, range]:
    """Where the per-layer lists of the config come from: the slice's first source."""
    source = part.sources[0]
    model = str(source.model)
    return checkpoints[model].config, layouts[model], range(*source.layer_range)
