"""Models of the hub, from a stand-in of its HTTP interface on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch
from safetensors.torch import load_file, save_file
from warm_program import WITHOUT_THE_HUB, WarmPython

MakeModel = Callable[..., Path]
COMMITS = {"main": "a" * 40, "v2": "b" * 40}
TOKEN = "hf_" + "secret" * 4


class Hub(ThreadingHTTPServer):
    """Repositories are directories ``root/ORG/NAME/REVISION``; every request for a file is written down."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.fetched: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def revision(self, name: str) -> str | None:
        return next((branch for branch, commit in COMMITS.items() if name in (branch, commit)), None)


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.respond(body=False)

    def do_GET(self) -> None:
        self.respond(body=True)

    def respond(self, body: bool) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        is_interface = parts[:2] == ["api", "models"]
        if is_interface:
            parts = parts[2:]
        # ORG/NAME[/revision/REVISION] of the interface, ORG/NAME/resolve/REVISION/FILE of files.
        repository = self.server.root.joinpath(*parts[:2])
        kind, revision = (*parts[2:], "", "main")[:2] if len(parts) > 3 else ("", "main")
        branch = self.server.revision(revision)
        if not repository.is_dir():
            self.answer(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif branch is None or not (repository / branch).is_dir():
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"no revision {revision}"})
        elif is_interface:
            files = sorted(f for f in (repository / branch).rglob("*") if f.is_file())
            names = [str(file.relative_to(repository / branch)) for file in files]
            if kind == "tree":
                entries: object = [
                    {"type": "file", "path": name, "size": file.stat().st_size, "oid": "0" * 40}
                    for name, file in zip(names, files, strict=True)
                ]
            else:
                siblings = [{"rfilename": name} for name in names]
                entries = {"id": "/".join(parts[:2]), "sha": COMMITS[branch], "siblings": siblings}
            self.answer(200, json.dumps(entries).encode(), {"Content-Type": "application/json"}, body)
        else:
            name = "/".join(parts[4:])
            content = (repository / branch / name).read_bytes()
            if body:
                self.server.fetched.append(name)
            tag = hashlib.sha256(content).hexdigest()
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMITS[branch]}
            self.answer(200, content, headers, body)

    def answer(self, status: int, content: bytes, headers: dict[str, str], body: bool = True) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, make_model: MakeModel) -> Iterator[Hub]:
    """org/plain (two revisions and much that is not needed) and org/old, which has pickles only."""
    root = tmp_path / "hub"
    make_model("hub/org/plain/main", seed=1, layers=1)
    make_model("hub/org/plain/v2", seed=2, layers=1)
    make_model("hub/org/old/main", seed=3, layers=1)
    not_needed = ("model.gguf", "consolidated.safetensors", "consolidated.00.pth", "pytorch_model.bin")
    for name in (*not_needed, "onnx/model.safetensors"):
        file = root / "org/plain/main" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"large")
    (root / "org/plain/main/tokenizer.json").write_text("{}")
    old = root / "org/old/main"
    torch.save(load_file(old / "model.safetensors"), old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    (old / "training_args.bin").write_bytes(b"x")
    server = Hub(root)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


SCRIPT = """
import json, sys
from merge_core import Checkpoint, MergeError, resolve_model
answers = []
for reference in sys.argv[1:]:
    try:
        directory = resolve_model(reference)
        tensors = Checkpoint.open(directory).tensors
        files = sorted(file.name for file in directory.iterdir())
        answers.append({"files": files, "commit": directory.name, "tensors": len(tensors)})
    except MergeError as error:
        answers.append({"error": str(error)})
print(json.dumps(answers))
"""


MERGE = """
import json, sys
from pathlib import Path
from merge_core import merge
recipe, output, cache, trust = sys.argv[1:]
result = merge(recipe, output, cache=Path(cache), trust_remote_code=trust == "trust")
print(json.dumps([result.fingerprint, sorted(file.name for file in result.path.iterdir()), result.warnings]))
"""


def resolve(hub: Hub, cache: Path, *references: str, offline: bool = False) -> list[dict[str, object]]:
    """What a fresh process finds for references."""
    answers: list[dict[str, object]] = json.loads(run(hub, cache, SCRIPT, *references, offline=offline))
    return answers


def run(hub: Hub, cache: Path, script: str, *arguments: str | Path, offline: bool = False) -> str:
    """What a script prints in a process of its own that knows this hub only."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(cache),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    done = WarmPython(WITHOUT_THE_HUB + script, "-c", *arguments, directory=cache, environment=environment).ended()
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return done.stdout


def test_hub_models_are_fetched_once_and_only_what_is_needed(hub: Hub, tmp_path: Path):
    cache = tmp_path / "cache"
    cache.mkdir()
    plain, second, old, unknown, no_revision = resolve(
        hub, cache, "org/plain", "org/plain@v2", "org/old", "org/unknown", "org/plain@v9"
    )
    assert plain == {"files": ["config.json", "model.safetensors", "tokenizer.json"], "commit": "a" * 40, "tensors": 12}
    assert (second["commit"], second["tensors"]) == ("b" * 40, 12)
    assert old["files"] == ["config.json", "pytorch_model.bin"]
    assert 'model "org/unknown": no directory org/unknown, and the hub says: ' in str(unknown["error"])
    assert 'model "org/plain@v9"' in str(no_revision["error"])
    for answer in (unknown, no_revision):
        assert "\n" not in str(answer["error"])
    fetched = len(hub.fetched)
    again = resolve(hub, cache, "org/plain", "org/old")
    assert again == [plain, old]
    assert len(hub.fetched) == fetched, "the cache is used"
    offline = resolve(hub, cache, "org/plain", "org/old", "org/plain@v2", "org/other", offline=True)
    assert offline[:3] == [plain, old, second]
    assert "the hub cannot be reached nor has a cached copy" in str(offline[3]["error"])
    assert len(hub.fetched) == fetched


RECIPE = """
merge_method: linear
models:
  - {model: org/plain@v2+org/adapter, parameters: {weight: 1}}
  - {model: org/plain, parameters: {weight: 1}}
"""


def test_adapters_revisions_and_code_come_from_the_hub_into_a_cache_of_ones_own(hub: Hub, tmp_path: Path):
    adapter = hub.root / "org/adapter/main"
    adapter.mkdir(parents=True)
    name = "model.layers.0.mlp.up_proj"
    shapes = {"A": (2, 16), "B": (24, 2)}
    parts = {f"base_model.model.{name}.lora_{side}.weight": torch.ones(shape) for side, shape in shapes.items()}
    save_file(parts, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    (adapter / "optimizer.pt").write_bytes(b"large")
    config = hub.root / "org/plain/v2/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "auto_map": {"AutoConfig": "own.OwnConfig"}}))
    (hub.root / "org/plain/v2/own.py").write_text("raise RuntimeError")
    (tmp_path / "recipe.yml").write_text(RECIPE)
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    plain = json.loads(run(hub, home, MERGE, tmp_path / "recipe.yml", tmp_path / "m", cache, "no"))
    assert "own.py" not in {*hub.fetched, *plain[1]}
    assert "its Python code was not copied" in plain[2][0]
    trusted = json.loads(run(hub, home, MERGE, tmp_path / "recipe.yml", tmp_path / "n", cache, "trust"))
    assert "own.py" in trusted[1]
    assert "optimizer.pt" not in hub.fetched
    assert {path.name for path in cache.iterdir() if path.name.startswith("models--")} == {
        "models--org--plain",
        "models--org--adapter",
    }
    assert not list(home.glob("hub/models--*")), "the hub's own cache is left alone"
    again = run(hub, home, MERGE, tmp_path / "recipe.yml", tmp_path / "o", cache, "trust", offline=True)
    assert json.loads(again) == trusted
    merged, one, two = (
        load_file(directory / "model.safetensors")[f"{name}.weight"]
        for directory in (tmp_path / "m", hub.root / "org/plain/v2", hub.root / "org/plain/main")
    )
    torch.testing.assert_close(merged, (one + 2 + two) / 2)
    assert plain[0] == trusted[0]
