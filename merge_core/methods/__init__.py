"""Merge methods: one file per family of pure tensor functions, which adds its rows to the table."""

from __future__ import annotations

import importlib
import pkgutil

from merge_core.methods.method import (
    REQUIRED,
    Derivative,
    Method,
    MethodInputs,
    Parameter,
    ParameterSlot,
    SearchRange,
    Value,
)
from merge_core.methods.registry import METHODS, common_parameters, is_parameter_of_any, register

__all__ = [
    "METHODS",
    "REQUIRED",
    "Derivative",
    "Method",
    "MethodInputs",
    "Parameter",
    "ParameterSlot",
    "SearchRange",
    "Value",
    "common_parameters",
    "is_parameter_of_any",
    "register",
]

for _family in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_family.name}")
