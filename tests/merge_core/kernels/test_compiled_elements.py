"""What kernels are compiled with, wherever the package is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from merge_core.kernels import compiled_elements


@pytest.mark.parametrize("has_home", [True, False])
def test_a_kernel_is_compiled_where_there_is_no_place_to_keep_it(
    has_home: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As in a container whose packages are root's and whose user has no home that can be written."""
    source = tmp_path / "own.py"
    source.write_text("def twice(x):\n    return 2 * x\n")
    (tmp_path / "__pycache__").touch()  # nor beside the source
    names: dict[str, Any] = {}
    exec(compile(source.read_text(), str(source), "exec"), names)
    monkeypatch.setattr(compiled_elements, "_CACHE", tmp_path / "__pycache__" / "kernels")
    monkeypatch.setattr(compiled_elements, "_is_kept", lambda: has_home)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(source))
    assert compiled_elements.compiled(names["twice"])(3.0) == 6.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["__pycache__", "own.py"]
