"""The result of a recipe as a model of the next one, in memory: it is merged tensor by tensor, and never written."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from merge_core.checkpoint.open_checkpoints import open_checkpoints
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError
from merge_core.execute.job_runner import run_job
from merge_core.plan.plan import MergePlan
from merge_core.plan.stacked_plan import plan_recipes
from merge_core.recipe.documents import order_documents, outside_models
from merge_core.recipe.recipe import Recipe


class MergedCheckpoint(Checkpoint):
    """Read like any other model. A tensor is merged when it is first read, and kept.

    Args:
        plan: of the merge.
        sources: the models that it reads.

    Raises:
        MergeError: the merge is written in a way that a model in memory has not.
    """

    def __init__(self, plan: MergePlan, sources: Mapping[str, Checkpoint]) -> None:
        if plan.tokenizer.changed or plan.quantization:
            what = "makes a tokenizer of its own" if plan.tokenizer.changed else "is written quantized"
            raise MergeError(f"it {what}, which only its files have. Write it with evolve merge, and name that")
        super().__init__(sources[plan.template].directory, dict(plan.config), plan.headers)
        self._plan = plan
        self._jobs = {job.output: job for job in plan.jobs}
        self._sources = sources
        self._made: dict[str, Tensor] = {}
        self._making = threading.Lock()

    @classmethod
    def of_documents(
        cls, documents: Sequence[Recipe], relative_to: Path, seed: int = 0, known: Mapping[str, Path] | None = None
    ) -> MergedCheckpoint:
        """Open the models of a recipe, and plan its merge.

        Args:
            documents: of the recipe.
            relative_to: where local models are looked for first.
            seed: of randomised methods.
            known: directories of models that are not looked for.

        Raises:
            MergeError: models that cannot be found, or that cannot be merged so.
        """
        references = dict.fromkeys(one for document in documents for one in outside_models(document, documents))
        sources = open_checkpoints(list(references), relative_to, known)
        return cls(plan_recipes(order_documents(documents), sources, seed), sources)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return MergedCheckpoint, (self._plan, self._sources)

    @property
    def parts(self) -> tuple[Checkpoint, ...]:
        """The models that it is merged of."""
        return tuple(part for source in self._sources.values() for part in source.parts)

    @property
    def held_bytes(self) -> int:
        """Size of all of its tensors."""
        return self.stored_bytes

    @property
    def directories(self) -> tuple[Path, ...]:
        """Those of the models that it is merged of."""
        return tuple(dict.fromkeys(directory for part in self.parts for directory in part.directories))

    def read(self, name: str) -> Tensor:
        """A tensor, merged by the first who asks; do not write to it."""
        if name not in self.tensors:
            raise MergeError(f"{self.directory}: no tensor {name}")
        with self._making:
            if name not in self._made:
                job = self._jobs[name]
                self._made[name] = run_job(job, self._sources).contiguous()
                for source in job.inputs:
                    self._sources[source.model].release(source.tensor)
            return self._made[name]

    def cache_key(self, name: str) -> str | None:
        """None: its values depend on more than a file."""
        return None

    def load(self, name: str) -> None:
        """Merge a tensor, unless it is."""
        self.read(name)

    def release(self, name: str) -> None:
        """Nothing: it is not made again."""

    def read_in_parts(self, name: str) -> Tensor:
        """As `read`."""
        return self.read(name)
