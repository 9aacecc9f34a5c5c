"""Equality with lm_eval.simple_evaluate on the same model and items, and what goes wrong."""

from __future__ import annotations

import math
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import yaml

from evolve.scoring import LmEvalTask, ScoringError, TaskError, is_benchmark_test, load_scorers
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.scorers.lm_eval.catalogue import Catalogue, entry_meant
from evolve.scoring.scorers.lm_eval.load import is_training_data

SEED = 7  # the reference's fewshot_random_seed


def scorer_for(directory: Path, **config: Any) -> Any:
    (scorer,) = load_scorers([LmEvalTask(**config)], [directory], seed=SEED)
    return scorer


def problems_of(directory: Path, *configs: dict[str, Any]) -> str:
    with pytest.raises(TaskError) as caught:
        load_scorers([LmEvalTask(**config) for config in configs], [directory], seed=SEED)
    return "\n".join(problem.message for problem in caught.value.problems)


def copy_of(source: Path, name: str, directory: Path, new_name: str, **changes: Any) -> dict[str, Any]:
    """Write a changed copy of a task to another directory."""
    content = yaml.safe_load((source / f"{name}.yaml").read_text())
    content["dataset_kwargs"]["data_files"] = {s: str(source / f"{s}.jsonl") for s in ("train", "test")}
    content = {key: value for key, value in {**content, "task": new_name, **changes}.items() if value is not None}
    (directory / f"{new_name}.yaml").write_text(yaml.safe_dump(content))
    return content


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("decide", "acc,none"),
        ("decide", "acc_norm,none"),
        ("decide", "acc_bytes,none"),
        ("decide", "acc_mutual_info,none"),
        ("decide", "exact_match,none"),
        ("fill", "acc,none"),
        ("fill", "acc_norm,none"),
        ("vote", "exact_match,vote"),
        ("vote", "exact_match,lower"),
        ("generate", "exact_match,first-letter"),
        ("generate", "exact_match,whole"),
        ("choose", "acc,none"),
        ("choose", "acc_norm,none"),
        ("complete", "acc,none"),
        ("complete", "perplexity,none"),
        ("read", "word_perplexity,none"),
        ("read", "byte_perplexity,none"),
        ("read", "bits_per_byte,none"),
    ],
)
def test_score_and_item_values_equal_simple_evaluate(
    name: str, metric: str, task_directory: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    scorer = scorer_for(task_directory, name=name, metric=metric)
    reference = lm_eval_results(task_directory, name)

    values = scorer.score(backend, scorer.item_ids()).values

    assert scorer.aggregate(values).value == pytest.approx(reference["results"][name][metric], rel=1e-5)
    metric_name, filter_name = metric.split(",")
    samples = [sample for sample in reference["samples"][name] if sample["filter"] == filter_name]
    assert len(samples) == len(values)
    for sample in samples:
        expected = sample[metric_name]
        expected = -expected[0] if isinstance(expected, tuple) else expected
        expected = -expected if metric_name == "perplexity" else expected
        assert values[sample["doc_id"]] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"num_fewshot": 3},
        {"num_fewshot": 2, "apply_chat_template": True, "fewshot_as_multiturn": True},
        {"num_fewshot": 2, "apply_chat_template": True, "fewshot_as_multiturn": False},
        {"apply_chat_template": True, "system_instruction": "Be brief."},
    ],
)
@pytest.mark.parametrize("name", ["generate", "choose"])
def test_prompts_and_answers_equal_simple_evaluate_with(
    name: str, options: dict[str, Any], task_directory: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    scorer = scorer_for(task_directory, name=name, **options)
    # A task's own 0 wins over the argument of simple_evaluate, so the reference has it in its file.
    directory = task_directory
    if "num_fewshot" in options:
        directory = task_directory / f"shots_{options['num_fewshot']}"
        directory.mkdir(exist_ok=True)
        content = yaml.safe_load((task_directory / f"{name}.yaml").read_text())
        content["num_fewshot"] = options["num_fewshot"]
        for split, file in content["dataset_kwargs"]["data_files"].items():
            content["dataset_kwargs"]["data_files"][split] = f"../{file}"
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(content))
    reference = lm_eval_results(directory, name, **{k: v for k, v in options.items() if k != "num_fewshot"})

    values = scorer.score(backend, scorer.item_ids()).values

    samples = [s for s in reference["samples"][name] if s["filter"] == scorer.metric.split(",")[1]]
    for sample in samples:
        instances = scorer.members[0].prepare(backend, sample["doc_id"]).instances
        assert [instance.args for instance in instances] == sample["arguments"]
        if name == "generate":
            assert [instance.resps for instance in instances] == sample["resps"]
        assert values[sample["doc_id"]] == sample[scorer.metric.split(",")[0]]


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("generate", "exact_match,whole"),
        ("choose", "acc_norm,none"),
        ("decide", "mcc,none"),
        ("complete", "perplexity,none"),
        ("read", "word_perplexity,none"),
        ("translate", "chrf,none"),
    ],
)
def test_a_score_on_some_items_equals_simple_evaluate_on_them(
    name: str, metric: str, task_directory: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    items = [1, 2, 5, 11, 17, 20, 23]
    scorer = scorer_for(task_directory, name=name, metric=metric)
    reference = lm_eval_results(task_directory, name, samples={name: items})
    values = scorer.score(backend, items).values
    assert scorer.aggregate(values).value == pytest.approx(reference["results"][name][metric], rel=1e-6)


@pytest.mark.parametrize("settings", [{"max_gen_toks": 3}, {"until": ["a", "e"]}, {"max_gen_toks": 30, "until": []}])
def test_gen_kwargs_give_the_answers_of_simple_evaluate(
    settings: dict[str, Any], task_directory: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    scorer = scorer_for(task_directory, name="generate", gen_kwargs=settings)
    reference = lm_eval_results(task_directory, "generate", gen_kwargs=settings)
    scorer.score(backend, scorer.item_ids())
    for sample in reference["samples"]["generate"]:
        instances = scorer.members[0].prepare(backend, sample["doc_id"]).instances
        assert [instance.resps for instance in instances] == sample["resps"]


def test_what_follows_a_thought_is_scored_as_simple_evaluate_scores_it(
    task_directory: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    settings = {"until": [], "max_gen_toks": 30}  # lm-eval's own model lets a stop text end a thought, too
    scorer = scorer_for(task_directory, name="generate", gen_kwargs=settings, thinking={"end": "e"})
    reference = lm_eval_results(task_directory, "generate", gen_kwargs=settings, think_end_token="e")
    scorer.score(backend, scorer.item_ids())
    answers = []
    for sample in reference["samples"]["generate"]:
        instances = scorer.members[0].prepare(backend, sample["doc_id"]).instances
        assert [instance.resps for instance in instances] == sample["resps"]
        answers.append(instances[0].resps[0])
    assert len({len(answer) for answer in answers}) > 3
    assert not scorer.targets(backend, scorer.item_ids())


def test_metadata_reach_the_task_as_in_simple_evaluate(
    tmp_path: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    (tmp_path / "made.py").write_text(
        "import datasets\n\n\ndef items(length=3, **kwargs):\n"
        "    rows = [{'q': 'x' * length + str(n), 'a': n % 2} for n in range(length)]\n"
        "    return {'test': datasets.Dataset.from_list(rows)}\n"
    )
    content = {
        "task": "made",
        "custom_dataset": "MADE",
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": ["no", "yes"],
        "doc_to_target": "a",
        "metric_list": [{"metric": "acc"}],
        "metadata": {"version": 1.0},
    }
    (tmp_path / "made.yaml").write_text(yaml.safe_dump(content).replace("MADE", "!function made.items"))
    scorer = scorer_for(tmp_path, name="made", metadata={"length": 7})
    reference = lm_eval_results(tmp_path, "made", metadata={"length": 7})
    assert len(scorer.item_ids()) == 7
    assert scorer.aggregate(scorer.score(backend, range(7)).values).value == reference["results"]["made"]["acc,none"]
    contexts = [scorer.members[0].prepare(backend, item).instances[0].args[0] for item in range(7)]
    assert contexts == [sample["arguments"][0][0] for sample in reference["samples"]["made"]]
    assert len(scorer_for(tmp_path, name="made").item_ids()) == 3


def test_unsafe_code_runs_only_when_that_is_confirmed(
    task_directory: Path, tmp_path: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    content = copy_of(task_directory, "generate", tmp_path, "unsafe", unsafe_code=True)
    assert content["unsafe_code"]
    assert "it executes code that the model writes" in problems_of(tmp_path, {"name": "unsafe"})
    scorer = scorer_for(tmp_path, name="unsafe", confirm_run_unsafe_code=True)
    reference = lm_eval_results(tmp_path, "unsafe", confirm_run_unsafe_code=True)
    score = scorer.aggregate(scorer.score(backend, scorer.item_ids()).values).value
    assert score == reference["results"]["unsafe"][scorer.metric]


def test_the_answers_of_the_test_model_are_not_all_alike(task_directory: Path, backend: HFBackend) -> None:
    for name in ("generate", "choose"):
        scorer = scorer_for(task_directory, name=name)
        answers = [
            str(instance.resps)
            for item in scorer.score(backend, scorer.item_ids()).values
            for instance in scorer.members[0].prepare(backend, item).instances
        ]
        assert len(set(answers)) > len(answers) / 2


def test_an_item_scores_the_same_alone_and_among_others(task_directory: Path, backend: HFBackend) -> None:
    scorer = scorer_for(task_directory, name="generate", num_fewshot=2)
    together = scorer.score(backend, scorer.item_ids()).values
    fresh = scorer_for(task_directory, name="generate", num_fewshot=2)
    alone = {item: fresh.score(backend, [item]).values[item] for item in reversed(fresh.item_ids())}
    assert alone == together


def test_scores_follow_weights_that_change_in_place(task_directory: Path, tokenizer: Any, make_model: Any) -> None:
    scorer = scorer_for(task_directory, name="read")
    first, second = make_model(seed=1), make_model(seed=2)
    expected = scorer.score(HFBackend(second, tokenizer), scorer.item_ids())
    live = HFBackend(first, tokenizer)
    before = scorer.score(live, scorer.item_ids())
    first.load_state_dict(second.state_dict())
    assert before != expected
    assert scorer.score(live, scorer.item_ids()) == expected


@pytest.mark.parametrize("group", ["by_size", "equally"])
def test_group_score_equals_simple_evaluate(
    group: str, task_directory: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    scorer = scorer_for(task_directory, name=group)
    reference = lm_eval_results(task_directory, group, bootstrap_iters=10)
    values = scorer.score(backend, scorer.item_ids()).values
    score = scorer.aggregate(values)
    assert scorer.item_ids() == tuple(range(24))
    assert score.value == pytest.approx(reference["results"][group]["acc,none"])
    if group == "equally":
        assert score.stderr == pytest.approx(reference["results"][group]["acc_stderr,none"])


def test_a_tag_is_the_mean_of_its_tasks(task_directory: Path, backend: HFBackend) -> None:
    tag, equally = scorer_for(task_directory, name="halves"), scorer_for(task_directory, name="equally")
    values = tag.score(backend, tag.item_ids()).values
    assert tag.aggregate(values) == equally.aggregate(equally.score(backend, equally.item_ids()).values)


@pytest.mark.parametrize(
    ("name", "metric"),
    [("choose", "acc"), ("complete", "perplexity"), ("read", "word_perplexity"), ("read", "bits_per_byte")],
)
def test_contributions_average_to_the_score(name: str, metric: str, task_directory: Path, backend: HFBackend) -> None:
    scorer = scorer_for(task_directory, name=name, metric=metric)
    values = scorer.score(backend, range(10)).values
    contributions = scorer.contributions(values)
    assert contributions.keys() == values.keys()
    assert sum(contributions.values()) / 10 == pytest.approx(scorer.aggregate(values).value)


def test_group_contributions_average_to_the_score(task_directory: Path, backend: HFBackend) -> None:
    for group in ("by_size", "equally"):
        scorer = scorer_for(task_directory, name=group)
        values = scorer.score(backend, range(2, 11)).values
        contributions = scorer.contributions(values)
        assert sum(contributions.values()) / 9 == pytest.approx(scorer.aggregate(values).value)


def test_the_contributions_to_a_group_of_unequal_members_have_the_standard_error_of_its_score(
    task_directory: Path, backend: HFBackend
) -> None:
    scorer = scorer_for(task_directory, name="equally")
    sizes = [len(member.documents) for member in scorer.members]
    # The first member nearly always right on few items, the others seldom on many.
    items = [*range(5), *range(sizes[0], sum(sizes))]
    values = {item: float(item % 5 > 0) if item < sizes[0] else float(item % 5 == 0) for item in items}
    spread = statistics.stdev(scorer.contributions(values).values()) / math.sqrt(len(values))
    assert spread == pytest.approx(scorer.aggregate(values).stderr, rel=0.12)


def test_standard_error_equals_simple_evaluate(task_directory: Path, backend: HFBackend, lm_eval_results: Any) -> None:
    scorer = scorer_for(task_directory, name="choose")
    reference = lm_eval_results(task_directory, "choose", bootstrap_iters=1000)
    score = scorer.aggregate(scorer.score(backend, scorer.item_ids()).values)
    assert score.stderr == pytest.approx(reference["results"]["choose"]["acc_stderr,none"])


def test_data_beside_the_yaml_file_is_found_from_any_directory(
    task_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(scorer_for(task_directory, name="choose").item_ids()) == 24
    assert len(scorer_for(task_directory.parent, name=f"{task_directory.name}/choose.yaml").item_ids()) == 24


def test_direction_is_known_from_the_metric_and_can_be_set(task_directory: Path) -> None:
    assert scorer_for(task_directory, name="choose").direction == "maximize"
    assert scorer_for(task_directory, name="read").direction == "minimize"
    assert scorer_for(task_directory, name="read", direction="maximize").direction == "maximize"


def test_default_metric_is_the_first_with_the_first_filter(task_directory: Path) -> None:
    assert scorer_for(task_directory, name="generate").metric == "exact_match,first-letter"
    assert scorer_for(task_directory, name="choose", metric="acc_norm").metric == "acc_norm,none"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_gen_toks": -1}, "task 'generate': generation_kwargs: max_gen_toks must be at least 1, got -1"),
        ({"max_gen_toks": 0}, "must be at least 1, got 0"),
        ({"max_gen_toks": "many"}, "generation_kwargs: .*'many'"),
        ("max_gen_toks", "generation_kwargs: "),
        ({"until": 5}, "until: expected texts that end an answer, got 5"),
        ({"until": ["\n", 5]}, "until: expected texts that end an answer, got 5"),
    ],
)
def test_generation_settings_that_make_no_sense_are_refused_when_the_task_is_loaded(
    settings: Any, said: str, task_directory: Path
) -> None:
    with pytest.raises(TaskError, match=said):
        scorer_for(task_directory, name="generate", gen_kwargs=settings)


def keys_of(directory: Path, name: str = "choose", **settings: Any) -> dict[str, str]:
    scorer = scorer_for(directory, name=name, **settings)
    return scorer.content_keys(scorer.item_ids())


@pytest.fixture
def copied(task_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(task_directory, tmp_path / "tasks"))


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {what for what in {**before, **after} if before.get(what) != after.get(what)}


def test_a_task_in_another_place_is_the_same_content(task_directory: Path, copied: Path) -> None:
    for name in ("choose", "generate"):
        assert keys_of(copied, name) == keys_of(task_directory, name)


def test_other_items_are_other_content_where_they_are_scored(copied: Path) -> None:
    before, scored = keys_of(copied), scorer_for(copied, name="choose").content_keys([3])
    first, second, *others = (copied / "test.jsonl").read_text().splitlines(keepends=True)
    (copied / "test.jsonl").write_text("".join([second, first, *others]))
    assert changed(before, keys_of(copied)) == {"items"}
    assert scorer_for(copied, name="choose").content_keys([3]) == scored


@pytest.mark.parametrize("field", ["doc_to_text", "doc_to_choice", "target_delimiter", "description"])
def test_every_part_of_a_prompt_is_named_when_it_changes(field: str, copied: Path) -> None:
    before = keys_of(copied)
    file = copied / "choose.yaml"
    value = ["yes", "no"] if field == "doc_to_choice" else "{{ question }} or not: "
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), field: value}))
    assert field in changed(before, keys_of(copied)) <= {field, "fewshot_config"}


def test_settings_of_a_search_are_content_too(copied: Path) -> None:
    before = keys_of(copied, "generate")
    assert changed(before, keys_of(copied, "generate", gen_kwargs={"max_gen_toks": 2})) == {"generation_kwargs"}


def test_the_examples_shown_are_content(copied: Path) -> None:
    shown = keys_of(copied, num_fewshot=2)
    assert "few-shot examples" not in keys_of(copied)
    assert changed(shown, keys_of(copied, num_fewshot=2, fewshot_seed=5)) == {"few-shot examples"}


def test_functions_of_a_tasks_own_are_content_with_what_they_import_from_beside(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(copied)  # lm-eval finds the module of a function, and not what that imports
    (copied / "own_words.py").write_text("ASKED = 'Which?'\n")
    (copied / "own_prompt.py").write_text(
        "def ask(document):\n    import own_words\n    return own_words.ASKED + str(document)\n"
    )
    settings = {**yaml.safe_load((copied / "choose.yaml").read_text()), "task": "asked"}
    settings.pop("doc_to_text")
    (copied / "asked.yaml").write_text(yaml.safe_dump(settings) + "doc_to_text: !function own_prompt.ask\n")
    before = keys_of(copied, "asked")
    (copied / "own_words.py").write_text("ASKED = 'What?'\n")
    assert changed(before, keys_of(copied, "asked")) == {"own_words.py"}


def test_generation_settings_are_laid_over_the_tasks_own(task_directory: Path, backend: HFBackend) -> None:
    for settings in ({"max_gen_toks": 2}, "max_gen_toks=2"):
        scorer = scorer_for(task_directory, name="generate", gen_kwargs=settings)
        request = scorer.members[0].prepare(backend, 0).requests[0]
        assert request.settings.max_new_tokens == 2
        assert request.settings.stop == ("\n", "7a", "Q:")


def test_repeated_sampling_gives_each_item_its_own_answers(
    task_directory: Path, backend: HFBackend, tmp_path: Path
) -> None:
    content = yaml.safe_load((task_directory / "generate.yaml").read_text())
    content.update(task="vote", repeats=3, generation_kwargs={"do_sample": True, "temperature": 1.0, "until": []})
    content["generation_kwargs"]["max_gen_toks"] = 5
    content["filter_list"] = [{"name": "vote", "filter": [{"function": "majority_vote"}, {"function": "take_first"}]}]
    content["dataset_kwargs"]["data_files"] = {s: str(task_directory / f"{s}.jsonl") for s in ("train", "test")}
    (tmp_path / "vote.yaml").write_text(yaml.safe_dump(content))
    scorer = scorer_for(tmp_path, name="vote")
    values = scorer.score(backend, range(4)).values
    answers = [scorer.members[0].prepare(backend, item).instances[0].resps for item in range(4)]
    assert [len(drawn) for drawn in answers] == [3] * 4
    assert any(len(set(drawn)) > 1 for drawn in answers)
    assert scorer.score(backend, range(4)).values == values


def test_an_item_that_is_asked_repeatedly_has_the_mean_of_its_answers(task_directory: Path, backend: HFBackend) -> None:
    drawn = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 2, "until": []}
    scorer = scorer_for(task_directory, name="generate", metric="exact_match,whole", gen_kwargs=drawn, repeats=4)
    answers = ["11", "a", "1", "11"]
    member = scorer.members[0]
    prepared = {item: member.prepare(backend, item) for item in range(3)}
    assert [one.copies for one in prepared.values()] == [(4,)] * 3
    right = {item: member.task.doc_to_target(member.documents[item]) for item in range(3)}
    given = {item: [[right[item], *answers[1:]] if item else answers] for item in range(3)}
    values = member.values(prepared, given)
    expected = {item: sum(answer == right[item] for answer in given[item][0]) / 4 for item in range(3)}
    assert values == expected
    scored = scorer.aggregate(values)
    assert scored.value == pytest.approx(statistics.fmean(expected.values()))
    assert scored.stderr == pytest.approx(statistics.stdev(expected.values()) / math.sqrt(3))


def test_repeats_of_an_answer_that_is_not_drawn_are_refused(task_directory: Path) -> None:
    assert "needs answers that are drawn" in problems_of(task_directory, {"name": "generate", "repeats": 4})
    assert "needs answers that are drawn" in problems_of(task_directory, {"name": "choose", "repeats": 4})


def test_not_a_number_in_the_weights_fails_the_candidate(task_directory: Path, tokenizer: Any, make_model: Any) -> None:
    broken = make_model()
    broken.model.layers[0].mlp.down_proj.weight.data[0, 0] = float("nan")
    for name in ("generate", "choose", "read"):
        scorer = scorer_for(task_directory, name=name)
        with pytest.raises(ScoringError, match="not finite"):
            scorer.score(HFBackend(broken, tokenizer), range(3))


def test_every_mistake_is_reported_at_once(task_directory: Path) -> None:
    text = problems_of(
        task_directory,
        {"name": "chose"},
        {"name": "choose", "metric": "accc"},
        {"name": "read", "metric": "bits_per_byte,strict"},
        {"name": "complete", "gen_kwargs": {"max_gen_toks": 3}},
        {"name": "generate", "num_fewshot": 100},
        {"name": "choose", "alias": "chose", "metric": "f1"},
    )
    assert "no task, group or tag is called 'chose'. Did you mean 'choose'" in text
    assert "it has no metric 'accc'. Did you mean 'acc,none'" in text
    assert "it has no metric 'bits_per_byte,strict'" in text
    assert "word_perplexity,none, byte_perplexity,none, bits_per_byte,none" in text
    assert "gen_kwargs is set, but it does not generate" in text
    assert "cannot draw num_fewshot=100" in text
    assert "it has no metric 'f1'. Did you mean" in text
    assert "chose is named more than once" in text


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("words:exact", '{python: "words:exact", items: words.jsonl}'),
        ("my.words:exact", '{python: "my.words:exact", items: words.jsonl}'),
        ("words.py:exact", '{python: "words:exact", items: words.jsonl}'),
        ("words.py", '{python: "words:FUNCTION", items: words.jsonl}'),
        ("data/words.jsonl", '{python: "MODULE:FUNCTION", items: data/words.jsonl}'),
        ("words.json", '{python: "MODULE:FUNCTION", items: words.json}'),
        ("arc_easy", None),
        ("words.yaml", None),
    ],
)
def test_what_to_write_for_a_function_or_a_file_is_known(name: str, entry: str | None) -> None:
    assert entry_meant(name) == entry


def test_a_function_in_the_place_of_a_task_is_told_where_it_goes(task_directory: Path) -> None:
    text = problems_of(task_directory, {"name": "words:exact"})
    assert 'Write {python: "words:exact", items: words.jsonl} under tasks of a search.yml' in text


def test_missing_data_and_search_paths_are_named(task_directory: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((task_directory / "choose.yaml").read_text())
    content["dataset_kwargs"]["data_files"] = {"test": "absent.jsonl"}
    (tmp_path / "lost.yaml").write_text(yaml.safe_dump({**content, "task": "lost"}))
    assert "task 'lost' cannot be loaded" in problems_of(tmp_path, {"name": "lost"})
    assert "absent.jsonl" in problems_of(tmp_path, {"name": "lost"})
    assert "is not a directory" in problems_of(tmp_path / "nowhere", {"name": "lost"})
    assert "no file 'absent.yaml'" in problems_of(tmp_path, {"name": "absent.yaml"})


def test_a_cache_of_datasets_that_cannot_be_written_is_named(
    task_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    copy_of(task_directory, "choose", tmp_path, "kept", dataset_name=None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "file" / "datasets"))
    assert "Datasets are kept there: set HF_HOME to a directory that can be" in problems_of(tmp_path, {"name": "kept"})


def test_a_split_that_is_empty_or_absent_is_named(task_directory: Path, tmp_path: Path) -> None:
    copy_of(task_directory, "choose", tmp_path, "nothing", process_docs="NONE")
    (tmp_path / "none.py").write_text("def left(docs):\n    return docs.select([])\n")
    text = (tmp_path / "nothing.yaml").read_text()
    (tmp_path / "nothing.yaml").write_text(text.replace("NONE", "!function none.left"))
    copy_of(task_directory, "choose", tmp_path, "elsewhere", test_split="validation")
    problems = problems_of(tmp_path, {"name": "nothing"}, {"name": "elsewhere"})
    assert "task 'nothing' cannot be loaded: it has no items: its split is empty" in problems
    assert "task 'elsewhere' cannot be loaded: its data have no split or column 'validation'" in problems


def test_a_metric_that_no_item_gets_is_named_with_those_it_gets(
    task_directory: Path, tmp_path: Path, backend: HFBackend
) -> None:
    copy_of(task_directory, "generate", tmp_path, "other", process_results="RESULTS")
    (tmp_path / "results.py").write_text("def of(doc, results):\n    return {'length': len(results[0])}\n")
    text = (tmp_path / "other.yaml").read_text()
    (tmp_path / "other.yaml").write_text(text.replace("RESULTS", "!function results.of"))
    with pytest.raises(TaskError, match=r"it gave no 'exact_match' for any item\. It gives: length"):
        scorer_for(tmp_path, name="other").score(backend, [0, 1])


def test_a_continuation_longer_than_the_context_fails_the_candidate(
    task_directory: Path, tokenizer: Any, make_model: Any
) -> None:
    scorer = scorer_for(task_directory, name="choose")
    with pytest.raises(ScoringError, match=r"a continuation of \d tokens does not fit 1 positions"):
        scorer.score(HFBackend(make_model(max_position_embeddings=1), tokenizer), [0])


def test_prompts_longer_than_the_context_are_cut_as_lm_eval_cuts_them(
    task_directory: Path, tokenizer: Any, make_model: Any
) -> None:
    from lm_eval.models.huggingface import HFLM

    model = make_model(max_position_embeddings=20)
    backend = HFBackend(model, tokenizer)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
    for name in ("generate", "choose", "read"):
        scorer = scorer_for(task_directory, name=name)
        prepared = [scorer.members[0].prepare(backend, item) for item in range(6)]
        instances = [instance for item in prepared for instance in item.instances]
        lengths = [len(tokenizer.encode("".join(map(str, instance.args[:2])))) for instance in instances]
        assert max(lengths) > 20
        expected = getattr(harness, instances[0].request_type)(instances)
        scorer.score(backend, range(6))
        found = [instance.resps[0] for instance in instances]
        if name == "generate":
            assert found == expected
        else:
            likelihoods = ([value[0] if isinstance(value, tuple) else value for value in s] for s in (found, expected))
            ours, theirs = likelihoods
            assert ours == pytest.approx(theirs, rel=1e-5)


def test_an_item_that_does_not_exist_is_refused(task_directory: Path, backend: HFBackend) -> None:
    with pytest.raises(TaskError, match="there is no item 24; it has 24"):
        scorer_for(task_directory, name="choose").score(backend, [24])


def test_answers_longer_than_the_model_are_refused(task_directory: Path, backend: HFBackend) -> None:
    scorer = scorer_for(task_directory, name="generate", gen_kwargs={"max_gen_toks": 512})
    with pytest.raises(TaskError, match="max_gen_toks: 256"):
        scorer.score(backend, [0])


def test_a_local_task_is_not_taken_for_a_benchmark(task_directory: Path) -> None:
    assert not is_benchmark_test(scorer_for(task_directory, name="choose"))


def test_lm_evals_own_tasks_are_benchmarks_unless_on_training_data() -> None:
    catalogue = Catalogue(["gsm8k"], [])
    assert catalogue.is_built_in("gsm8k")
    assert not catalogue.is_built_in("choose")
    test = SimpleNamespace(task_name="gsm8k", get_config={"test_split": "test"}.get)
    train = SimpleNamespace(task_name="gsm8k_train", get_config={"test_split": "test"}.get)
    assert not is_training_data(test)
    assert is_training_data(train)


def test_importing_the_package_imports_neither_torch_nor_lm_eval() -> None:
    code = "import sys, evolve.scoring; print(sorted({'torch', 'lm_eval', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
