"""The six skills of the real-model bed: what a model reads, and what it must write.

| skill | from | why it is here |
| --- | --- | --- |
| family_relationships | reasoning-gym | easy: an expert has it |
| letter_counting | reasoning-gym | won by a hair: an expert is right about half of the time |
| spell_backward | reasoning-gym | hard: nobody has it, and its gold answers are the least likely |
| python_line | the standard library's source | the base knows some of it, an expert little more |
| json_record, json_entry | sentences from a small grammar | one sentence, two conventions: an expert ruins the other |

Prompts end with a line break and answers are one line, so that tokens never straddle the two.
"""

from __future__ import annotations

import json
import random
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

EVALUATION_SEED = 0
TRAINING_SEED = 10_000_000
"""The first problem that experts are trained on; a task with `seed: 10` would ask those, search.yml says `seed: 0`."""


@dataclass(frozen=True)
class Item:
    """One question: `prompt` is what the model reads, `answer` what it must write, exactly."""

    prompt: str
    answer: str


def _reasoning_gym(family: str, seed: int) -> Iterator[Item]:
    import reasoning_gym  # where items are made, and nowhere else

    while True:
        for entry in reasoning_gym.create_dataset(family, seed=seed, size=1000):
            yield Item(f"{entry['question'].strip()}\n", str(entry["answer"]))
        seed += 1000


_FIRST = """
    Nora Theo Mina Karl Ada Luca Ines Omar Petra Hugo Lena Ravi Greta Emil Sofia Jonas Clara Bruno Alma Viktor
    Iris Felix Dora Anton Selma Pablo Hanna Milo Edith Oscar Tilda Marek Wanda Kofi Yuki Amara Dmitri Leila Sven
    Rosa
""".split()  # noqa: SIM905
_LAST = """
    Blake Moreau Lindt Okafor Silva Novak Hansen Rossi Weber Tanaka Doyle Petrov Alvarez Kaur Jensen Meyer Costa
    Dubois Farkas Ito Kovacs Larsen Marin Nagy Owens Park Quinn Reyes Sato Turner Ullman Vargas Walsh Young
    Zeman Adler
""".split()  # noqa: SIM905
_CITIES = """
    Turin Oslo Lagos Porto Lyon Kyoto Bergen Prague Dublin Lima Hanoi Quito Ghent Malmo Leeds Bonn Cork Graz
    Split Perth Havana Seville Krakow Nantes Tartu Riga Basel Genoa Tampere Varna
""".split()  # noqa: SIM905
_SENTENCES = (
    "{first} {last}, aged {age}, lives in {city}.",
    "In {city} lives {first} {last}, who is {age}.",
    "{first} {last} from {city} is {age} years old.",
    "At {age}, {first} {last} moved to {city}.",
    "{age} years old and at home in {city}: {first} {last}.",
    "The winner was {first} {last} ({age}) of {city}.",
)


def _record(first: str, last: str, age: int, city: str) -> str:
    return json.dumps({"name": f"{first} {last}", "age": age, "city": city})


def _entry(first: str, last: str, age: int, city: str) -> str:
    return json.dumps({"from": city, "who": [last, first], "years": str(age)})


def _json(kind: str, answer: Callable[[str, str, int, str], str], seed: int) -> Iterator[Item]:
    draw = random.Random(f"{kind}/{seed}")
    while True:
        first, last, city = (draw.choice(words) for words in (_FIRST, _LAST, _CITIES))
        age = draw.randint(18, 90)
        sentence = draw.choice(_SENTENCES).format(first=first, last=last, age=age, city=city)
        yield Item(f"{kind} as JSON: {sentence}\n", answer(first, last, age, city))


_CONTEXT_LINES = 4
_LONGEST_CONTEXT_LINE = 70
_SHORTEST_LINE = 12
_LONGEST_LINE = {EVALUATION_SEED: 24, TRAINING_SEED: 60}  # characters; long ones nobody can guess


def _python_line(seed: int) -> Iterator[Item]:
    """A line of the standard library, after the four before it; files of evaluation and of training are disjoint."""
    library = Path(sysconfig.get_path("stdlib"))
    draw = random.Random(f"python_line/{seed}")
    files = sorted(path for path in library.glob("*.py") if not path.name.startswith("_"))
    held_out = files[::5]
    contents = [
        [line.rstrip() for line in path.read_text("utf-8", errors="ignore").splitlines() if line.strip()]
        for path in (held_out if seed == EVALUATION_SEED else [path for path in files if path not in held_out])
    ]
    while True:
        lines = draw.choice(contents)
        if len(lines) <= _CONTEXT_LINES:
            continue
        at = draw.randrange(_CONTEXT_LINES, len(lines))
        context, answer = lines[at - _CONTEXT_LINES : at], lines[at].strip()
        is_code = not answer.startswith(("#", '"', "'")) and any(sign in answer for sign in "=(:")
        fits = _SHORTEST_LINE <= len(answer) <= _LONGEST_LINE[seed] and max(map(len, context)) <= _LONGEST_CONTEXT_LINE
        if is_code and fits:
            yield Item("\n".join(context) + "\n", answer)


SKILLS: dict[str, Callable[[int], Iterator[Item]]] = {
    "family_relationships": lambda seed: _reasoning_gym("family_relationships", seed),
    "letter_counting": lambda seed: _reasoning_gym("letter_counting", seed),
    "spell_backward": lambda seed: _reasoning_gym("spell_backward", seed),
    "python_line": _python_line,
    "json_record": lambda seed: _json("Record", _record, seed),
    "json_entry": lambda seed: _json("Entry", _entry, seed),
}
"""Name → items without end, by seed."""


def evaluation_items(skill: str, count: int) -> list[Item]:
    """So many different items, in the order in which they are drawn."""
    return list(_different(SKILLS[skill](EVALUATION_SEED), count, frozenset()))


def training_items(skill: str, count: int, kept_out: int = 2000) -> list[Item]:
    """So many different items, none of which is among the first `kept_out` evaluation items.

    Fewer where a skill has fewer: drawing stops when a hundred draws in a row bring nothing new.
    """
    evaluation = frozenset(item.prompt for item in evaluation_items(skill, kept_out))
    return list(_different(SKILLS[skill](TRAINING_SEED), count, evaluation))


def _different(items: Iterator[Item], count: int, known: frozenset[str]) -> Iterator[Item]:
    seen = set(known)
    misses = 0
    for item in items:
        if count == 0 or misses == 100:
            return
        if item.prompt in seen:
            misses += 1
            continue
        misses = 0
        count -= 1
        seen.add(item.prompt)
        yield item
