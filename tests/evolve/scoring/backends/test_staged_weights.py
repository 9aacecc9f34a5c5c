"""The model directory in shared memory, read back by safetensors and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from warm_program import WarmPython

from evolve.scoring.backends.staged_weights import StagedWeights
from merge_core.execute.live_parameters import live_parameters


@pytest.fixture
def tokenizer_directory(tokenizer: Any, tmp_path: Path) -> Path:
    directory = tmp_path / "tokenizer"
    tokenizer.save_pretrained(directory)
    (directory / "model.safetensors.index.json").write_text("{}")
    (directory / "pytorch_model.bin").write_bytes(b"not copied")
    return directory


LAYOUT = [
    ("odd", torch.bfloat16, (3, 5)),
    ("bytes", torch.uint8, (3,)),
    ("wide", torch.float32, (7,)),
    ("double", torch.float64, (1,)),
    ("scalar", torch.int64, ()),
    ("flags", torch.bool, (5,)),
]


def test_what_is_written_into_a_tensor_is_in_the_file_at_once(tokenizer_directory: Path, tmp_path: Path) -> None:
    staged = StagedWeights({"model_type": "llama"}, tokenizer_directory, LAYOUT, tmp_path)
    file = staged.directory / "model.safetensors"
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in load_file(file).items()} == {
        name: (dtype, shape) for name, dtype, shape in LAYOUT
    }
    assert not any(tensor.any() for tensor in load_file(file).values())
    for round_ in range(2):
        torch.manual_seed(round_)
        written = {name: (torch.randn(shape) * 9).to(dtype) for name, dtype, shape in LAYOUT}
        live = live_parameters(staged)  # as merges ask for them
        for name, tensor in written.items():
            live[name].copy_(tensor)
        found = load_file(file)
        assert all(torch.equal(found[name], tensor) for name, tensor in written.items())
    staged.close()
    assert not staged.directory.exists()


def test_a_copy_follows_its_source_and_is_not_to_be_written(tokenizer_directory: Path, tmp_path: Path) -> None:
    layout = [("embeddings", torch.bfloat16, (4, 3))]
    staged = StagedWeights({}, tokenizer_directory, layout, tmp_path, copies={"head": "embeddings"})
    assert list(staged.state_dict()) == ["embeddings"]
    staged.state_dict()["embeddings"].fill_(2)
    staged.copy()
    assert torch.equal(load_file(staged.directory / "model.safetensors")["head"], torch.full((4, 3), 2.0).bfloat16())
    staged.close()


def test_transformers_reads_the_directory_as_a_model_with_its_tokenizer(
    model: Any, tokenizer: Any, tokenizer_directory: Path
) -> None:
    layout = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    staged = StagedWeights(model.config.to_dict(), tokenizer_directory, layout)
    for name, tensor in staged.state_dict().items():
        tensor.copy_(model.state_dict()[name])
    read = transformers.AutoModelForCausalLM.from_pretrained(staged.directory)
    tokens = torch.tensor([tokenizer.encode("hello")])
    assert torch.equal(read(tokens).logits, model(tokens).logits)
    assert transformers.AutoTokenizer.from_pretrained(staged.directory).encode("hello") == tokenizer.encode("hello")
    assert {file.suffix for file in staged.directory.iterdir()} <= {".json", ".safetensors", ".jinja", ""}
    assert not (staged.directory / "model.safetensors.index.json").exists()
    del read
    staged.close()


def test_the_directory_of_a_killed_process_is_removed_by_the_next_and_no_other(
    tokenizer_directory: Path, tmp_path: Path
) -> None:
    alive = StagedWeights({}, tokenizer_directory, LAYOUT, tmp_path)
    script = (
        "import os, signal, torch\n"
        "from pathlib import Path\n"
        "from evolve.scoring.backends.staged_weights import StagedWeights\n"
        f"staged = StagedWeights({{}}, {str(tokenizer_directory)!r}, [('a', torch.uint8, (4,))], "
        f"Path({str(tmp_path)!r}))\n"
        "print(staged.directory, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = WarmPython(script).ended()
    left = Path(killed.stdout.strip())
    assert left.is_dir(), killed.stderr
    StagedWeights({}, tokenizer_directory, LAYOUT, tmp_path).close()
    assert not left.exists()
    assert alive.directory.is_dir()
    alive.close()


def test_tensors_that_lie_elsewhere_are_in_the_file_only_while_it_is_asked_for(
    tokenizer_directory: Path, tmp_path: Path
) -> None:
    staged = StagedWeights({}, tokenizer_directory, LAYOUT, tmp_path, device=torch.device("cpu"))
    file = staged.directory / "model.safetensors"
    for tensor in staged.state_dict().values():
        tensor.fill_(1)
    for _ in range(2):
        assert not any(tensor.any() for tensor in load_file(file).values())
        with staged.as_files() as directory:
            found = load_file(directory / file.name)
            assert all(torch.equal(found[name], tensor) for name, tensor in staged.state_dict().items())
            del found  # maps the file
    assert file.stat().st_blocks * 512 <= 4096 + 512
    staged.close()
