"""Merge methods of the user's own: ``merge_method: module:function``.

The function is pure, and its signature says everything else::

    def my_method(tensors: list[Tensor], base: Tensor, *, weight: list[float], strength: float = 1.0) -> Tensor:

``tensors`` are those of the models, in float32, without the base's; ``base`` may be missing (the method uses none) or
``Tensor | None`` (it does with and without). A parameter that is a ``list[float]`` has a value for each of the tensors,
a ``float``, ``int`` or ``bool`` one for all; a default is the value where the recipe has none. Instead of a function
the name may be that of a `Method`.
"""

from __future__ import annotations

import inspect
import re
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import OutOfMemoryError, Tensor

from merge_core.errors import MergeError, did_you_mean
from merge_core.methods import METHODS, REQUIRED, Method, MethodInputs, Parameter, register
from merge_core.methods.method import InvalidParametersError
from merge_core.recipe.user_modules import content_key, copy_module, import_module

EXAMPLE = "def method(tensors: list[Tensor], base: Tensor, *, weight: list[float], strength: float = 1.0) -> Tensor"

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_PER_MODEL = (list[float], Sequence[float])
_KINDS: dict[Any, Literal["number", "integer", "flag"]] = {float: "number", int: "integer", bool: "flag"}


def find_method(name: str, directory: Path) -> Method:
    """The method that a recipe names, which is in the table from then on.

    Args:
        name: of a method in the table, or ``module:function``.
        directory: of the recipe, where the module is looked for first.

    Raises:
        MergeError: there is none, or its function cannot be one.
    """
    if ":" not in name:
        if name not in METHODS:
            raise MergeError(f'unknown method "{name}".{did_you_mean(name, METHODS)}')
        return METHODS[name]
    if not _NAME.fullmatch(name) or _module_of(name).endswith(".py"):
        raise MergeError(f'expected the name of a method, or MODULE:FUNCTION as my_module:my_method, got "{name}"')
    module_name, _, function_name = name.partition(":")
    module = import_module(module_name, directory)
    if name not in METHODS:
        found = getattr(module, function_name, None)
        if found is None:
            known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise MergeError(
                f"module {module_name!r} has no function {function_name!r}.{did_you_mean(function_name, known)}"
            )
        method = replace(found, name=name) if isinstance(found, Method) else _method_of(name, found)
        register(replace(method, code=content_key(module)))
    return METHODS[name]


def own_methods(names: Iterable[str]) -> tuple[str, ...]:
    """Those of them that are the user's own."""
    return tuple(name for name in names if METHODS[name].code)


def copy_methods(names: Iterable[str], directory: Path) -> None:
    """Copy the modules of the user's own methods among these to where a recipe lies that names them."""
    for name in own_methods(names):
        copy_module(_module_of(name), directory)


def own_method_notice(name: str) -> str | None:
    """What is to be known of a method that is the user's own; None of another."""
    if not METHODS[name].code:
        return None
    file = f"{_module_of(name).replace('.', '/')}.py"
    return f"merge_method {name}: mergekit does not know it, and whoever merges by this recipe needs {file}"


def _module_of(name: str) -> str:
    return name.partition(":")[0]


def _method_of(name: str, function: Any) -> Method:
    try:
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function)
    except (TypeError, ValueError, NameError, AttributeError) as error:
        raise MergeError(f"{name}: its signature cannot be read: {error}. Example: {EXAMPLE}") from None
    arguments = list(signature.parameters.values())
    if not arguments or hints.get(arguments[0].name) in (*_PER_MODEL, *_KINDS):
        raise MergeError(f"{name}{signature}: the first parameter must be the models' tensors. Example: {EXAMPLE}")
    parameters = tuple(_parameter(name, argument, hints) for argument in arguments[1:] if argument.name != "base")
    has_base = "base" in signature.parameters
    use: Literal["required", "optional", "unused"] = "unused"
    if has_base:
        use = "optional" if type(None) in typing.get_args(hints.get("base")) else "required"
    return Method(name, name, _runner(name, function, parameters, has_base), parameters, use, "")


def _parameter(name: str, argument: inspect.Parameter, hints: Mapping[str, Any]) -> Parameter:
    hint = hints.get(argument.name)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):  # float | None
        hint = next((part for part in typing.get_args(hint) if part is not type(None)), None)
    kind = "number" if hint in _PER_MODEL else _KINDS.get(hint)
    if kind is None or argument.kind not in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY):
        raise MergeError(
            f"{name}: parameter {argument}: expected list[float] (a value for each model), float, int or bool (one for "
            f"all). Example: {EXAMPLE}"
        )
    default = REQUIRED if argument.default is argument.empty else argument.default
    if not (default is REQUIRED or default is None or isinstance(default, bool | int | float)):
        raise MergeError(f"{name}: parameter {argument}: its default must be a number, True, False or None")
    return Parameter(argument.name, kind, "model" if hint in _PER_MODEL else "global", default, None, "")


def _runner(
    name: str, function: Callable[..., Any], parameters: Sequence[Parameter], has_base: bool
) -> Callable[[MethodInputs], Tensor]:
    def run(inputs: MethodInputs) -> Tensor:
        positions = inputs.other_positions if has_base else range(len(inputs.tensors))
        # Copies: the function may write to what it is given, which may be a model's file.
        tensors = [inputs.tensors[position].clone() for position in positions]
        arguments: dict[str, Any] = {}
        if has_base:
            arguments["base"] = None if inputs.base is None else inputs.base_tensor.clone()
        for parameter in parameters:
            if parameter.scope == "model":
                values = inputs.model_values[parameter.name]
                arguments[parameter.name] = [values[position] for position in positions]
            else:
                arguments[parameter.name] = inputs.settings[parameter.name]
        try:
            result = function(tensors, **arguments)
        except (MemoryError, OutOfMemoryError):
            raise  # the machine's fault: elsewhere, or later, the same merge is made
        except (Exception, SystemExit) as error:  # the user's code can raise anything
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            raise InvalidParametersError(f"{name}: {type(error).__name__}: {error} ({where})") from error
        shape = tuple(inputs.tensors[0].shape)
        if not isinstance(result, Tensor) or tuple(result.shape) != shape:
            found = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise InvalidParametersError(f"{name} returned {found}, expected a tensor of shape {list(shape)}")
        return result

    return run
