"""Every command line and every YAML block of README.md and docs/ is one that the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml
from markdown.extensions.toc import slugify

from evolve.commands.cli import make_app
from evolve.commands.registry import COMMANDS
from evolve.config.reader import understand_search
from evolve.config.schema import SearchConfig
from evolve.config.yaml_document import YamlDocument

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SOUND = {
    "recipe": {
        "merge_method": "linear",
        "models": [{"model": "a", "parameters": {"weight": {"low": 0, "high": 1}}}, {"model": "b"}],
    },
    "tasks": ["gsm8k_train", "arc_challenge_train", "mbpp_train_code"],
}
# What an example may name that is on no page: files and tasks of its own; and a recipe that is merged, not searched.
OF_ELSEWHERE = (
    "no module",
    "no task is called",
    "is neither beside the file nor here",
    "holds no gene",
    "is not installed",
)


def blocks(*languages):
    for page in PAGES:
        for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language in languages:
                yield page.relative_to(ROOT).as_posix(), text


def command_lines():
    found = {}
    for page, text in blocks("sh", "bash", "console"):
        for line in text.replace("\\\n", " ").splitlines():
            words = re.split(r"\s+#\s", line.removeprefix("$ "))[0].strip()
            if re.match(r"(\.venv/bin/)?evolve [a-z]", words):
                found.setdefault(words.removeprefix(".venv/bin/"), page)
    return found


def yaml_blocks():
    for page, text in blocks("yaml"):
        for place, document in enumerate(yaml.safe_load_all(text)):
            if isinstance(document, dict):
                yield pytest.param(document, id=f"{page}:{next(iter(document))}:{place}")


@pytest.fixture(scope="module")
def program():
    return typer.main.get_command(make_app())


@pytest.mark.parametrize("line", list(command_lines()))
def test_a_command_line_is_parsed(program, line):
    name, *words = shlex.split(line)[1:]
    command = program.get_command(program.make_context("evolve", [name]), name)
    assert command is not None, f"no command {name}"
    if "--help" not in words:
        command.make_context(name, words)


def test_every_command_is_on_a_page():
    shown = {shlex.split(line)[1] for line in command_lines()}
    assert shown >= COMMANDS.keys()


@pytest.mark.parametrize("document", list(yaml_blocks()))
def test_settings_of_a_search_are_understood(document):
    if not document.keys() <= SearchConfig.model_fields.keys() | {"sweep"}:
        pytest.skip("no settings of a search: a recipe, a task, a part of something")
    whole = document if {"recipe", "genome"} & document.keys() else {**SOUND, **document}
    whole = {"tasks": SOUND["tasks"], **whole}
    file = understand_search(YamlDocument("page", whole, {}, ()), ROOT / "search.yml")
    assert [problem for problem in file.problems if not any(map(problem.message.count, OF_ELSEWHERE))] == []


def test_an_example_with_a_mistake_would_be_found(program):
    with pytest.raises(Exception, match="No such option: --no-such"):
        program.get_command(program.make_context("evolve", ["run"]), "run").make_context("run", ["--no-such"])
    file = understand_search(YamlDocument("page", {**SOUND, "bugdet": {}}, {}, ()), ROOT / "search.yml")
    assert list(file.problems)


def test_every_page_is_on_the_site_once():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    entries = [place for entry in site["nav"] for place in entry.values()]
    sections = [[{"": place}] if isinstance(place, str) else place for place in entries]
    pages = [page for section in sections for named in section for page in named.values()]
    assert sorted(pages) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_a_page_outside_the_site_lead_somewhere(page):
    for place, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", (ROOT / page).read_text(encoding="utf-8")):
        target = ROOT / (place or page)
        assert target.exists(), place
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slugify(heading, "-") for heading in headings}, f"{place}#{anchor}"


def test_what_the_dockerfile_copies_is_there_and_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists(), name
                assert f"!{name}" in ignored
