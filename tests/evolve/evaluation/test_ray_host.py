"""What the process that drives Ray tells of a cluster by itself."""

from __future__ import annotations

import functools
import socket
import threading
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from evolve.evaluation import ray_host


def test_a_head_that_is_gone_is_told_once_and_not_while_it_is_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_host, "BEAT_SECONDS", 0.01)
    told: list[str] = []
    host: Any = SimpleNamespace(_options=SimpleNamespace(address="auto"), _send=told.append)
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        watching = threading.Thread(target=ray_host.RayHost._watch_head, args=(host, address), daemon=True)
        watching.start()
        for _ in range(3 * ray_host.HEAD_BEATS):
            head.accept()[0].close()
        assert told == []
    watching.join(timeout=60)
    assert told == ["ray: the head of the cluster at auto is gone"]


@pytest.mark.parametrize(("failures", "allowed"), [(0, 1), (2, 3), (3, 3)])
def test_a_ray_of_our_own_is_started_again_where_it_was_too_slow(
    failures: int, allowed: int, monkeypatch: pytest.MonkeyPatch
):
    calls: list[dict[str, Any]] = []

    def init(**arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) <= failures:
            raise RuntimeError("The current node timed out during startup.")

    left = Mock()  # by a start that was too slow; in place of this process's own children
    monkeypatch.setattr(ray_host.psutil, "Process", lambda: SimpleNamespace(children=lambda recursive: [left]))
    monkeypatch.setattr(ray_host.ray, "init", init)
    began = functools.partial(ray_host._begin, {"address": "local"}, allowed)
    if failures < allowed:
        began()
        assert len(calls) == failures + 1
    else:
        with pytest.raises(RuntimeError, match="timed out"):
            began()
        assert len(calls) == allowed
    assert left.kill.call_count == failures
