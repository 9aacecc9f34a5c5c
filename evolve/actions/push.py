"""`evolve push` from the directory of a run to a repository of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from evolve.actions.status import require_finished
from evolve.problems import ConfigError, Problem
from evolve.trials.bundle_directory import portable
from evolve.trials.run_directory import dump_yaml


class PushError(RuntimeError):
    """The hub, or the way there, refused."""


def push_model(path: Path, repository: str, *, private: bool = False) -> str:
    """Upload a merged model; what the hub has already is not sent again.

    The token is the one that `hf auth login` keeps, or HF_TOKEN.

    Args:
        path: directory of a finished run, whose recipe and search go along, or of a merged model.
        repository: USER/NAME; made where there is none.
        private: whether one that is made is seen by its owner alone.

    Returns:
        Where it is.

    Raises:
        ConfigError: there is no model that was made here, the run has gone on since, there is no token, or the name
            is no repository's.
        PushError: the hub refused, or was not reached; or what was sent is no longer what is here.
    """
    from huggingface_hub import HfApi, get_token

    # The error of its client is httpx's before 2.0, and httpx2's since.
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    model, beside = _model_of(path)

    from merge_core.ownership import MARKER  # brings the merge engine, which a run that is not there does without

    made = _list_of(model)
    if made is None:
        fix = f"hf upload {repository} {path}"
        raise ConfigError(
            f"{path}: evolve did not make it, and all that is in it would be sent. If that is meant: {fix}"
        )
    if repository.count("/") != 1:
        raise ConfigError(Problem((), "expected USER/NAME. Example: my-name/my-merge", repository))
    if get_token() is None:
        raise ConfigError("no token for the hub. Run hf auth login, or set HF_TOKEN to one that may write")
    api = HfApi()
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=model,
            ignore_patterns=[MARKER],
            commit_message="Upload the merged model",
        )
        for name, content in beside.items():
            api.upload_file(
                repo_id=repository, path_or_fileobj=content, path_in_repo=name, commit_message=f"Upload {name}"
            )
    except HFValidationError as error:
        raise ConfigError(Problem((), str(error), repository)) from None
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise PushError(f"{repository}: {_explained(error, model)}") from error
    if _list_of(model) != made:
        what = f"{model} was written anew during the upload, and parts of both may be there"
        raise PushError(f"{repository}: {what}. Run the same command again")
    return str(url)


def _list_of(model: Path) -> bytes | None:
    """The list of what was made in a directory, which whoever writes it anew leaves anew."""
    from merge_core.ownership import MARKER

    list_file = model / MARKER
    return list_file.read_bytes() if list_file.is_file() else None


def _model_of(path: Path) -> tuple[Path, dict[str, bytes]]:
    """The directory of the model, and the files that its card speaks of and that stand elsewhere: name -> content."""
    if (path / "config.json").is_file():
        return path, {}
    directory = require_finished(path)
    if not (directory.model / "config.json").is_file():
        raise ConfigError(f"{directory.model}: holds no model. Run evolve run {path} once more, which writes it")
    from evolve.config.yaml_document import read_document

    search = dump_yaml(portable(read_document(directory.search, {}).content))
    return directory.model, {
        directory.recipe.name: directory.recipe.read_bytes(),
        directory.search.name: search.encode("utf-8"),
    }


def _explained(error: BaseException, model: Path) -> str:
    """What went wrong, and what to do."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    while isinstance(error, RuntimeError) and error.__cause__ is not None:  # that one of several files failed
        error = error.__cause__
    said = " ".join(str(getattr(error, "server_message", None) or error).split())
    again = "Run the same command again; what is there stays there"
    if isinstance(error, HfHubHTTPError):
        hints = {401: "the token is not known to it", 403: "the token may not write there"}
        hint = hints.get(error.response.status_code)
        return f"the hub refused: {f'{hint} ({said})' if hint else said}"
    if isinstance(error, ValueError) and "README.md" in said:  # its verdict on the card, which it is asked for first
        return f"the hub refused the card: {said}. Correct README.md in {model}"
    if isinstance(error, (ConnectionError, HTTPError)):
        return f"the hub was not reached: {said}. {again}"
    return f"the upload failed: {said}. {again}"
