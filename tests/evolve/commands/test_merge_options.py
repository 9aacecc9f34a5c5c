"""The options of `evolve merge`."""

from __future__ import annotations

from pathlib import Path

import pytest

from evolve.commands.cli import main
from evolve.report.merge_progress import read_size, read_stand_ins
from merge_core import MergeError


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500M", 5 * 10**8), ("2", 2 * 10**9), ("0.5", 5 * 10**8), ("10kb", 10**4), ("1 TB", 10**12)],
)
def test_sizes_have_units_of_powers_of_ten_and_gigabytes_without(text: str, size: int):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "huge", "-1", "0", "5 GiB", "1e400"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(MergeError, match="Example: --shard-size 5GB"):
        read_size(text)


def test_stand_ins_are_split_at_the_last_equals_sign(tmp_path: Path):
    assert read_stand_ins([f"org/a=b={tmp_path}"]) == {"org/a=b": tmp_path}
    for setting in ("org/a", "=x", "org/a=", f"org/a={tmp_path / 'none'}"):
        with pytest.raises(MergeError, match="--model"):
            read_stand_ins([setting])


def test_a_mistaken_option_is_one_line_and_exit_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "r.yml").write_text("{merge_method: linear, models: [{model: org/a, parameters: {weight: 1}}]}")
    with pytest.raises(SystemExit) as caught:
        main(["merge", str(tmp_path / "r.yml"), str(tmp_path / "out"), "--shard-size", "huge"])
    assert caught.value.code == 2
    assert (
        capsys.readouterr().err == 'error: --shard-size huge: expected a size, got "huge". Example: --shard-size 5GB\n'
    )


def test_a_stand_in_for_a_model_that_the_recipe_does_not_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = tmp_path / "r.yml"
    recipe.write_text("{merge_method: linear, models: [{model: org/a+lora, parameters: {weight: 1}}]}")
    with pytest.raises(SystemExit) as caught:
        main(["merge", str(recipe), str(tmp_path / "out"), "--model", f"org/b={tmp_path}"])
    assert caught.value.code == 2
    expected = "error: --model org/b: r.yml names no such model. It names: lora, org/a, org/a+lora\n"
    assert capsys.readouterr().err == expected
