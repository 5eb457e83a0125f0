"""Optional packages, imported when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType


def optional(module: str, distribution: str, *, extra: str = "data") -> ModuleType:
    """The module, if it is installed.

    Args:
        module: its name.
        distribution: the name to install it by.
        extra: which of this project's extras has it.

    Raises:
        ModuleNotFoundError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{distribution} is not installed: pip install 'alexnet-from-scratch[{extra}]'") from error
