"""Every family that merges is scored: the live model of a search answers as transformers does with the saved merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES, VISION_FAMILIES, model_class, new_model, save_pair

from evolve.config.machines import BackendConfig
from evolve.preflight.build_check import check_live_model
from evolve.scoring import ScoringError
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.backends.uninitialised_model import build_uninitialised_model
from evolve.scoring.language_model import GenerationSettings, PreparedContinuation, PreparedGeneration
from merge_core import LiveMerge, Recipe, build_plan, live_parameters, merge, open_checkpoints

LINEAR = Recipe.from_mapping(
    {
        "merge_method": "linear",
        "models": [{"model": "a", "parameters": {"weight": 0.25}}, {"model": "b", "parameters": {"weight": 0.75}}],
    }
)
# Shared contexts, several lengths in a batch, one continuation of several tokens.
PAIRS = [((5, 6, 7), (8,)), ((5, 6, 7), (9, 10)), ((11, 12, 13, 14, 15), (16, 17, 18)), ((4,), (5,))]


def expected_scores(model: Any) -> list[tuple[float, bool]]:
    """Each pair alone, in one plain forward."""
    scores = []
    for context, continuation in PAIRS:
        tokens = torch.tensor([[*context, *continuation]])
        with torch.no_grad():
            logits = model(tokens).logits[0, len(context) - 1 : -1].float().log_softmax(-1)
        wanted = torch.tensor(continuation)
        greedy = bool((logits.argmax(-1) == wanted).all())
        scores.append((float(logits.gather(1, wanted[:, None]).sum()), greedy))
    return scores


CAUSAL = [family for family in (*FAMILIES, *VISION_FAMILIES) if family != "paligemma"]


@pytest.mark.parametrize("family", CAUSAL)
def test_a_family_is_scored_as_transformers_does(family: str, tokenizer: Any, tmp_path: Path) -> None:
    zoo = save_pair(family, tmp_path)
    checkpoints = open_checkpoints(LINEAR.references(), zoo)
    plan = build_plan(LINEAR, checkpoints)
    check_live_model(BackendConfig(), plan)  # what `evolve check` says of it
    live = build_uninitialised_model(plan.config, "float32", torch.device("cpu"), None)
    LiveMerge(checkpoints).write(plan, live_parameters(live))
    backend = HFBackend(live, tokenizer, "cpu", max_batch_tokens=64)
    merge(LINEAR, tmp_path / "m", relative_to=zoo)
    saved = model_class(family).from_pretrained(tmp_path / "m").eval()

    found = backend.loglikelihood([PreparedContinuation(*pair) for pair in PAIRS])
    for own, expected in zip(found, expected_scores(saved), strict=True):
        assert own[0] == pytest.approx(expected[0], abs=1e-4)
        assert own[1] == expected[1]

    prompts = [(5, 6, 7, 8), (9, 10, 11, 12)]
    settings = GenerationSettings((), 4)
    answers = backend.generate_tokens([PreparedGeneration(prompt, settings) for prompt in prompts])
    ends = list(backend.end_tokens)
    with torch.no_grad():
        ids = saved.generate(
            torch.tensor(prompts), max_new_tokens=4, do_sample=False, eos_token_id=ends, pad_token_id=0
        )
    for answer, row in zip(answers, ids[:, 4:].tolist(), strict=True):
        end = next((place for place, token in enumerate(row, 1) if token in ends), len(row))
        assert answer == row[:end]


def test_a_model_that_attends_to_both_sides_is_not_scored_on_texts(tokenizer: Any) -> None:
    backend = HFBackend(new_model("paligemma", 0), tokenizer, "cpu")
    with pytest.raises(ScoringError, match="use_bidirectional_attention"):
        backend.loglikelihood([PreparedContinuation(*pair) for pair in PAIRS])
    with pytest.raises(ScoringError, match="use_bidirectional_attention"):
        backend.generate_tokens([PreparedGeneration((5, 6), GenerationSettings((), 4))])
