"""A network's weights in a file, with everything that a prediction needs: the variant, the classes, the preprocessing.

Both sides read and write the same files. Such a file may come from anywhere, so nothing in it is trusted: every name, type, shape
and value is checked before a network uses it. The writer makes the same checks, so that what it writes can be read. A run calls
:func:`require_classes` at its start, to learn as early as possible whether it can write the file.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_from_scratch.runs import files
from alexnet_from_scratch.variants import VARIANTS

KIND = "weights"
FORMAT = 1
NETWORK, PREPROCESSING = "network.", "preprocessing."  # prefixes of the arrays' names
FIRST = "features.0.weight"
FLOATS: list[np.dtype[Any]] = [np.dtype(name) for name in ("float16", "float32", "float64")]
PIXELS = 256  # bounds the mean image and the colour shifts: both come from pixels from 0 to 255
CLASSES_LIMIT = files.HEADER_LIMIT - 2**16  # bytes in the header; the rest is for the arrays' names

Found = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]  # dtype and shape of each array


@dataclass(frozen=True)
class WeightsFile:
    """An opened file of weights: a first layer and enough outputs are known to be there, but no array has been read yet.

    Attributes:
        header: what the file says it holds.
        variant: which network it is for.
        classes: the names of the network's outputs.
    """

    header: files.Header
    variant: str
    classes: tuple[str, ...]

    def read(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The network's arrays, float32, and the preprocessing's. The network's must have exactly these names and ``shapes``.

        Raises:
            ValueError: names, types or shapes are wrong (one message lists them); or values are impossible.
        """
        path = self.header.path
        require_arrays(path, self.variant, len(self.classes), self.header.arrays, shapes)
        arrays = self.header.read()
        network = as_floats(path, {name: arrays[NETWORK + name] for name in shapes})
        require_preprocessing(path, self.variant, arrays)
        return network, {name.removeprefix(PREPROCESSING): arrays[name] for name in arrays if name.startswith(PREPROCESSING)}

    def first_layer(self) -> np.ndarray:
        """The first layer's weight alone, (OC,C,KH,KW), float32.

        Raises:
            ValueError: a value is not finite.
        """
        return as_floats(self.header.path, {FIRST: self.header.read()[NETWORK + FIRST]})[FIRST]


def open_weights(path: Path | str) -> WeightsFile:
    """Open a file of weights and check its header.

    Raises:
        ValueError: it is not a file of weights, is damaged, or its header is impossible.
        OSError: it cannot be read.
    """
    header = files.read_header(path, KIND)
    about, version = header.about, header.about.get("format")
    if type(version) is not int or version != FORMAT:
        raise ValueError(f"{path}: must be weights of format {FORMAT}, got {reprlib.repr(version)}")
    variant: Any = about.get("variant")
    classes: Any = about.get("classes")
    require_variant(path, variant)
    require_classes(path, classes)
    # The file must hold as many outputs as it has classes. This is checked before a network of that size is made.
    require_arrays(path, variant, len(classes), header.arrays)
    return WeightsFile(header, variant, tuple(classes))


def save(
    path: Path,
    variant: str,
    classes: Sequence[str],
    network: Mapping[str, np.ndarray],
    preprocessing: Mapping[str, np.ndarray],
) -> None:
    """Write the file that :func:`open_weights` opens.

    Raises:
        ValueError: the file could not be opened or read again: see :meth:`WeightsFile.read`.
        OSError: it cannot be written; the old file is still there.
    """
    require_variant(path, variant)
    require_classes(path, classes)
    arrays = {NETWORK + name: array for name, array in network.items()}
    arrays |= {PREPROCESSING + name: array for name, array in preprocessing.items()}
    found = {name: (array.dtype.newbyteorder("="), array.shape) for name, array in arrays.items()}
    require_arrays(path, variant, len(classes), found, {name: array.shape for name, array in network.items()})
    as_floats(path, network)
    require_preprocessing(path, variant, arrays)
    files.write(path, KIND, {"format": FORMAT, "variant": variant, "classes": list(classes)}, arrays)


def require_variant(path: Path | str, variant: object) -> None:
    """Raise ValueError unless ``variant`` is the name of a network."""
    if variant not in list(VARIANTS):
        raise ValueError(f"{path}: its variant must be one of {', '.join(VARIANTS)}, got {reprlib.repr(variant)}")


def require_classes(where: Path | str, classes: object) -> None:
    """Raise ValueError, naming ``where`` they come from, unless a file can hold these names and return them unchanged.

    Any text is allowed: what would disturb a terminal is escaped when it is shown.
    """
    if not isinstance(classes, list | tuple) or not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"{where}: classes must be a list of at least one string, got {reprlib.repr(classes)}")
    text = json.dumps(classes)
    for name, again in zip(classes, json.loads(text), strict=True):
        if name != again:  # a high and a low surrogate in a row are read back as one character
            raise ValueError(f"{where}: classes must be text, got {name[:99]!r}, in which a character is split into two halves")
    if (length := len(json.dumps(text))) > CLASSES_LIMIT:
        raise ValueError(
            f"{where}: classes must have names that take at most {CLASSES_LIMIT} bytes in a file's header, "
            f"got {len(classes)} that take {length}"
        )


def require_arrays(
    path: Path | str, variant: str, classes: int, found: Found, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> None:
    """Raise ValueError, listing the problems, if names, types or shapes of a file's arrays are not those of the variant.

    Args:
        path: the file.
        variant: which network it is for.
        classes: how many outputs it has.
        found: what the file has.
        shapes: those of all the network's arrays; without them only the first and last layer and the preprocessing are checked.
    """
    seen = VARIANTS[variant]
    known = {FIRST: seen.filters, "classifier.6.weight": (classes, seen.hidden), "classifier.6.bias": (classes,)}
    expected: dict[str, tuple[list[np.dtype[Any]], tuple[int, ...]]]
    expected = {NETWORK + name: (FLOATS, shape) for name, shape in {**(shapes or {}), **known}.items()}
    expected |= {
        PREPROCESSING + "size": ([np.dtype(np.int64)], ()),
        PREPROCESSING + "mirror": ([np.dtype(np.bool_)], ()),
        PREPROCESSING + "mean": ([np.dtype(np.float64)], (seen.in_channels, seen.canvas, seen.canvas)),
        PREPROCESSING + "colour": ([np.dtype(np.float64)], (seen.in_channels, seen.in_channels)),
    }
    problems = []
    for name, (dtypes, shape) in expected.items():
        if name not in found:
            problems.append(f"{name} is missing")
        elif found[name][1] != shape:
            problems.append(f"{name} must have shape {shape}, got {found[name][1]}")
        elif found[name][0] not in dtypes:
            problems.append(f"{name} must be {' or '.join(map(str, dtypes))}, got {found[name][0]}")
    if shapes is not None:
        problems += [f"{name} must not be there" for name in found if name not in expected]
    if problems:
        raise ValueError(f"{path}: must hold the weights of {variant} for {classes} classes, but{files.listed(problems)}")


def require_preprocessing(path: Path | str, variant: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError if the numbers of a file's preprocessing do not fit this variant, or cannot come from pixels."""
    size = int(arrays[PREPROCESSING + "size"])
    if size != VARIANTS[variant].size:
        raise ValueError(f"{path}: preprocessing.size must be {VARIANTS[variant].size}, the images' of {variant}, got {size}")
    for name in ("mean", "colour"):
        low, high = arrays[PREPROCESSING + name].min(), arrays[PREPROCESSING + name].max()
        if not (low >= -PIXELS and high <= PIXELS):  # also catches NaN
            raise ValueError(
                f"{path}: preprocessing.{name} must lie between {-PIXELS} and {PIXELS}, got numbers from {low:g} to {high:g}"
            )


def as_floats(path: Path | str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays in float32; raises ValueError, naming the file and the arrays, if one then has NaN or infinity."""
    with np.errstate(over="ignore"):
        floats = {name: array.astype(np.float32, copy=False) for name, array in arrays.items()}
    bad = [name for name, array in floats.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(f"{path}: all weights must be finite in float32, but there is NaN or infinity in {', '.join(bad)}")
    return floats


def finite_probabilities(path: Path | str, probabilities: np.ndarray) -> np.ndarray:
    """The probabilities that these weights gave; raises ValueError if sums in the network overflowed float32."""
    if not np.isfinite(probabilities).all():
        raise ValueError(f"{path}: its weights are so large that their sums overflow float32, so there are no probabilities")
    return probabilities
