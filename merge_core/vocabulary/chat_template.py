"""The chat template of a merged model: a built-in one, the recipe's own, or the most common of the models'."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from merge_core.bounds import CONFIG_BYTES, TEMPLATE_CHARACTERS
from merge_core.errors import MergeError, Problem, did_you_mean
from merge_core.input_files import read_file, reading
from merge_core.json_files import read_json

# What each renders is what the models it is named for were trained on, by their own tokenizer_config.json: those of
# Llama 3 Instruct, EXAONE 3, and Mistral Instruct v0.2, whose "[INST]" follows a space. Alpaca has no template but a
# format: sections between blank lines, the token that its tokenizer begins with, an end after answers.
_ALPACA = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message['role'] == 'system' %}
{{- message['content'] | trim + '\\n\\n' }}
{%- elif message['role'] == 'user' %}
{{- '### Instruction:\\n' + message['content'] | trim + '\\n\\n' }}
{%- elif message['role'] == 'assistant' %}
{{- '### Response:\\n' + message['content'] | trim }}
{{- eos_token }}
{{- '\\n\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '### Response:\\n' }}
{%- endif %}
"""

_CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

_EXAONE = """\
{%- for message in messages %}
{%- if loop.first and message['role'] != 'system' %}
{{- '[|system|][|endofturn|]\\n' }}
{%- endif %}
{{- '[|' + message['role'] + '|]' + message['content'] }}
{{- '\\n' if message['role'] == 'user' else '[|endofturn|]\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '[|assistant|]' }}
{%- endif %}
"""

_LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

_MISTRAL = """\
{{- bos_token }}
{%- set turns = messages[1:] if messages[0]['role'] == 'system' else messages %}
{%- for message in turns %}
{%- if message['role'] != ('user' if loop.index0 is even else 'assistant') %}
{{- raise_exception('after a system message, if any, user and assistant must take turns') }}
{%- elif message['role'] == 'user' %}
{{- ' [INST] ' + (messages[0]['content'] + '\\n\\n' if loop.first and turns != messages else '') }}
{{- message['content'] + ' [/INST]' }}
{%- else %}
{{- ' ' + message['content'] + eos_token }}
{%- endif %}
{%- endfor %}
"""

BUILT_IN = {"alpaca": _ALPACA, "chatml": _CHATML, "exaone": _EXAONE, "llama3": _LLAMA3, "mistral": _MISTRAL}
"""Templates that a recipe can name."""


def choose_chat_template(setting: str, directories: Sequence[Path], where: str) -> tuple[str | None, tuple[str, ...]]:
    """Find the template that a recipe asks for.

    Args:
        setting: ``auto``, the name of a built-in template, or a template.
        directories: of the merged models, the base first.
        where: the recipe's name, for messages.

    Returns:
        The template, None when ``auto`` finds none; and warnings.

    Raises:
        MergeError: neither a known name nor a valid template.
    """
    if setting == "auto":
        templates = [read_chat_template(directory) for directory in directories]
        found = [template.strip() for template in templates if template is not None]
        if not found:
            return None, ("chat_template: auto: none of the models has a chat template, and so the result has none",)
        # The count decides; among equals the first model's, so that the choice does not hang on a hash.
        return Counter(found).most_common(1)[0][0], ()
    if setting in BUILT_IN:
        return BUILT_IN[setting], ()
    if "{{" not in setting and "{%" not in setting:
        known = did_you_mean(setting, ["auto", *BUILT_IN])
        message = f'"{setting}" is neither a name nor a Jinja2 template.{known}'
        raise MergeError(Problem(("chat_template",), message, where))
    check_template(setting, where)
    return setting, ()


def check_template(template: str, where: str) -> None:
    """Parse a template. Nothing of it is run or computed, which compiling it would do with its constants.

    Raises:
        MergeError: a syntax error, with its line; a filter or test that Jinja2 does not have; or no end.
    """
    from jinja2 import TemplateSyntaxError, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def problem(line: int, message: str) -> MergeError:
        return MergeError(Problem(("chat_template",), f"line {line}: {message}. Correct the Jinja2 template", where))

    if len(template) > TEMPLATE_CHARACTERS:
        raise problem(1, f"{len(template)} characters, at most {TEMPLATE_CHARACTERS} are taken")
    # transformers' own tag, which marks the assistant's words for training.
    plain = re.sub(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}", "", template)
    try:
        parsed = environment.parse(plain)
        for node in parsed.find_all((nodes.Filter, nodes.Test)):
            kind, known = (
                ("filter", environment.filters) if isinstance(node, nodes.Filter) else ("test", environment.tests)
            )
            if node.name not in known:
                raise problem(node.lineno, f"no {kind} named {node.name!r}")
    except TemplateSyntaxError as error:
        raise problem(error.lineno, str(error.message)) from error
    except RecursionError as error:
        raise problem(1, "nested too deeply") from error


def read_chat_template(directory: Path) -> str | None:
    """The default chat template of a model directory, None when it has none.

    Raises:
        MergeError: a file that cannot be read.
    """
    file = directory / "chat_template.jinja"
    if file.exists():
        with reading(file):
            return read_file(file, CONFIG_BYTES).decode("utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (directory / name).exists():
            template = read_json(directory / name).get("chat_template")
            if isinstance(template, list):
                named = [entry for entry in template if isinstance(entry, dict) and entry.get("name") == "default"]
                template = named[-1].get("template") if named else None
            if isinstance(template, str):
                return template
    return None
