"""The only door to transformers' loaders: files that come with a model are data, and none of its code ever runs.

A model directory can name Python code of its own (``auto_map``) or kernels of the hub (``attn_implementation``).
Transformers asks on the terminal whether to run the one and fetches the other unasked; here both are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.initialization import no_init_weights

from evolve.scoring.errors import Problem, TaskError, did_you_mean, first_line

# Keys of a config that name code: of the model's own, of another repository, or kernels of the hub.
_NAMES_OF_CODE = frozenset(
    {
        *("auto_map", "_name_or_path", "custom_pipelines"),
        *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
        *("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
    }
)
_MODULES = re.compile(r"(^|_)(layers?|blocks?|experts?|heads?|groups?|codebooks|stages)$")
_MOST_MODULES = 10_000
_SMALL = 100_000_000
"""Numbers that no checkpoint holds, such as masks of every pair of positions."""

_LANGUAGE_MODELS: Mapping[Any, Any] = {
    transformers.AutoModelForCausalLM: transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
    transformers.AutoModelForImageTextToText: transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
}
"""Who builds a language model, and the class that it builds for each kind of configuration."""

_ENCODERS: Mapping[Any, Any] = {
    transformers.AutoModel: transformers.MODEL_MAPPING,
    transformers.AutoModelForMaskedLM: transformers.MODEL_FOR_MASKED_LM_MAPPING,
    transformers.AutoModelForSequenceClassification: transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
}
"""The same of encoders, by the head that they have."""

_DATA_ALONE: Mapping[str, Any] = {"trust_remote_code": False, "local_files_only": True}


def load_tokenizer(directory: str | Path) -> Any:
    """Load the tokenizer that is in a directory.

    Raises:
        TaskError: There is none, transformers does not know it, or it would need code of its own.
    """
    with _loading(f"tokenizer: cannot load one from {str(directory)!r}"):
        return transformers.AutoTokenizer.from_pretrained(directory, **_DATA_ALONE)


def load_generation_config(directory: str | Path) -> Any:
    """Load the generation_config.json of a directory; None where there is none.

    Raises:
        TaskError: It is no generation configuration.
    """
    file = Path(directory) / transformers.utils.GENERATION_CONFIG_NAME
    if not file.is_file():
        return None
    with _loading(str(file)):
        return transformers.GenerationConfig.from_pretrained(directory, local_files_only=True)


def known_config(config: Mapping[str, Any]) -> Any:
    """The transformers configuration of a model.

    Args:
        config: The content of a config.json.

    Raises:
        TaskError: The architecture is not known to transformers, or its configuration does not take the content.
    """
    settings = _without_code(config)
    model_type = str(settings.pop("model_type", ""))
    known = transformers.CONFIG_MAPPING
    if model_type not in known:
        raise TaskError(
            f"config.json: model_type {model_type!r} is not known to transformers {transformers.__version__}."
            f"{did_you_mean(model_type, list(known.keys()))} A newer transformers may know it."
        )
    with _loading("config.json"):
        _refuse_excess(settings)
        return known[model_type](**_with_floats(settings))


def model_of_config(config: Any, **options: Any) -> Any:
    """A language model or an encoder of a configuration's shape; who calls says where and how it is initialised.

    It is of the class that the configuration names: with its towers where it was saved with them.

    Args:
        config: From `known_config`.
        options: Further arguments of `AutoModelForCausalLM.from_config`.

    Raises:
        TaskError: Transformers has no language model of that kind, or takes no such argument.
    """
    try:
        return _auto_class(config).from_config(config, **{**options, "trust_remote_code": False})
    except TypeError as error:
        message = f"transformers does not take them: {error}"
        raise TaskError(Problem(("backend", "model_args"), message)) from error
    except Exception as error:  # modules of a model fail at numbers that do not fit together in as many ways
        raise TaskError(
            f"config.json: no causal language model can be built from it: {first_line(error)[:300]}"
        ) from error


def check_size(config: Mapping[str, Any], values: int) -> None:
    """Refuse a config that describes a model much larger than its weights are, before it takes the memory.

    Args:
        config: The content of a config.json.
        values: How many numbers the weights are.

    Raises:
        TaskError: It does; or as `known_config` and `model_of_config`.
    """
    with torch.device("meta"), no_init_weights():
        model = model_of_config(known_config(config))
    described = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if described > 2 * values + _SMALL:
        raise TaskError(
            f"config.json: it describes a model of {described} numbers, and the weights have {values}. "
            "Fetch the file again"
        )


def load_model(directory: str | Path, dtype: torch.dtype) -> Any:
    """Load a causal language model with its weights.

    Args:
        directory: Of the model.
        dtype: Of its parameters.
    """
    config = transformers.AutoConfig.from_pretrained(directory, **_DATA_ALONE)
    return _auto_class(config).from_pretrained(directory, dtype=dtype, **_DATA_ALONE)


def _auto_class(config: Any) -> Any:
    """Who builds the class that a configuration names; of one that names none, whoever knows its kind.

    Qwen3.5, say, is a causal language model to one of them and a model with a vision tower to the other.
    """
    named, kind = config.architectures or (), type(config)
    classes = _ENCODERS if is_encoder(config) else _LANGUAGE_MODELS
    knowing = [auto for auto, models in classes.items() if kind in models]
    of_name = [auto for auto in knowing if classes[auto][kind].__name__ in named]
    return next(iter(of_name or knowing), transformers.AutoModelForCausalLM)


def is_encoder(config: Any) -> bool:
    """Whether a model fills gaps in texts. Most of these kinds have a class that would write texts, too, and badly."""
    both = getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False)
    return type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING and not both


def _without_code(content: Mapping[str, Any]) -> dict[str, Any]:
    """A config and its nested configs without what names code."""
    return {
        key: _without_code(value) if isinstance(value, Mapping) else value
        for key, value in content.items()
        if key not in _NAMES_OF_CODE
    }


def _with_floats(value: Any) -> Any:
    """Numbers that JSON has no word for, such as infinity, are written as ``{"__float__": "Infinity"}``."""
    if isinstance(value, Mapping):
        if value.keys() == {"__float__"}:
            return float(value["__float__"])
        return {key: _with_floats(entry) for key, entry in value.items()}
    return [_with_floats(entry) for entry in value] if isinstance(value, list) else value


def _refuse_excess(settings: Mapping[str, Any]) -> None:
    """Numbers of modules, each of which takes time and memory even when it is empty."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            _refuse_excess(value)
        elif isinstance(value, int) and value > _MOST_MODULES and _MODULES.search(key):
            raise ValueError(f"{key} is {str(value)[:20]}, at most {_MOST_MODULES} are possible")


@contextmanager
def _loading(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # every library behind transformers raises its own types, Rust's no Exceptions
        raise TaskError(f"{what}: {first_line(error)[:300]}") from error
