"""Packages that only data needs, imported when they are."""

from __future__ import annotations

import importlib
from types import ModuleType


def optional(module: str, distribution: str) -> ModuleType:
    """The module, if it is installed.

    Raises:
        ModuleNotFoundError: it is not; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{distribution}, which brings or reads the images, is not installed: pip install 'alexnet-from-scratch[data]'"
        ) from error
