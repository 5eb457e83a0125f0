"""IDX files, in which MNIST and its successors come: a magic number, the sizes, then the bytes; here packed by gzip.

Magic number: two zero bytes, the kind of the elements (8 is uint8), the number of axes; every size is 4 bytes, the first the
most significant. Source: the description at the end of LeCun, Cortes and Burges's MNIST page.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

LARGEST = 2**30  # bytes; a damaged header must not make the reader ask for more memory than there is


def read_idx(path: Path, axes: int) -> np.ndarray:
    """The array in a gzipped IDX file, uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not gzipped, not an IDX file of bytes with that many axes, or it has more or fewer bytes than it says.
    """
    try:
        with gzip.open(path) as file:
            header = file.read(4 + 4 * axes)
            expected = bytes([0, 0, 8, axes])
            if header[:4] != expected:
                raise ValueError(f"{path}: magic number must be {expected.hex()}, got {header[:4].hex() or 'an empty file'}")
            if len(header) < 4 + 4 * axes:
                raise ValueError(f"{path} is truncated: it ends in its header")
            sizes = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
            count = math.prod(sizes)
            if count > LARGEST:
                raise ValueError(f"{path}: the sizes in its header must make at most {LARGEST:,} bytes, got {sizes}")
            content = file.read(count + 1)  # the one too many also makes gzip check its sum
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    except EOFError as error:
        raise ValueError(f"{path} is truncated: {error}") from error
    if len(content) != count:
        found = "more" if len(content) > count else f"{len(content):,}"
        raise ValueError(f"{path}: {sizes} in its header means {count:,} bytes, got {found}")
    return np.frombuffer(content, np.uint8).reshape(sizes)
