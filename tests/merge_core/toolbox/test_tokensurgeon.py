"""A transplanted tokenizer: what both have is kept, what is made follows the donor, and the model runs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from word_tokenizers import write_words

from merge_core import MergeError
from merge_core.toolbox.token_approximations import APPROXIMATIONS, Settings
from merge_core.toolbox.tokensurgeon import Transplanted, transplant_tokenizer

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WORDS = "abab cab deaf bad|"
OTHERS = "abab fed cabbage dead beef|"
Ids = Mapping[str, int]


def edit(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path], write_tokenizer: Callable[..., Ids]
) -> tuple[Path, Ids, Ids]:
    """``model``, ``tied`` and ``donor``, whose ids, special tokens and padding differ; token → id of both."""
    root = tmp_path_factory.mktemp("surgeon")
    theirs = write_tokenizer(root / "donor", OTHERS * 3, ("</s>", "<|begin|>"), ("<|im_end|>",))
    write_model(root / "donor", 2, layers=1, vocabulary=len(theirs) + 3)
    edit(root / "donor" / "tokenizer_config.json", bos_token="<|begin|>")
    edit(root / "donor" / "config.json", bos_token_id=theirs["<|begin|>"], eos_token_id=theirs["</s>"])
    for name in ("model", "tied"):
        ours = write_tokenizer(root / name, WORDS * 3)
        write_model(root / name, 1, layers=1, vocabulary=len(ours), tied=name == "tied")
        special = {"bos_token_id": ours["<s>"], "eos_token_id": ours["</s>"]}
        edit(root / name / "config.json", **special, pad_token_id=ours["bad"] if "bad" in ours else ours["b"])
        (root / name / "generation_config.json").write_text(json.dumps({**special, "top_k": 7}))
    return root, ours, theirs


def transplant(model: Path, donor: Path, output: Path, **options: Any) -> Transplanted:
    return transplant_tokenizer(str(model), str(donor), output, **options)


def tensors(path: Path) -> dict[str, Tensor]:
    return load_file(path / "model.safetensors")


@pytest.mark.parametrize("method", APPROXIMATIONS)
@pytest.mark.parametrize("name", ["model", "tied"])
def test_what_both_have_is_the_models_and_the_rest_runs(
    pair: tuple[Path, Ids, Ids], tmp_path: Path, method: str, name: str
):
    root, ours, theirs = pair
    result = transplant(root / name, root / "donor", tmp_path / "out", method=method, pad_to_multiple_of=8)
    before, after = tensors(root / name), tensors(result.path)
    assert before.keys() == after.keys()
    same = {theirs[token]: ours[token] for token in theirs if token in ours} | {theirs["<|begin|>"]: ours["<s>"]}
    for key, tensor in before.items():
        if key in (EMBEDDING, HEAD):
            assert after[key].shape == (result.rows, 16)
            assert torch.equal(after[key][list(same)], tensor[list(same.values())])
            torch.testing.assert_close(after[key][len(theirs) :], after[key][: len(theirs)].mean(0).expand(2, -1))
        else:
            assert torch.equal(after[key], tensor)
    assert (result.taken, result.made, result.rows) == (len(same), len(theirs) - len(same), 32)


def test_the_result_is_loaded_and_speaks_the_donors_tokens(pair: tuple[Path, Ids, Ids], tmp_path: Path):
    root, ours, theirs = pair
    path = transplant(root / "tied", root / "donor", tmp_path / "out").path
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    ids = tokenizer("fed cabbage", return_tensors="pt").input_ids
    assert tokenizer.get_vocab() == dict(theirs)
    assert model.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=0).shape[1] == ids.shape[1] + 2
    config, generation = (json.loads((path / f"{name}.json").read_text()) for name in ("config", "generation_config"))
    for stated in (config, generation):
        assert (stated["bos_token_id"], stated["eos_token_id"]) == (theirs["<|begin|>"], theirs["</s>"])
    # What the donor does not state is the same token, at its new place.
    padding = {number: token for token, number in ours.items()}[
        json.loads((root / "tied/config.json").read_text())["pad_token_id"]
    ]
    assert config["pad_token_id"] == theirs.get(padding)
    assert (config["vocab_size"], generation["top_k"]) == (len(theirs), 7)


def test_the_models_own_tokenizer_changes_nothing(pair: tuple[Path, Ids, Ids], tmp_path: Path):
    root, _, _ = pair
    result = transplant(root / "model", root / "model", tmp_path / "out")
    assert result.made == 0
    assert all(torch.equal(tensor, tensors(root / "model")[name]) for name, tensor in tensors(result.path).items())


@pytest.mark.parametrize("method", ["omp", "landmark_pca", "stb"])
def test_a_donor_whose_space_is_the_models_turned_gives_the_rows_that_it_would_have(
    pair: tuple[Path, Ids, Ids], tmp_path: Path, write_model: Callable[..., Path], method: str
):
    """With as many common tokens as the space has dimensions, what the donor says of a token is all there is to say."""
    root, _, theirs = pair
    donor = tensors(root / "donor")
    generator = torch.Generator().manual_seed(5)
    turn, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator))
    model = tmp_path / "model"
    model.mkdir()
    for file in (root / "donor").glob("*.json"):
        (model / file.name).write_text(file.read_text())
    # Its last six ordinary tokens have no rows in it, so that they are none of its own.
    rows = len(theirs) - 4
    edit(model / "config.json", vocab_size=rows)
    save_file({**donor, **{name: donor[name][:rows] @ turn for name in (EMBEDDING, HEAD)}}, model / "model.safetensors")
    path = transplant(model, root / "donor", tmp_path / "out", method=method).path
    for name in (EMBEDDING, HEAD):
        expected = (donor[name] @ turn)[: len(theirs)]
        torch.testing.assert_close(tensors(path)[name], expected, rtol=2e-3, atol=2e-3)


def test_subwords_are_what_the_model_reads_in_a_token_and_spaces_are_spaces(
    pair: tuple[Path, Ids, Ids], tmp_path: Path, write_model: Callable[..., Path], write_tokenizer: Callable[..., Ids]
):
    """A sentencepiece donor's ▁ is the byte-level model's Ġ, and <0x61> the byte of a."""
    root, ours, _ = pair
    donor = tmp_path / "donor"
    theirs = write_tokenizer(donor, "a cab cabcab|" * 3, ("<s>", "<0x61>"), style="sentencepiece")
    write_model(donor, 3, layers=1, vocabulary=len(theirs))
    before = tensors(root / "model")
    after = tensors(transplant(root / "model", donor, tmp_path / "out", method="subword").path)
    assert torch.equal(after[EMBEDDING][theirs["▁cab"]], before[EMBEDDING][ours["Ġcab"]])
    pieces = AutoTokenizer.from_pretrained(root / "model").encode(" cabcab", add_special_tokens=False)
    torch.testing.assert_close(after[HEAD][theirs["▁cabcab"]], before[HEAD][pieces].mean(0))
    ends = transplant(
        root / "model",
        donor,
        tmp_path / "ends",
        method="subword",
        settings=Settings(subword="first_last"),
        byte_match="embed",
    )
    after = tensors(ends.path)
    assert torch.equal(after[EMBEDDING][theirs["▁cabcab"]], before[EMBEDDING][pieces[-1]])
    assert torch.equal(after[HEAD][theirs["▁cabcab"]], before[HEAD][pieces[0]])
    assert torch.equal(after[EMBEDDING][theirs["<0x61>"]], before[EMBEDDING][ours["a"]])


def test_a_prefix_match_is_where_it_is_asked_for(pair: tuple[Path, Ids, Ids], tmp_path: Path):
    root, ours, theirs = pair
    token = next(token for token in theirs if token not in ours and token[:-1] in ours and token[0] != "Ġ")
    result = transplant(root / "model", root / "donor", tmp_path / "out", method="zero", prefix_match="lm_head")
    before, after = tensors(root / "model"), tensors(result.path)
    assert torch.equal(after[HEAD][theirs[token]], before[HEAD][ours[token[:-1]]])
    assert not after[EMBEDDING][theirs[token]].any()


def test_noise_and_scale_change_rows_that_are_made_and_no_others(pair: tuple[Path, Ids, Ids], tmp_path: Path):
    root, ours, theirs = pair
    made = [theirs[token] for token in theirs if token not in ours and token != "<|begin|>"]
    plain, scaled, noisy, again = (
        tensors(transplant(root / "model", root / "donor", tmp_path / str(n), settings=settings).path)[EMBEDDING]
        for n, settings in enumerate((Settings(4), Settings(4, scale=0.5), *(2 * [Settings(4, noise=0.1)])))
    )
    torch.testing.assert_close(scaled[made], plain[made] / 2)
    assert torch.equal(noisy, again)
    assert float((noisy - plain)[made].std()) == pytest.approx(0.1, rel=0.3)
    changed = {index for index, row in enumerate(noisy - plain) if row.any()}
    assert changed == set(made)


def test_hardly_trained_rows_are_made_anew(
    pair: tuple[Path, Ids, Ids], tmp_path: Path, write_model: Callable[..., Path]
):
    write_words(tmp_path / "model", 100)
    write_model(tmp_path / "model", 1, layers=1, vocabulary=100)
    content = tensors(tmp_path / "model")
    content[EMBEDDING][[40, 41]] = 1e-4
    save_file(content, tmp_path / "model" / "model.safetensors")
    result = transplant(tmp_path / "model", tmp_path / "model", tmp_path / "out", magikarp=True, settings=Settings(8))
    after = tensors(result.path)[EMBEDDING]
    changed = {index for index, row in enumerate(after - content[EMBEDDING]) if row.any()}
    assert changed == {40, 41}
    assert result.made == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ompp"}, 'Did you mean "omp"'),
        ({"method": "mp_rope"}, "Use omp"),
        ({"settings": Settings(noise=float("inf"))}, "no finite rows"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    pair: tuple[Path, Ids, Ids], tmp_path: Path, options: dict[str, Any], message: str
):
    root, _, _ = pair
    with pytest.raises(MergeError, match=message):
        transplant(root / "model", root / "donor", tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_tokenizers_without_a_common_token_are_refused(
    pair: tuple[Path, Ids, Ids], tmp_path: Path, write_model: Callable[..., Path], write_tokenizer: Callable[..., Ids]
):
    root, _, _ = pair
    theirs = write_tokenizer(tmp_path / "donor", "xyz|", ("<x>", "<y>"))
    write_model(tmp_path / "donor", 3, layers=1, vocabulary=len(theirs))
    (tmp_path / "donor" / "tokenizer_config.json").unlink()
    with pytest.raises(MergeError, match="no token in common"):
        transplant(root / "model", tmp_path / "donor", tmp_path / "out")


PEER = """
import json, sys
from mergekit.scripts.tokensurgeon import main
for name, options in json.load(sys.stdin).items():
    main.main([*sys.argv[1:], "mergekit/" + name, "--quiet", *options], standalone_mode=False)
"""
COMPARED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "omp": (["-k", "4"], {"settings": Settings(4)}),
    "omp with prefixes": (["-k", "4", "-pm", "yes"], {"settings": Settings(4), "prefix_match": "yes"}),
    **{
        f"{scheme} {cosine}": (
            ["-a", "common_interpolation", "-k", "4", "-w", scheme, *(["-c"] if cosine else [])],
            {"method": "common_interpolation", "settings": Settings(4, cosine, scheme)},
        )
        for scheme in ("distance_proportional", "barycentric", "least_squares")
        for cosine in (False, True)
    },
    **{
        way: (["-a", "subword", "-s", way], {"method": "subword", "settings": Settings(subword=way)})
        for way in ("mean", "sum", "weighted_mean", "first_last")
    },
    "zero": (["-a", "zero"], {"method": "zero"}),
    "means": (["-a", "mean"], {"method": "mean"}),
    "scaled": (["-k", "4", "-nvs", "0.5"], {"settings": Settings(4, scale=0.5)}),
}


def test_rows_are_those_of_mergekit(pair: tuple[Path, Ids, Ids], tmp_path: Path):
    python = os.environ.get("MERGEKIT_PYTHON")
    if not python:
        pytest.skip("set MERGEKIT_PYTHON to the python of an installed mergekit to compare with it")
    root, _, theirs = pair
    subprocess.run(
        [python, "-c", PEER, str(root / "model"), str(root / "donor")],
        input=json.dumps({name: options for name, (options, _) in COMPARED.items()}),
        text=True,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    for name, (_, options) in COMPARED.items():
        here = tensors(transplant(root / "model", root / "donor", tmp_path / name, **options).path)
        there = tensors(tmp_path / "mergekit" / name)
        for table in (EMBEDDING, HEAD):
            # But for tokens with letters that the model's tokenizer does not know, and leaves out.
            rows = [number for token, number in theirs.items() if not set("g<") & set(token)]
            torch.testing.assert_close(here[table][rows], there[table][rows], rtol=1e-4, atol=2e-5, msg=name)
