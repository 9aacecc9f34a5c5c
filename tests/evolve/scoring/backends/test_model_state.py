"""Whatever is done to a live model is noticed, and a forward alone is not."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.backends.model_state import ModelState

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool]


class Parts(nn.Module):
    """Tensors of every form."""

    def __init__(self, tensors):
        super().__init__()
        for number, tensor in enumerate(tensors):
            self.register_buffer(f"part{number}", tensor)


def made(shape, dtype, layout):
    generator = torch.Generator().manual_seed(len(shape))
    tensor = (torch.randn(shape, generator=generator) * 10).to(dtype)
    return {"plain": tensor, "transposed": tensor.t() if tensor.ndim == 2 else tensor, "odd": tensor}[layout]


@settings(max_examples=80, deadline=None)
@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple) | st.just((40, 300)) | st.just((5000,)),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(["plain", "transposed"]),
    data=st.data(),
)
def test_a_change_of_any_one_bit_is_noticed(shape, dtype, layout, data):
    model = Parts([made(shape, dtype, layout)])
    state = ModelState(model)
    assert state.changes() == []
    place = data.draw(st.integers(0, model.part0.numel() - 1))
    part = model.part0 if model.part0.is_contiguous() else model.part0.t()
    content = part.data.view(-1).view(torch.uint8).numpy()
    bit = 0 if dtype is torch.bool else data.draw(st.integers(0, 7))
    content[place * dtype.itemsize + data.draw(st.integers(0, dtype.itemsize - 1))] ^= 1 << bit
    assert state.changes() == ["tensors part0"]
    state.tensors_written()
    assert state.changes() == []


MOVES = [lambda x: x.flip(0), lambda x: x.flip(1), lambda x: x.roll(1, 1), lambda x: x.roll(1, 0)]


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(2, 8), columns=st.sampled_from([3, 512, 1024, 1536]), data=st.data())
def test_numbers_that_change_places_are_noticed(rows, columns, data):
    model = Parts([torch.randn(rows, columns)])
    state = ModelState(model)
    how = data.draw(
        st.sampled_from([lambda x: x.flip(0), lambda x: x.flip(1), lambda x: x.roll(1, 1), lambda x: x.roll(1, 0)])
    )
    model.part0.copy_(how(model.part0))
    assert state.changes() == ["tensors part0"]


def scale(model):
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)


def through_data(model):
    model.model.norm.weight.data[3] += 1


def through_numpy(model):
    model.model.norm.weight.detach().numpy()[0] = 3


def new_parameter(model):
    model.model.norm.weight = nn.Parameter(model.model.norm.weight.detach().clone())


def other_memory(model):
    model.model.norm.weight.data = model.model.norm.weight.detach().clone()


def a_buffer(model):
    model.model.rotary_emb.inv_freq.mul_(0.5)


def a_gradient(model):
    model.lm_head.weight.grad = torch.zeros_like(model.lm_head.weight)


def a_hook(model):
    model.model.layers[0].register_forward_hook(lambda *_: None)


def another_forward(model):
    model.model.layers[0].mlp.forward = lambda hidden: hidden


def fewer_layers(model):
    model.model.layers = model.model.layers[:1]


def another_layer(model):
    model.model.layers[0] = copy.deepcopy(model.model.layers[0])


def a_number(model):
    model.model.norm.variance_epsilon = 0.5


CHANGES = [
    *(scale, through_data, through_numpy, new_parameter, other_memory, a_buffer, a_gradient),
    *(a_hook, another_forward, fewer_layers, another_layer, a_number),
    lambda model: model.train(),
    lambda model: model.model.layers[0].train(),
    lambda model: model.half(),
    lambda model: model.resize_token_embeddings(len(model.get_input_embeddings().weight) + 8),
    lambda model: setattr(model.config, "use_cache", not model.config.use_cache),
    lambda model: setattr(model.generation_config, "max_length", 3),
    lambda model: model.apply(lambda module: nn.init.ones_(module.weight) if isinstance(module, nn.Linear) else None),
    lambda model: setattr(type(model.model.norm), "forward", lambda self, hidden: hidden),
]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_done_to_a_model_is_noticed(change, make_model, tokenizer):
    model = make_model(seed=3)
    state = ModelState(model, tokenizer)
    assert state.changes() == []
    change(model)
    assert state.changes() != []
    state.restore_code()


def test_a_tokenizer_that_is_changed_is_noticed(make_model, tokenizer):
    own = copy.deepcopy(tokenizer)
    state = ModelState(make_model(seed=3), own)
    own.add_tokens(["another one"])
    assert state.changes() == ["settings tokenizer.vocabulary"]


def test_asking_a_model_changes_nothing(make_model, tokenizer):
    backend = HFBackend(make_model(seed=3), tokenizer, "cpu")
    state = ModelState(backend.model, tokenizer)
    from evolve.scoring.scorers.text_model import TextModel

    model = TextModel(backend)
    model.generate(["one and ", "two"], max_new_tokens=4)
    model.generate(["one and "], max_new_tokens=4, do_sample=True, temperature=0.5)
    model.loglikelihood([("one", " two")])
    model.text_loglikelihood(["one two three"])
    assert state.changes() == []
