"""From a sound file to one that is not: values of other kinds, parts lost and doubled, bytes changed."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 2**31, 2**63, -(2**63), 10**18, 10**400, 0.5, -0.0, 1e308, 1e-320),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "0", "-1", "1e999", "nan", "a", "../x", "/etc/passwd", "~x"),
    *(
        "a\x00b",
        "\x1b[31m",
        "\u202e",
        "\U0001f600",
        "x" * 3000,
        "a@b@c",
        "a+b+c",
        "(",
        "(a+)+$",
        "{{ 10**9 }}",
        "{% if %}",
    ),
    *(
        [],
        {},
        [[]],
        [{}],
        {"": None},
        [None] * 20,
        {"a": {"b": {"c": {}}}},
        ["a", 1, None],
        [0, 1e400],
        {"low": 0, "high": 1},
    ),
    *({"choices": []}, {"filter": "a", "value": 1}, {"model": {"path": 3}}, {"kind": "zero"}, {"python": "a:b"}),
)


_SIGNS = (b"\0", b"[", b"{", b'"', b"\n", b": ", b"- ", b"&a ", b"*a", b"!!", b"\xff")
_RUNS = (b"9" * 400, b"[" * 200, b"- " * 90, b"1e999", b"\\ud800", b"<<: ", b"Infinity")


def mutated(document: Any, choose: random.Random) -> Any:
    """A copy of data in which some parts are replaced, lost, doubled or put elsewhere."""
    root = [copy.deepcopy(document)]
    for _ in range(choose.choice((1, 1, 1, 2, 3, 6))):
        holder, key = choose.choice(list(places(root)))
        match choose.randrange(6):
            case 0 | 1 | 2:
                holder[key] = copy.deepcopy(choose.choice(HOSTILE))
            case 3:
                if holder is not root:
                    del holder[key]
            case 4:
                other_holder, other_key = choose.choice(list(places(root)))
                holder[key] = copy.deepcopy(other_holder[other_key])
            case _:
                new = choose.choice(HOSTILE)
                if isinstance(holder, dict):
                    holder[new if isinstance(new, str) else str(new)] = copy.deepcopy(holder[key])
                elif holder is not root:
                    holder.insert(key, copy.deepcopy(holder[key]))
    return root[0]


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every place below a node: what holds it, and its key there."""
    found: list[tuple[Any, Any]] = []
    keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        found.append((node, key))
        found += places(node[key])
    return found


def damaged(content: bytes, choose: random.Random) -> bytes:
    """Bytes of which some are changed, lost, doubled or new."""
    data = bytearray(content)
    for _ in range(choose.choice((1, 1, 2, 4, 16))):
        position = choose.randrange(len(data) + 1)
        length = choose.choice((1, 1, 2, 8, 64))
        match choose.randrange(5):
            case 0:
                data[position : position + 1] = bytes([choose.randrange(256)])
            case 1:
                del data[position : position + length]
            case 2:
                data[position:position] = data[position : position + length] * choose.choice((1, 2, 50))
            case 3:
                data[position:position] = choose.choice(
                    (b"\0", b"[", b"{", b'"', b"\n", b": ", b"- ", b"&a ", b"*a", b"!!", b"\xff")
                )
            case _:
                data[position:position] = choose.choice(
                    (b"9" * 400, b"[" * 200, b"- " * 90, b"1e999", b"\\ud800", b"<<: ", b"Infinity")
                )
    return bytes(data)


def as_json(document: Any) -> bytes:
    """JSON, in which Python's numbers without end are written as others do."""
    return json.dumps(document, default=str).encode()
