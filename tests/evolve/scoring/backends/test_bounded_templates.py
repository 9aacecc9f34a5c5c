"""Templates come with models: whatever they do, rendering ends; and sound ones say what transformers makes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from evolve.scoring.backends import template_process
from evolve.scoring.backends.bounded_templates import BoundedTemplates, TemplateOwnError
from evolve.scoring.errors import TaskError

MESSAGES = [{"role": "user", "content": "Wie geht's? 😀 \ud800"}, {"role": "assistant", "content": "gut"}]


@pytest.fixture(scope="module")
def templates() -> Iterator[BoundedTemplates]:
    made = BoundedTemplates(render_seconds=1.0)
    yield made
    made.close()


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}[{{ m.role }}] {{ m['content'] | trim }}\n{% endfor %}{{ bos_token }}",
        "{% for m in messages %}{% if loop.first %}{{ m | tojson }}{% break %}{% endif %}{% endfor %}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{%- set ns = namespace(x=0) %}{% for m in messages %}{% set ns.x = ns.x + 1 %}{% endfor %}{{ ns.x }}",
    ],
)
def test_a_conversation_is_what_transformers_renders(templates: BoundedTemplates, template: str) -> None:
    arguments: dict[str, Any] = {"chat_template": template, "add_generation_prompt": False, "bos_token": "<s>"}
    (expected,), _ = render_jinja_template(conversations=[MESSAGES], **arguments)
    assert templates.conversation(MESSAGES, arguments) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**10 }}",  # folded when it is compiled
        "{{ 'a'.center(1500000000) }}",
        "{% for i in range(99999) %}{{ messages[0].content * 9999 }}{% endfor %}",
        "{% set x = namespace(l='aa') %}{% for i in range(60) %}{% set x.l = x.l ~ x.l %}{% endfor %}{{ x.l }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ nothing.there }}",
        "{{ 1 / 0 }}",
        "{% if %}",
        "{{ raise_exception('no') }}",
        "(" * 3 + "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    ],
)
def test_a_hostile_template_is_an_error_and_the_next_one_is_rendered(
    templates: BoundedTemplates, template: str
) -> None:
    with pytest.raises(TaskError):
        templates.conversation(MESSAGES, {"chat_template": template})
    assert templates.text("{{ a }}!", {"a": 3}) == "3!"


def test_what_a_template_raises_is_told_from_what_it_needs(templates: BoundedTemplates) -> None:
    with pytest.raises(TemplateOwnError, match="System role not supported"):
        templates.conversation(MESSAGES, {"chat_template": "{{ raise_exception('System role not supported') }}"})
    with pytest.raises(TaskError, match="memory") as caught:
        templates.conversation(MESSAGES, {"chat_template": "{{ 'a' * 10**10 }}"})
    assert not isinstance(caught.value, TemplateOwnError)
    for endless in (
        "{{ 10 ** (10 ** 8) }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    ):
        with pytest.raises(TaskError, match="does not end within 1 seconds"):
            templates.text(endless, {})


def test_tools_may_be_functions_as_with_transformers(templates: BoundedTemplates) -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: one.
            b: the other.
        """
        return a + b

    arguments: dict[str, Any] = {"chat_template": "{{ tools | tojson }}", "tools": [add]}
    (expected,), _ = render_jinja_template(conversations=[MESSAGES], **arguments)
    assert templates.conversation(MESSAGES, arguments) == expected


def test_one_that_was_interrupted_leaves_no_answer_to_the_next(templates: BoundedTemplates) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    slow = "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}its own"
    before = signal.signal(signal.SIGALRM, interrupt)  # as the time limit of a scorer
    try:
        templates.text("started", {})
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Interrupted):
            templates.text(slow, {})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert templates.text("the next", {}) == "the next"


def test_a_terminal_does_not_interrupt_rendering(templates: BoundedTemplates) -> None:
    templates.text("started", {})
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    renderers = [child for child in alive if "template_process" in " ".join(child.cmdline())]
    assert renderers
    assert all(os.getpgid(child.pid) != os.getpgrp() for child in renderers)


def test_a_process_whose_parent_was_killed_ends_with_the_text_that_it_is_at() -> None:
    request = json.dumps({"template": "{{ 10 ** (10 ** 8) }}", "fields": {}})
    command = [sys.executable, "-P", template_process.__file__, "0.1"]
    ended = subprocess.run(command, input=request + "\n", stdout=subprocess.DEVNULL, text=True, timeout=120)
    assert ended.returncode == -signal.SIGXCPU
