"""IDX files, the format of MNIST and its successors: a magic number, the sizes, then the bytes; gzipped or not.

Magic number: two zero bytes, the kind of the elements (8 is uint8), the number of axes; every size is 4 bytes, most significant
first. Source: the description at the end of LeCun, Cortes and Burges's MNIST page.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from alexnet_from_scratch.arguments import integer, require_path
from alexnet_from_scratch.signs import require_file, seems
from alexnet_from_scratch.text import shown

LARGEST = 2**30  # bytes; a damaged header must not make the reader ask for more memory than there is
PIECE = 2**20  # bytes read at a time, so that bytes that the header claims but the file lacks take no memory
GZIP = b"\x1f\x8b"  # the first bytes of a gzip file


def read_idx(path: Path | str, axes: int) -> np.ndarray:
    """The array in an IDX file, uint8. The first bytes, not the name, show whether it is gzipped.

    Raises:
        OSError: there is no such file, it is no file, or it cannot be read.
        TypeError: ``path`` is not a path, or ``axes`` not an int.
        ValueError: it is not an IDX file of bytes with that many axes, has more or fewer bytes than it says, or is damaged.
    """
    require_path("read_idx", path)
    axes = integer("read_idx", "axes", axes, low=1)
    path, name = Path(path), shown(path)
    require_file(path)  # opening a pipe might wait forever
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
            file.seek(0)
            if not packed:
                return _read(file, name, axes)
            with gzip.open(file) as unpacked:
                return _read(unpacked, name, axes)
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name} is not a complete gzip file: {error}") from error
    except EOFError as error:
        raise ValueError(f"{name} is truncated: {error}") from error


def _read(file: BinaryIO | gzip.GzipFile, name: str, axes: int) -> np.ndarray:
    header = file.read(4 + 4 * axes)
    expected = bytes([0, 0, 8, axes])
    if header[:4] != expected:
        found = header[:4].hex()
        raise ValueError(f"{name}: magic number must be {expected.hex()}, got {f'{found}, ' if found else ''}{seems(header)}")
    if len(header) < 4 + 4 * axes:
        raise ValueError(f"{name} is truncated: it ends in its header")
    sizes = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
    count = math.prod(sizes)
    if count > LARGEST:
        raise ValueError(f"{name}: the sizes in its header must make at most {LARGEST:,} bytes, got {sizes}")
    content = bytearray()
    # Asking for one byte more than there should be also makes gzip verify its checksum.
    while piece := file.read(min(PIECE, count + 1 - len(content))):
        content += piece
    if len(content) != count:
        found = "more" if len(content) > count else f"{len(content):,}"
        raise ValueError(f"{name}: {sizes} in its header means {count:,} bytes, got {found}")
    array = np.frombuffer(content, np.uint8).reshape(sizes)
    array.setflags(write=False)
    return array
