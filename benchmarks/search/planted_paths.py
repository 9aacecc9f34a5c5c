"""Planted layer paths: whether the search finds them, and in how many candidates.

    python benchmarks/search/planted_paths.py [--seeds 20] [--most 2000] [--cases alternate,moved]

One trained model of the demo zoo is taken apart so that a path through what is left is that model again, or another one
that is known: `alternate` has its even layers in one donor and its odd ones in another, and noise in their places;
`moved` has a layer at another depth; `shuffled` three layers; `repeated` is the model, and what is looked for is the
model with a block passed twice, which is told by that one's answers. A candidate's score is the mean probability of the
right answers to prompts of the zoo. A path is found when its logits are the planted model's, bit for bit.

`merged` looks for path and weights together: base and model have the same layer at another depth, and the model's task
vector has a weight for each third of the layers, which begin at 0.5. It is found when the path is the planted one and
the score within 0.02 of the planted model's, whose weights are 1.

Random search's median is what its chance to hit the path says: it draws a layer, or none, for every place.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from evolve.config.machines import BackendConfig
from evolve.evaluation.worker import Worker, WorkerSettings
from evolve.optimizers import OPTIMIZERS, SearchProblem
from evolve.scoring import LmEvalTask
from evolve.scoring.language_model import PreparedContinuation
from evolve.space.layer_genes import PathGenes
from evolve.space.layer_path import Path as LayerPath
from evolve.space.layer_path import Step, whole_model
from evolve.space.merged_path_space import MergedPathSpace
from evolve.space.path_space import PathSpace
from evolve.space.template import Template
from evolve.space.tensor_kinds import TensorKinds

ZOO = Path(__file__).resolve().parents[2] / "configs" / "demo_zoo"
MODEL, TASK = "sorting", "demo_sorting"
LAYERS = 6
PROMPTS = 32
WEIGHT = {"low": 0.0, "high": 1.5, "init": 0.5, "layers": {"blocks": 3}}
AS_GOOD = 0.02


@dataclass(frozen=True)
class Case:
    """What is planted: the donors, made of the model's tensors by layer, and the path that is looked for."""

    donors: dict[str, list[int | None]]  # per layer the one of the model that stands there; None is noise
    path: LayerPath
    own_answers: bool = False  # the right answers are the planted model's, else the task's
    merged: bool = False  # of the zoo's base and the model, both with their layers as the only donor's


def of(model: int, *layers: int) -> LayerPath:
    """Layers of one donor."""
    return tuple(Step(model, layer) for layer in layers)


CASES = {
    "alternate": Case(
        {"even": [0, None, 2, None, 4, None], "odd": [None, 1, None, 3, None, 5]},
        tuple(Step(layer % 2, layer) for layer in range(LAYERS)),
    ),
    "moved": Case({"moved": [0, 2, 3, 4, 1, 5]}, of(0, 0, 4, 1, 2, 3, 5)),
    "shuffled": Case({"shuffled": [0, 3, 1, 4, 2, 5]}, of(0, 0, 2, 4, 1, 3, 5)),
    "merged": Case({MODEL: [0, 2, 3, 4, 1, 5]}, of(0, 0, 4, 1, 2, 3, 5), merged=True),
    "repeated": Case({"whole": list(range(LAYERS))}, of(0, 0, 1, 2, 3, 2, 3, 4, 5), own_answers=True),
}


def make_donor(directory: Path, layers: Sequence[int | None], model: str = MODEL) -> None:
    """A copy of the model with its layers in another order, and noise as large as they are in places of None."""
    shutil.copytree(ZOO / model, directory)
    tensors = load_file(directory / "model.safetensors")
    made = {name: tensor for name, tensor in tensors.items() if ".layers." not in name}
    generator = torch.Generator().manual_seed(0)
    for name in tensors:
        if ".layers." not in name:
            continue
        before, _, rest = name.partition(".layers.")
        place, _, inner = rest.partition(".")
        source = layers[int(place)]
        if source is not None:
            made[name] = tensors[f"{before}.layers.{source}.{inner}"].clone()
        else:
            own = tensors[name].float()
            noise = torch.randn(own.shape, generator=generator) * own.std() + own.mean()
            made[name] = noise.to(tensors[name].dtype)
    save_file(made, directory / "model.safetensors", {"format": "pt"})


class Bed:
    """A case, ready to score paths."""

    def __init__(self, case: Case, root: Path) -> None:
        for name, layers in case.donors.items():
            make_donor(root / name, layers)
        self.case = case
        document: dict[str, Any] = {"merge_method": "passthrough", "dtype": "bfloat16"}
        document["models"] = [{"model": str(root / name)} for name in case.donors]
        if case.merged:
            make_donor(root / "base", case.donors[MODEL], "base")
            document |= {"merge_method": "task_arithmetic", "base_model": str(root / "base")}
            document["models"][0]["parameters"] = {"weight": WEIGHT}
        template = Template.read(document)
        depths = dict.fromkeys(template.models, LAYERS)
        genes = PathGenes(path="any")
        self.space: PathSpace | MergedPathSpace = PathSpace(template, depths, genes)
        if case.merged:
            self.space = MergedPathSpace.span(template, depths, genes, TensorKinds())
        self.worker = Worker(
            WorkerSettings(
                models=template.models,
                relative_to=str(root),
                tokenizer_model=template.models[0],
                tasks=(LmEvalTask(name=TASK),),
                task_search_path=(),
                seed=0,
                backend=BackendConfig(),
                threads=1,
            )
        )
        self.known: dict[tuple[float, ...], float] = {}
        model = self.load(self.planted_point)
        targets = list(self.worker.tasks.known_targets(TASK, range(PROMPTS)).values())
        prompts = [target.prompt for target in targets if target.prompt is not None]
        self.tokens = torch.tensor([prompts[0].tokens])
        self.planted = self.logits()
        if case.own_answers:
            answers = model.generate_tokens(prompts)
            pairs = zip(prompts, answers, strict=True)
            self.requests = [PreparedContinuation(prompt.tokens, tuple(tokens)) for prompt, tokens in pairs]
        else:
            self.requests = [target.right[0].parts[-1] for target in targets]

    @property
    def planted_point(self) -> tuple[float, ...]:
        """What is looked for; its weights, where there are such, are 1."""
        point = self.space.point_of(self.case.path) or ()
        axes = self.space.coordinates[len(point[: self.space.place_count]) :]
        return (*point[: self.space.place_count], *(axis.gene.unit(1.0) for axis in axes))

    def load(self, vector: Sequence[float]) -> Any:
        """The live model at a point."""
        return self.worker.load(self.space.decode(vector))

    @torch.inference_mode()
    def logits(self) -> torch.Tensor:
        """Of the first prompt, by the live model as it is."""
        found: torch.Tensor = self.worker.live.engine.model(input_ids=self.tokens).logits
        return found

    def score(self, vector: Sequence[float]) -> float:
        """Mean over prompts of the probability of the right answer, a token's on average."""
        point = self.space.canonical(vector)
        if point not in self.known:
            found = self.load(point).loglikelihood(self.requests)
            lengths = [len(request.continuation) for request in self.requests]
            self.known[point] = statistics.fmean(
                math.exp(total / length) for (total, _), length in zip(found, lengths, strict=True)
            )
        return self.known[point]

    def is_planted(self, vector: Sequence[float]) -> bool:
        """Whether its logits are the planted model's, bit for bit; of a merge whether it is as good."""
        if self.space.path_at(vector) != self.case.path:
            return False
        if self.case.merged:
            return self.score(vector) > self.score(self.planted_point) - AS_GOOD
        self.load(vector)
        return torch.equal(self.logits(), self.planted)


def search(bed: Bed, optimizer_name: str, seed: int, most: int) -> int | None:
    """Candidates until the path is found; None where it was not."""
    space = bed.space
    donors = [space.point_of(whole_model(model, LAYERS)) or () for model in range(len(bed.case.donors))]
    known = tuple((point, bed.score(point)) for point in donors)
    best = max(known, key=lambda entry: entry[1])
    counts = tuple(getattr(axis.gene, "step_count", 0) for axis in space.coordinates)
    problem = SearchProblem(
        start=best[0],
        sigmas=(0.2,) * len(counts),
        choice_counts=(0,) * len(counts),
        step_counts=counts,
        seed=seed,
        known=known,
        path=space,
        canonical=space.canonical,
        inactive=getattr(space, "inactive", None),
    )
    optimizer = OPTIMIZERS[optimizer_name](problem)
    asked = 0
    while asked < most and (vectors := optimizer.ask()):
        results = []
        for vector in vectors:
            asked += 1
            if bed.is_planted(vector):
                return asked
            results.append(bed.score(vector))
        optimizer.tell(vectors, results)
    return None


def random_median(bed: Bed) -> float:
    """Candidates that random search takes, by the chance that a point of the cube is the planted path."""
    places, length, layers = bed.space.place_count, len(bed.case.path), sum(bed.space.layer_counts)
    ways = math.comb(places, length)  # none may stand anywhere
    chance = Fraction(ways, (layers + 1) ** places)
    return math.log(2) / float(chance)


def main(arguments: Sequence[str]) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--most", type=int, default=2000)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--optimizers", default="path")
    options = parser.parse_args(arguments)
    print(f"{'case':<12}{'optimizer':<12}{'found':>8}{'median':>9}{'range':>14}{'random, median':>17}")
    for name in options.cases.split(","):
        with tempfile.TemporaryDirectory() as root:
            bed = Bed(CASES[name], Path(root))
            for optimizer in options.optimizers.split(","):
                counts = [search(bed, optimizer, seed, options.most) for seed in range(options.seeds)]
                found = [count for count in counts if count is not None]
                median = statistics.median([count or options.most for count in counts])
                span = f"{min(found)}-{max(found)}" if found else "-"
                share = f"{len(found)}/{len(counts)}"
                print(
                    f"{name:<12}{optimizer:<12}{share:>8}{median:>9g}{span:>14}{random_median(bed):>17.2g}", flush=True
                )


if __name__ == "__main__":
    main(sys.argv[1:])
