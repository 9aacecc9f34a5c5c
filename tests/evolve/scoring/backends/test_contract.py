"""The contract of all backends on transformers', and the options that only it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from backend_contract import MAX_LENGTH, BackendContract

from evolve.scoring import TaskError
from evolve.scoring.backends.backend_options import BackendOptions
from evolve.scoring.backends.factory import check_device, open_backend
from evolve.scoring.backends.hf import HFBackend

SHAPE = {"max_position_embeddings": MAX_LENGTH}


@pytest.fixture(scope="module")
def models(make_model: Callable[..., Any]) -> list[Any]:
    return [make_model(seed=seed, **SHAPE) for seed in range(3)]


@pytest.fixture
def tokenizer_directory(tokenizer: Any, tmp_path: Path) -> Path:
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def backend(models: list[Any], tokenizer_directory: Path) -> HFBackend:
    return open_hf(models[0], tokenizer_directory)


def open_hf(model: Any, directory: Path, **options: Any) -> Any:
    return open_backend(BackendOptions(**options), model.config.to_dict(), directory, layout=())


def write(backend: Any, model: Any) -> None:
    backend.model.load_state_dict(model.state_dict())
    backend.weights_written()


def scores(backend: Any) -> list[float]:
    requests = [backend.prepare_continuation(context, "end") for context in ("abc", "some longer context", "")]
    return [value for value, _ in backend.loglikelihood(requests)]


class TestTransformers(BackendContract):
    """The contract, as vLLM keeps it."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on the way to its compiler
def test_a_compiled_model_scores_alike_also_after_its_weights_change(
    make_model: Callable[..., Any], tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    # A compiler trial for each instruction set would take a third of the time; the processor's own word will do.
    monkeypatch.setattr(config.cpp, "vec_isa_ok", True)
    small = [make_model(seed=seed, num_hidden_layers=1) for seed in range(2)]  # so that compiling takes seconds
    compiled = open_hf(small[0], tokenizer_directory, compile=True)
    plain = open_hf(small[0], tokenizer_directory)
    for model in small:
        write(compiled, model)
        write(plain, model)
        assert scores(compiled) == pytest.approx(scores(plain), abs=1e-3)
    assert compiled._forward._call._compiled is not None


def test_a_model_that_cannot_be_compiled_runs_as_it_is_and_says_so(
    models: list[Any], tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from torch._dynamo.exc import Unsupported

    def no_compiler(model: Any, **options: Any) -> Any:
        def call(**inputs: Any) -> Any:
            raise Unsupported("no C++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", no_compiler)
    compiled = open_hf(models[0], tokenizer_directory, compile=True)
    plain = open_hf(models[0], tokenizer_directory)
    write(compiled, models[0])
    write(plain, models[0])
    assert scores(compiled) == scores(plain)
    assert "cannot compile this model here, so it runs as it is: no C++ compiler" in caplog.text


def test_a_device_map_spreads_the_model_and_may_not_leave_parts_on_a_disk(
    models: list[Any], tokenizer_directory: Path
) -> None:
    plain = open_hf(models[0], tokenizer_directory)
    write(plain, models[0])
    for device_map in ("auto", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}):
        spread = open_hf(models[0], tokenizer_directory, device_map=device_map)
        write(spread, models[0])
        assert scores(spread) == scores(plain)
    with pytest.raises(TaskError, match=r"device_map: it puts parts of the model on cpu, disk"):
        open_hf(models[0], tokenizer_directory, device_map={"model": "cpu", "lm_head": "disk"})
    with pytest.raises(TaskError, match=r"device_map: .*lm_head"):
        open_hf(models[0], tokenizer_directory, device_map={"model": "cpu"})


def test_model_args_reach_the_model_and_unknown_ones_are_refused(models: list[Any], tokenizer_directory: Path) -> None:
    short = open_hf(models[0], tokenizer_directory, model_args={"max_length": 40, "add_bos_token": True})
    assert short.max_length == 40
    eager = open_hf(models[0], tokenizer_directory, model_args={"attn_implementation": "eager"})
    assert eager.model.config._attn_implementation == "eager"
    with pytest.raises(TaskError, match=r"model_args: .*no_such_argument"):
        open_hf(models[0], tokenizer_directory, model_args={"no_such_argument": 1})


def test_a_backend_whose_package_is_absent_is_refused_in_one_line(
    models: list[Any], tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r"vllm is not installed .* pip install 'vllm>=0\.32'"):
        open_hf(models[0], tokenizer_directory, name="vllm")


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda:99", r"there is no cuda:99 here: torch finds \d+ GPUs"),
        ("gpu", "expected auto, cpu, cuda or cuda:N, got"),
    ],
)
def test_a_device_that_is_not_here_is_refused_in_one_line(device: str, said: str) -> None:
    check_device("auto")
    check_device("cpu")
    with pytest.raises(TaskError, match=rf"^backend\.device: {said}"):
        check_device(device)


def test_a_closed_backend_holds_no_model(models: list[Any], tokenizer_directory: Path) -> None:
    backend = open_hf(models[0], tokenizer_directory)
    backend.close()
    assert backend.model is None
