"""Arrays in files: written whole or not at all, and never trusted when read.

The format is safetensors: a header in JSON with each array's type, shape and position, then the bytes. Reading one executes
nothing, no matter who wrote it. The header also holds the other data that belong to the arrays, as JSON in an entry named after
the kind of file. So arrays and data cannot be separated, or mixed up with those of another file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
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

from alexnet_from_scratch.arguments import require_path
from alexnet_from_scratch.paths import naming
from alexnet_from_scratch.signs import PICKLE, SAFETENSORS, ZIP, described
from alexnet_from_scratch.text import shown

# In bytes, for writer and reader. Our headers take a few thousand. The limit leaves room for tens of thousands of long class
# names, and keeps a stranger's header from filling the memory.
HEADER_LIMIT = 2**24
LONG = 200  # bytes of a file's name; most file systems allow 255
# The errors of file systems that can sync only files, such as network drives.
NOT_FOR_FOLDERS = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
}


class NotWholeError(ValueError):
    """A file is not, or is no longer, a whole file of the expected kind."""


@dataclass(frozen=True)
class Header:
    """What a file says it holds. All the arrays' bytes are known to be there; their values have not been checked.

    Attributes:
        path: the file.
        about: the JSON that belongs to the arrays.
        arrays: the dtype and shape of each.
    """

    path: Path
    about: dict[str, Any]
    arrays: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]

    def read(self) -> dict[str, np.ndarray]:
        """All arrays.

        Raises:
            NotWholeError: the file has changed since.
        """
        try:
            with safetensors.safe_open(self.path, framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in self.arrays}
        except safetensors.SafetensorError as error:
            raise NotWholeError(f"{self.path}: changed while it was read: {_brief(error)}") from error
        if {name: (array.dtype, array.shape) for name, array in arrays.items()} != self.arrays:
            raise NotWholeError(f"{self.path}: changed while it was read: other types and shapes than its header had")
        return arrays


def read_header(path: Path | str, kind: str) -> Header:
    """Read what the file holds, but no array yet.

    Args:
        path: a safetensors file.
        kind: what it must be, such as "weights": the name of the header's entry with the JSON.

    Raises:
        NotWholeError: it is not a whole file of that kind, or has arrays of types outside ``DTYPES``.
        OSError: it cannot be read.
        TypeError: ``path`` is not a path.
    """
    require_path(kind, path)
    path = Path(path)
    seems = described(path)
    if seems != SAFETENSORS:
        hint = "; 'python -m torch_impl.convert' converts what torch.save wrote" if seems in (ZIP, PICKLE) else ""
        raise NotWholeError(f"{path}: must be a safetensors file, got {seems}{hint}")
    with naming(path), path.open("rb") as start:
        length = int.from_bytes(start.read(8), "little")
        if length > HEADER_LIMIT:
            raise NotWholeError(f"{path}: must have a header of at most {HEADER_LIMIT} bytes, got one that claims {length}")
        header = start.read(length)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            types = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except safetensors.SafetensorError as error:
        raise NotWholeError(f"{path}: must be a complete safetensors file, got: {_brief(error)}") from error
    _json(path, "its header", header)  # no name may come twice: safetensors takes the last such entry, others the first
    if kind not in metadata:
        raise NotWholeError(
            f"{path}: must be a {kind} file of this project, got a safetensors file without {kind!r} in its header"
        )
    about = _json(path, f"{kind!r} in its header", metadata[kind])
    for name, (dtype, shape) in types.items():
        require_name(path, name)
        if dtype not in DTYPES:
            raise NotWholeError(f"{path}: {name} must be one of {', '.join(DTYPES)}, got {dtype} with shape {shape}")
    return Header(path, about, {name: (DTYPES[dtype], shape) for name, (dtype, shape) in types.items()})


def _json(path: Path, what: str, text: str | bytes) -> dict[str, Any]:
    """The JSON object in the text; no name may occur twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in pairs:
            if name in values:
                raise ValueError(f"{name[:99]!r} comes twice")
            values[name] = value
        return values

    try:
        value = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise NotWholeError(f"{path}: {what} must be JSON, got: {_brief(error)}") from error
    if not isinstance(value, dict):
        raise NotWholeError(f"{path}: {what} must be a JSON object, got {type(value).__name__}")
    return value


def _brief(error: Exception) -> str:
    """A parser's message, shortened, as it may quote a stranger's text."""
    return shown(error)[:300]


def require_name(path: Path, name: str) -> None:
    """Raise NotWholeError if no array in a file can have that name, or the name cannot be shown."""
    if not name.isprintable() or name == "__metadata__":
        raise NotWholeError(f"{path}: the names of arrays must be printable and not '__metadata__', got {name[:99]!r}")


def write(path: Path, kind: str, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file that :func:`read_header` reads. At every moment ``path`` is either the old file or the new one, whole.

    Raises:
        ValueError: it could not be read again: a name or a type is not possible in a file, or the header would be too large.
        OSError: it cannot be written, for example because the disk is full. The old file is still there.
    """
    native = {name: np.require(array, array.dtype.newbyteorder("="), "C") for name, array in arrays.items()}
    for name, array in native.items():
        require_name(path, name)
        if array.dtype not in DTYPES.values():
            raise ValueError(f"{path}: {name} must be one of {', '.join(map(str, DTYPES.values()))}, got {array.dtype}")
    content = safetensors.numpy.save(native, metadata={kind: json.dumps(about)})
    if (length := int.from_bytes(content[:8], "little")) > HEADER_LIMIT:
        raise ValueError(f"{path}: must have a header of at most {HEADER_LIMIT} bytes, got one of {length}")
    write_bytes(path, content)


def write_bytes(path: Path, content: bytes) -> None:
    """Atomically replace the file by one with this content, and return when it is on disk.

    Raises:
        OSError: see :func:`write`.
    """
    name = path.name
    if len(os.fsencode(name)) > LONG:  # the temporary name must not exceed 255 bytes
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    temporary = path.with_name(f".{name}.unfinished")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            if temporary.exists():  # its folder may not exist
                temporary.unlink()
            raise
    except OSError as error:  # the caller does not know about the temporary file
        raise OSError(error.errno, error.strerror, str(path)) from error
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the folder's list of names is on disk. Where the system offers no way to ask for that, do nothing."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in NOT_FOR_FOLDERS:
                raise
        finally:
            os.close(descriptor)


def listed(problems: Sequence[str]) -> str:
    """The problems as lines of an error message. After twelve, the message says only how many more there are."""
    more = len(problems) - 12
    return "".join(f"\n  {problem}" for problem in problems[:12]) + (f"\n  and {more} more" if more > 0 else "")
