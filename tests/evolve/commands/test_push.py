"""`evolve push` against a stand-in of the hub's interface on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from finished_run import write_finished_run
from warm_program import WITHOUT_THE_HUB, run_program

from evolve.actions.push import push_model
from evolve.problems import ConfigError

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "hf_secret_of_the_test"


class Hub(ThreadingHTTPServer):
    """Takes repositories and commits, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}  # by their sha256, until a commit names them and after
        self.sent: list[str] = []  # of these, every one that was put
        self.refuse_large = 0
        self.tokens: set[str] = set()
        self.refuse_commits = 0
        self.meanwhile: Callable[[], object] = lambda: None  # happens while a commit is sent
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.tokens.add(self.headers.get("Authorization", ""))
        if self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self._answer({"url": f"{self.server.address}/me/merged"})
        elif self.path == "/api/validate-yaml":
            front = yaml.safe_load(json.loads(body)["content"].split("---\n", 2)[1])
            known = front.get("license") in (None, "other", "mit", "apache-2.0")
            errors = [] if known else [{"message": '"license" must be one of the known ones'}]
            self._answer({"errors": errors, "warnings": []}, 400 if errors else 200)
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in paths}
            common = {"shouldIgnore": False, "oid": None}
            self._answer({"files": [{"path": path, "uploadMode": mode, **common} for path, mode in modes.items()]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            asked = json.loads(body)
            assert (asked["operation"], asked["hash_algo"]) == ("upload", "sha256")
            self._answer({"objects": [self._large(one) for one in asked["objects"]]})
        elif self.path == "/large/verify":
            found = self.server.large.get(json.loads(body)["oid"], b"")
            self._answer({}, 200 if len(found) == json.loads(body)["size"] else 404)
        elif "/commit/" in self.path and self.server.refuse_commits:
            self.server.refuse_commits -= 1
            self._answer({"error": "You may not write here"}, 403)
        elif "/commit/" in self.path:
            self.server.meanwhile()
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.large[value["oid"]]
            self._answer({"commitUrl": f"{self.server.address}/me/merged/commit/{'1' * 40}", "commitOid": "1" * 40})
        else:
            self._answer({"error": self.path}, 404)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = hashlib.sha256(content).hexdigest()
        if self.server.refuse_large or self.path != f"/large/{key}":
            self.server.refuse_large -= 1
            self._answer({"error": "The signature has expired"}, 403)
            return
        self.server.large[key] = content
        self.server.sent.append(key)
        self._answer({})

    def _large(self, asked: dict[str, Any]) -> dict[str, Any]:
        """As git-lfs has it: nothing to be done for what is there, else where it is put and asked for."""
        upload = {"href": f"{self.server.address}/large/{asked['oid']}", "header": {}}
        verify = {"href": f"{self.server.address}/large/verify", "header": {}}
        return (
            asked if asked["oid"] in self.server.large else {**asked, "actions": {"upload": upload, "verify": verify}}
        )

    def do_GET(self) -> None:
        self._answer({"id": "me/merged", "sha": "1" * 40, "siblings": []})

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    run = write_finished_run(tmp_path / "run", (0.5,), best=0)
    shutil.copytree(ROOT / "configs" / "demo_zoo" / "base", run / "model")
    (run / "model" / ".made_by_evolve").write_text("a list", encoding="utf-8")
    (run / "best_recipe.yml").write_text("merge_method: linear\n", encoding="utf-8")
    mine = "storage: mysql://me:secret@db/x\noutput: /home/me\nray: {address: ray://me}\ncallbacks: [{name: wandb}]\n"
    (run / "search.yml").write_text(f"seed: 3\n{mine}", encoding="utf-8")
    return run


def push(*arguments: object, hub: Hub | None = None, token: str = TOKEN, address: str = "") -> SimpleNamespace:
    """In a process of its own: the hub's client reads its address once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    # Large files by git-lfs: the client's other way, hf_xet, speaks to a storage server in a format of its own.
    environment |= {"HF_HOME": "/nonexistent", "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_TOKEN": token} if token else {}
    environment |= {"HF_ENDPOINT": hub.address} if hub is not None else {}
    environment |= {"HF_ENDPOINT": address} if address else {}
    return run_program("push", *arguments, environment=environment, first=WITHOUT_THE_HUB)


def test_model_card_and_recipe_arrive_and_the_token_is_not_told(hub: Hub, finished: Path) -> None:
    done = push(finished, "me/merged", "--private", hub=hub)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("me/merged")
    assert [(one["name"], one.get("private"), one.get("visibility")) for one in hub.made] in (
        [("merged", True, None)],
        [("merged", None, "private")],
    )
    local = {path.name: path.read_bytes() for path in (finished / "model").iterdir() if path.name != ".made_by_evolve"}
    assert yaml.safe_load(hub.files.pop("search.yml")) == {"seed": 3}  # and no password
    assert hub.files == {**local, "best_recipe.yml": b"merge_method: linear\n"}
    assert hub.sent == [hashlib.sha256(local["model.safetensors"]).hexdigest()]
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stdout + done.stderr


def test_a_refusal_is_one_line_and_the_same_command_goes_on(hub: Hub, finished: Path) -> None:
    hub.refuse_commits = 1
    refused = push(finished, "me/merged", hub=hub)
    assert (refused.returncode, hub.files) == (1, {})
    assert "may not write there (You may not write here)" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert push(finished, "me/merged", hub=hub).returncode == 0
    assert "model.safetensors" in hub.files
    assert len(hub.sent) == 1  # the weights were there already


def test_a_model_that_is_written_anew_during_the_upload_is_told(hub: Hub, finished: Path) -> None:
    made = finished / "model" / ".made_by_evolve"
    hub.meanwhile = lambda: made.write_text("a list of others", encoding="utf-8")
    mixed = push(finished, "me/merged", hub=hub)
    assert (mixed.returncode, "Traceback" in mixed.stderr) == (1, False), mixed.stderr
    assert "was written anew during the upload" in mixed.stderr
    assert push(finished, "me/merged", hub=hub).returncode == 0


def test_weights_that_are_refused_are_one_line_and_the_same_command_goes_on(hub: Hub, finished: Path) -> None:
    hub.refuse_large = 1
    refused = push(finished, "me/merged", hub=hub)
    assert (refused.returncode, hub.files, "Traceback" in refused.stderr) == (1, {}, False), refused.stderr
    assert "may not write there" in refused.stderr
    assert push(finished, "me/merged", hub=hub).returncode == 0
    assert hub.files["model.safetensors"] == (finished / "model" / "model.safetensors").read_bytes()


CARD = "---\nlicense: {}\nlicense_name: model-licence\n---\n# Merged\n"


def test_a_card_goes_along_and_one_that_the_hub_refuses_is_one_line(hub: Hub, finished: Path) -> None:
    card = finished / "model" / "README.md"
    card.write_text(CARD.format("model-licence"), encoding="utf-8")
    refused = push(finished, "me/merged", hub=hub)
    assert (refused.returncode, hub.files, "Traceback" in refused.stderr) == (1, {}, False), refused.stderr
    assert '"license" must be one of the known ones' in refused.stderr
    card.write_text(CARD.format("other"), encoding="utf-8")
    assert push(finished, "me/merged", hub=hub).returncode == 0
    assert "README.md" in hub.files


def test_a_hub_that_is_not_reached_is_one_line(finished: Path) -> None:
    done = push(finished, "me/merged", address="http://127.0.0.1:9")  # where nothing listens
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "the hub was not reached" in done.stderr


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [("merged", TOKEN, "USER/NAME"), ("me/a merge", TOKEN, "me/a merge"), ("me/merged", "", "hf auth login")],
)
def test_mistakes_are_found_before_anything_is_sent(finished: Path, name: str, token: str, message: str) -> None:
    done = push(finished, name, token=token)
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


def test_a_directory_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    done = push(tmp_path, "me/merged")
    assert (done.returncode, "no finished run" in done.stderr) == (2, True), done.stderr


def test_a_directory_that_was_not_made_here_is_not_sent(tmp_path: Path) -> None:
    for name in ("config.json", "diary.txt"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"all that is in it would be sent\. .* hf upload me/merged"):
        push_model(tmp_path, "me/merged")
