"""What is written quantized is the nearest that its form can say, and what was read of it is written as it was."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merge_core.checkpoint.quantized.forms import BlockFloat8, Mxfp4Stack, QuantizedForm

ORACLES = load_file(Path(__file__).with_name("oracles.safetensors"))
NAME = "model.layers.0.mlp.experts.gate_up_proj"


@pytest.mark.parametrize(
    ("form", "shape"),
    [(BlockFloat8((8, 16)), (20, 40)), (BlockFloat8((8, 16)), (2, 8, 32)), (Mxfp4Stack(), (2, 64, 6))],
)
def test_what_is_stored_has_the_layout_that_was_said(form: QuantizedForm, shape: tuple[int, ...]):
    stored = form.store(NAME, torch.randn(shape))
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in stored.items()} == form.layout(NAME, shape)
    values = form.values(stored)
    assert (values.dtype, tuple(values.shape)) == (torch.float32, shape)
    again = form.store(NAME, values)
    torch.testing.assert_close(form.values(again), values, rtol=3e-7, atol=0)


def test_every_entry_of_a_block_is_within_half_a_step_of_float8():
    weight = torch.randn(16, 64) * torch.logspace(-4, 2, 64)
    form = BlockFloat8((8, 8))
    stored = form.store("w", weight)
    scales = stored["w_scale_inv"].repeat_interleave(8, 0).repeat_interleave(8, 1)
    steps = torch.exp2(torch.floor(torch.log2((weight / scales).abs())).clamp(min=-6) - 3)
    assert ((form.values(stored) - weight).abs() <= steps * scales * 0.5001).all()
    # 448 = 1.75 2^8, the largest of E4M3, is what the largest of each block becomes.
    largest = stored["w"].float().view(2, 8, 8, 8).abs().amax((1, 3))
    assert (largest == 448).all()


def test_a_block_of_zeros_stays_one():
    for form, shape in ((BlockFloat8((4, 4)), (8, 8)), (Mxfp4Stack(), (1, 32, 2))):
        assert not form.values(form.store(NAME, torch.zeros(shape))).any()


def test_four_bits_are_rounded_to_the_nearest_level_and_ties_to_the_even_code():
    levels = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    values = torch.cat([torch.linspace(-6, 6, 479), torch.tensor([6.0])])  # every tie is among them
    groups = torch.nn.functional.pad(values.view(-1, 30), (0, 2), value=6.0)  # of one scale, 1
    made = Mxfp4Stack().values(Mxfp4Stack().store("w", groups.T[None]))[0].T[:, :30].flatten()
    for value, found in zip(values.tolist(), made.tolist(), strict=True):
        distances = [abs(abs(value) - level) for level in levels]
        nearest = [index for index, distance in enumerate(distances) if distance < min(distances) + 1e-6]
        chosen = nearest[0] if len(nearest) == 1 else next(index for index in nearest if index % 2 == 0)
        assert abs(found) == levels[chosen]
        assert found * value >= 0


def test_mxfp4_that_was_read_is_written_with_the_same_values():
    blocks, scales = (ORACLES[f"mxfp4/stored/{NAME}_{part}"] for part in ("blocks", "scales"))
    form = Mxfp4Stack()
    values = form.values({"blocks": blocks, "scales": scales})
    assert torch.equal(form.values(form.store(NAME, values)), values)


def test_float8_that_transformers_wrote_is_written_with_the_same_codes():
    start = "fp8 of transformers/stored/"
    parts = {name.removeprefix(start): tensor for name, tensor in ORACLES.items() if name.startswith(start)}
    name = next(name for name in parts if name.endswith(".weight"))
    form = BlockFloat8((16, 16))
    again = form.store(name, form.values({key: parts[key] for key in (name, f"{name}_scale_inv")}))
    assert torch.equal(again[name].float(), parts[name].float())
    torch.testing.assert_close(again[f"{name}_scale_inv"], parts[f"{name}_scale_inv"], rtol=3e-7, atol=0)


def test_all_codes_of_four_bits_are_written_as_they_are():
    """Every pair of codes, in groups whose largest is 6, so that the scale is theirs."""
    pairs = torch.tensor([low | high << 4 for low, high in itertools.product(range(16), repeat=2)], dtype=torch.uint8)
    groups = torch.cat([pairs.view(-1, 8), torch.full((32, 8), 0x77, dtype=torch.uint8)], dim=1)
    stored = {"b": groups.view(1, 32, 1, 16), "s": torch.full((1, 32, 1), 120, dtype=torch.uint8)}
    again = Mxfp4Stack().store("w", Mxfp4Stack().values(stored))
    # The sign of a zero is not kept.
    plain = torch.where((groups & 0x0F) == 8, groups & 0xF0, groups)
    plain = torch.where((plain & 0xF0) == 0x80, plain & 0x0F, plain)
    assert torch.equal(again["w_blocks"].view(32, 16), plain)
    assert torch.equal(again["w_scales"], stored["s"])
