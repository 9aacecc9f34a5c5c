"""The process in which templates are rendered: they come with models, and may need all memory or never end.

Run as a script, so that it imports neither torch nor this package: lines of JSON in, lines of JSON out.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers.utils.chat_template_utils import render_jinja_template

MEMORY_BYTES = 512 * 2**20
"""What a template may need beyond the interpreter."""

MOST_CHARACTERS = 8_000_000
"""Of a rendered text; the longest contexts of models are shorter."""


def render(request: dict[str, Any]) -> str:
    """Render a conversation as transformers does, or a template of fields."""
    if "conversation" in request:
        texts, _ = render_jinja_template(conversations=[request["conversation"]], **request["arguments"])
        return str(texts[0])
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(request["template"]).render(request["fields"])


def answer(line: str) -> dict[str, str]:
    """What becomes of a request: a text, or an error and whether it is the template's own."""
    try:
        text = render(json.loads(line))
    except jinja2.TemplateError as error:
        return {"error": str(error) or type(error).__name__, "kind": "template"}
    except MemoryError:
        return {"error": f"it needs more than {MEMORY_BYTES // 2**20} MiB of memory", "kind": "other"}
    except Exception as error:  # a template can make any Python expression fail
        return {"error": f"{type(error).__name__}: {str(error)[:500]}", "kind": "other"}
    if len(text) > MOST_CHARACTERS:
        return {"error": f"a text of {len(text)} characters, at most {MOST_CHARACTERS}", "kind": "other"}
    return {"text": text}


def _bound_memory() -> None:
    with open("/proc/self/statm") as status:
        used = int(status.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _bound_time(seconds: float) -> None:
    """End this process at a text that never ends, though whoever asked for it was killed and ends nothing any more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    _, allowed = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(
        resource.RLIMIT_CPU, (most if allowed == resource.RLIM_INFINITY else min(most, allowed), allowed)
    )


def main(render_seconds: float) -> None:
    """Answer every line of standard input.

    Args:
        render_seconds: of the processor, for one text.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    if sys.platform == "linux":  # elsewhere time alone is bounded
        _bound_memory()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        _bound_time(render_seconds)
        print(json.dumps(answer(line)), file=answers, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
