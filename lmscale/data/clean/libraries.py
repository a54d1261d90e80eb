"""The libraries of the extra `clean`, imported when a step needs them."""

from __future__ import annotations

import importlib
from typing import Any

from analysis.errors import InputError


def library(module: str, step: str) -> Any:
    """The module. Raises InputError where it is not installed, naming the step and the extra."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise InputError(
            f"corpus.cleaning.steps: {step!r} needs the package {module.partition('.')[0]!r}; pip install "
            "'lmscale[clean]', or leave the step out"
        ) from None
