"""Arrays in files: written as a unit or not at all, and read without trust.

The format is safetensors: a header in JSON that names each array's type, shape and place, then the bytes. Reading one executes
nothing, whoever wrote it. What else belongs to the arrays stands in the header too, as JSON in an entry named after what the
file is, so that the two cannot be parted or paired with another file's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

try:
    import safetensors
    import safetensors.numpy
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "safetensors, the format of weights and checkpoints, is not installed: pip install 'alexnet-from-scratch[train]'"
    ) from error

HEADER_LIMIT = 2**20  # bytes; those of ours take a few thousand, and one from a stranger is not to fill the memory
DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
}


class NotWholeError(ValueError):
    """A file is not, or is no longer, of the kind that it should be."""


@dataclass(frozen=True)
class Header:
    """What a file says it holds; that the arrays' bytes are all there has been checked, their values have not.

    Attributes:
        path: the file.
        about: the JSON that belongs to the arrays.
        arrays: dtype and shape of each.
    """

    path: Path
    about: dict[str, Any]
    arrays: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]

    def read(self) -> dict[str, np.ndarray]:
        """All arrays.

        Raises:
            NotWholeError: the file is no longer what it was.
        """
        try:
            with safetensors.safe_open(self.path, framework="numpy") as file:
                return {name: file.get_tensor(name) for name in self.arrays}
        except safetensors.SafetensorError as error:
            raise NotWholeError(f"{self.path}: changed while it was read: {error}") from error


def read_header(path: Path | str, kind: str) -> Header:
    """What the file holds, before any array is read.

    Args:
        path: a safetensors file.
        kind: what it must be, such as "weights": the name of the header's entry with the JSON.

    Raises:
        NotWholeError: it is no whole file of that kind, or has arrays of other types than ``DTYPES``.
        OSError: it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    with path.open("rb") as start:
        length = int.from_bytes(start.read(8), "little")
    if length > HEADER_LIMIT:
        raise NotWholeError(f"{path}: must be a safetensors file, got one whose header claims {length} bytes")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            types = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except safetensors.SafetensorError as error:
        raise NotWholeError(f"{path}: must be a whole safetensors file, got: {error}") from error
    if kind not in metadata:
        raise NotWholeError(
            f"{path}: must be a {kind} file of this project, got a safetensors file without {kind!r} in its header"
        )
    try:
        about = json.loads(metadata[kind])
    except (ValueError, RecursionError) as error:
        raise NotWholeError(f"{path}: {kind!r} in its header must be JSON, got: {error}") from error
    if not isinstance(about, dict):
        raise NotWholeError(f"{path}: {kind!r} in its header must be a JSON object, got {type(about).__name__}")
    for name, (dtype, shape) in types.items():
        if dtype not in DTYPES:
            raise NotWholeError(f"{path}: {name} must be one of {', '.join(DTYPES)}, got {dtype} with shape {shape}")
    return Header(path, about, {name: (DTYPES[dtype], shape) for name, (dtype, shape) in types.items()})


def write(path: Path, kind: str, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file that :func:`read_header` reads. At any moment ``path`` is the old file or the new one, whole.

    Raises:
        OSError: it cannot be written, for want of space for example. What was there before is still there.
    """
    contiguous = {name: np.require(array, requirements="C") for name, array in arrays.items()}
    write_bytes(path, safetensors.numpy.save(contiguous, metadata={kind: json.dumps(about)}))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file by one with this content, at once, and return when the disk has it.

    Raises:
        OSError: see :func:`write`.
    """
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the disk has the folder's list of names; where folders cannot be opened there is nothing to do."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
