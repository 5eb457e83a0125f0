"""A network's weights in a file, with all that a prediction needs: the variant, the classes, the preprocessing.

Both sides read and write the same files. Such a file may come from anywhere, so nothing in it is believed: every name, type,
shape and value is checked before a network gets to see it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training import files

KIND = "weights"
FORMAT = 1
NETWORK, PREPROCESSING = "network.", "preprocessing."  # what the arrays' names begin with
FLOATS = [np.dtype(name) for name in ("float16", "float32", "float64")]
PREPROCESSING_DTYPES = {"size": "int64", "mirror": "bool", "mean": "float64", "colour": "float64"}


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, of which no array has been read yet.

    Attributes:
        header: what it says it holds.
        variant: which network it is for.
        classes: what the network's outputs stand for.
    """

    header: files.Header
    variant: str
    classes: tuple[str, ...]

    def read(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The network's arrays, float32, which must be these and have these shapes; and those of the preprocessing.

        Raises:
            ValueError: all that is wrong with names, types and shapes, in one message; or a value is not finite.
        """
        found = self.header.arrays
        expected = {NETWORK + name: (FLOATS, shape) for name, shape in shapes.items()}
        problems = []
        for name, dtype in PREPROCESSING_DTYPES.items():
            shape = found.get(PREPROCESSING + name, (None, ()))[1]  # which fit together, data.Preprocessing will see
            expected[PREPROCESSING + name] = ([np.dtype(dtype)], shape)
        for name, (dtypes, shape) in expected.items():
            if name not in found:
                problems.append(f"{name} is missing")
            elif found[name][1] != shape:
                problems.append(f"{name} must have shape {shape}, got {found[name][1]}")
            elif found[name][0] not in dtypes:
                problems.append(f"{name} must be {' or '.join(map(str, dtypes))}, got {found[name][0]}")
        problems += [f"{name} must not be there" for name in found if name not in expected]
        if problems:
            raise ValueError(f"{self.header.path}: must hold the weights of {self.variant}, but\n  " + "\n  ".join(problems))
        arrays = self.header.read()
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is found next
            network = {name: arrays[NETWORK + name].astype(np.float32) for name in shapes}
        require_finite(self.header.path, network)
        return network, {name: arrays[PREPROCESSING + name] for name in PREPROCESSING_DTYPES}


def open_weights(path: Path | str, variants: Collection[str]) -> WeightsFile:
    """Look at a file of weights, for one of these variants.

    Raises:
        ValueError: it is none, is damaged, or what its header says is not possible.
        OSError: it cannot be read.
    """
    header = files.read_header(path, KIND)
    about: dict[str, Any] = header.about
    if about.get("format") != FORMAT:
        raise ValueError(f"{path}: must be weights of format {FORMAT}, got {about.get('format')!r}")
    variant, classes = about.get("variant"), about.get("classes")
    if variant not in list(variants):
        raise ValueError(f"{path}: its variant must be one of {', '.join(variants)}, got {variant!r}")
    if not isinstance(classes, list) or not all(isinstance(name, str) and name.isprintable() for name in classes):
        raise ValueError(f"{path}: its classes must be a list of printable strings")
    # Before a network with so many outputs is made: the file must hold them.
    biases = [shape for name, (_, shape) in header.arrays.items() if name.startswith(NETWORK) and name.endswith("bias")]
    if (len(classes),) not in biases or not classes:
        raise ValueError(f"{path}: must hold as many outputs as classes, got {len(classes)} classes and biases {biases}")
    return WeightsFile(header, variant, tuple(classes))


def save(
    path: Path,
    variant: str,
    classes: Collection[str],
    network: Mapping[str, np.ndarray],
    preprocessing: Mapping[str, np.ndarray],
) -> None:
    """Write the file that :func:`open_weights` opens.

    Raises:
        ValueError: an array is not finite: such weights are of no use to anybody.
        OSError: it cannot be written; what was there before still is.
    """
    require_finite(path, network)
    arrays = {NETWORK + name: array for name, array in network.items()}
    arrays |= {PREPROCESSING + name: array for name, array in preprocessing.items()}
    files.write(path, KIND, {"format": FORMAT, "variant": variant, "classes": list(classes)}, arrays)


def require_finite(path: Path | str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError, naming the file and the arrays, where one holds NaN or infinity."""
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(f"{path}: all weights must be finite, but there is NaN or infinity in {', '.join(bad)}")
