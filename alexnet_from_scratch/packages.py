"""Optional packages, imported when they are needed, and what to install if they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

# For each package: the name to install it by, and the extra of this project that contains it.
EXTRAS = {
    "hypothesis": ("Hypothesis", "learn"),
    "matplotlib": ("matplotlib", "train"),
    "PIL": ("Pillow", "data"),
    "rich": ("rich", "train"),
    "safetensors": ("safetensors", "train"),
    "skimage": ("scikit-image", "data"),
    "sklearn": ("scikit-learn", "data"),
    "torch": ("torch", "torch"),
}


def optional(module: str) -> ModuleType:
    """The module, if it is installed.

    Raises:
        ModuleNotFoundError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(advice(error, module)) from error


def advice(error: ImportError, module: str | None) -> str:
    """What to install for the module that is missing; the error's own words if it is not one of :data:`EXTRAS`."""
    distribution, extra = EXTRAS.get((module or "").partition(".")[0], ("", ""))
    return f"{distribution} is not installed: pip install 'alexnet-from-scratch[{extra}]'" if extra else str(error)
