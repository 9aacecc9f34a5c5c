"""The contract of all backends on transformers', and the options that only it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from backend_contract import MAX_LENGTH, BackendContract
from torch import nn

from evolve.scoring import TaskError
from evolve.scoring.backends.backend_options import BackendOptions
from evolve.scoring.backends.factory import check_device, open_backend
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.backends.quantized_weights import round_to_4_bits, round_to_8_bits
from evolve.scoring.language_model import GenerationSettings

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


def test_eight_bits_are_the_nearest_of_255_steps_of_each_row() -> None:
    weight = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight[2] = 0
    expected = weight.clone()
    for row in (0, 1, 3, 4):
        step = weight[row].abs().max() / 127
        expected[row] = (weight[row] / step).round() * step
    assert torch.allclose(round_to_8_bits(weight.float()).double(), expected, atol=1e-6)
    assert torch.equal(round_to_8_bits(weight.float())[2], torch.zeros(7))


def test_four_bits_are_the_nearest_value_of_normal_float_4_in_each_block() -> None:
    # The quantiles of a normal distribution as the paper defines them: eight below nought, nine above, nought shared.
    normal = torch.distributions.Normal(0.0, 1.0)
    offset = 1 - 0.5 * (1 / 32 + 1 / 30)  # 0.9677
    above = normal.icdf(torch.linspace(offset, 0.5, 9, dtype=torch.float64))[:-1]
    below = -normal.icdf(torch.linspace(offset, 0.5, 8, dtype=torch.float64))[:-1]
    levels = torch.cat([below, torch.zeros(1, dtype=torch.float64), above.flip(0)]) / above[0]
    assert len(levels) == 16
    weight = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))  # 300 weights: four blocks and a part
    flat, expected = weight.double().flatten(), []
    for start in range(0, 300, 64):
        block = flat[start : start + 64]
        scale = block.abs().max()
        nearest = (block[:, None] / scale - levels).abs().argmin(dim=1)
        expected.append(levels[nearest] * scale)
    assert torch.allclose(round_to_4_bits(weight).double().flatten(), torch.cat(expected), atol=1e-5)
    assert torch.equal(round_to_4_bits(torch.zeros(2, 64)), torch.zeros(2, 64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounded_weights_are_those_of_bitsandbytes(dtype: torch.dtype) -> None:
    functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    weight = (torch.randn(96, 128, generator=torch.Generator().manual_seed(0)) * 0.02).to(dtype)
    quantized, state = functional.quantize_4bit(weight, quant_type="nf4", blocksize=64)
    assert torch.equal(round_to_4_bits(weight).to(dtype), functional.dequantize_4bit(quantized, state))
    if dtype == torch.float32:  # in bfloat16 its scale is rounded to float16 first
        integers, scale, _ = functional.int8_vectorwise_quant(weight)
        assert torch.allclose(round_to_8_bits(weight), integers.float() * scale[:, None] / 127, atol=1e-7)


@pytest.mark.parametrize(("bits", "rounded"), [("8bit", round_to_8_bits), ("4bit", round_to_4_bits)])
def test_a_quantized_candidate_is_scored_with_rounded_layers_and_kept_whole(
    bits: str, rounded: Any, models: list[Any], tokenizer_directory: Path
) -> None:
    backend = open_hf(models[0], tokenizer_directory, quantization=bits)
    oracle = open_hf(models[0], tokenizer_directory)
    plain = []
    for model in (models[1], models[0]):
        write(backend, model)
        write(oracle, model)
        plain.append(scores(oracle))
        for name, module in oracle.model.named_modules():
            if isinstance(module, nn.Linear) and name != "lm_head":
                module.weight.data.copy_(rounded(module.weight.data))
        assert scores(backend) == scores(oracle)
        assert scores(backend) != plain[-1]
        request = backend.prepare_generation("abc", GenerationSettings((), 8))
        assert backend.generate([request]) == oracle.generate([request])
        # What was merged is still there to the last bit, so unchanged tensors need no second merge.
        written = backend.model.state_dict()
        assert all(torch.equal(written[name], tensor) for name, tensor in model.state_dict().items())
    assert plain[0] != plain[1]


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
    assert compiled._call._compiled is not None


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
