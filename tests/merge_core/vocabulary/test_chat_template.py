"""Chat templates: built-in ones, the recipe's own, and the most common of the models'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from merge_core import MergeError
from merge_core.vocabulary.chat_template import BUILT_IN, choose_chat_template, read_chat_template

TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]
EXPECTED = {
    "alpaca": "<s>### Instruction:\nHi\n\n### Response:\nHello</s>\n\n### Instruction:\nBye\n\n### Response:\n",
    "chatml": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
    "exaone": "[|system|][|endofturn|]\n[|user|]Hi\n[|assistant|]Hello[|endofturn|]\n[|user|]Bye\n[|assistant|]",
    "llama3": "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s> [INST] Hi [/INST] Hello</s> [INST] Bye [/INST]",
}
SYSTEM = {
    "alpaca": "<s>Be kind\n\n### Instruction:\nHi\n\n",
    "chatml": "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n",
    "exaone": "[|system|]Be kind[|endofturn|]\n[|user|]Hi\n",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "mistral": "<s> [INST] Be kind\n\nHi [/INST]",
}
"""With a system message, up to the first question."""


def render(name: str, messages: list[dict[str, str]], **options: object) -> str:
    """As `transformers` renders it."""
    ((text,), _) = render_jinja_template([messages], chat_template=BUILT_IN[name], **options)
    return str(text)


def directories(root: Path, *templates: str | None) -> list[Path]:
    """Model directories that store their template in different ways."""
    found = []
    for index, template in enumerate(templates):
        directory = root / str(index)
        directory.mkdir()
        if template is not None and index % 3 == 0:
            (directory / "chat_template.jinja").write_text(template)
        elif template is not None:
            value = template if index % 3 == 1 else [{"name": "default", "template": template}]
            (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
        found.append(directory)
    return found


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_template_writes_the_format_of_its_models(name: str):
    """By what their own tokenizer_config.json renders; for alpaca, by the format of its training."""
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    assert render(name, TALK, add_generation_prompt=True, **tokens) == EXPECTED[name]
    assert render(name, [{"role": "system", "content": "Be kind"}, TALK[0]], **tokens) == SYSTEM[name]
    assert choose_chat_template(name, [], "recipe.yml") == (BUILT_IN[name], ())


def test_alpaca_works_without_special_tokens():
    assert render("alpaca", TALK[:2]) == "### Instruction:\nHi\n\n### Response:\nHello\n\n"


@pytest.mark.parametrize("roles", [("assistant",), ("user", "user"), ("system", "assistant"), ("user", "tool")])
def test_mistral_refuses_what_its_models_have_never_seen(roles: tuple[str, ...]):
    with pytest.raises(TemplateError, match="take turns"):
        render("mistral", [{"role": role, "content": "x"} for role in roles], bos_token="<s>", eos_token="</s>")


def test_auto_counts_templates_that_differ_in_space_around_them_as_one(tmp_path: Path):
    found, _ = choose_chat_template("auto", directories(tmp_path, "{{ 1 }}", "{{ 2 }}", "{{ 2 }}\n"), "r.yml")
    assert found == "{{ 2 }}"


def test_auto_takes_the_most_common_template(tmp_path: Path):
    found, warnings = choose_chat_template(
        "auto", directories(tmp_path, "{{ 1 }}", None, "{{ 2 }}", "{{ 2 }}"), "r.yml"
    )
    assert (found, warnings) == ("{{ 2 }}", ())


def test_among_equally_common_templates_auto_takes_the_first_models(tmp_path: Path):
    assert choose_chat_template("auto", directories(tmp_path, None, "{{ 1 }}", "{{ 2 }}"), "r.yml")[0] == "{{ 1 }}"


def test_auto_without_any_template_warns(tmp_path: Path):
    found, warnings = choose_chat_template("auto", directories(tmp_path, None, None), "r.yml")
    assert found is None
    assert "none of the models has a chat template" in warnings[0]


def test_a_directory_without_template_has_none(tmp_path: Path):
    assert read_chat_template(tmp_path) is None


def test_a_recipes_own_template_is_taken_as_it_is():
    text = "{% for message in messages %}{% generation %}{{ message.content }}{% endgeneration %}{% endfor %}"
    assert choose_chat_template(text, [], "r.yml") == (text, ())


def test_a_template_is_parsed_and_not_run():
    text = "{{ ''.__class__.__mro__ }}{{ 1 / 0 }}"
    assert choose_chat_template(text, [], "r.yml")[0] == text


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("chatlm", r'r\.yml: chat_template: "chatlm" is neither .* Did you mean "chatml"\?'),
        ("{% for message in messages %}", r"r\.yml: chat_template: line 1: .*endfor"),
    ],
)
def test_a_wrong_template_is_refused(setting: str, expected: str):
    with pytest.raises(MergeError, match=expected):
        choose_chat_template(setting, [], "r.yml")
