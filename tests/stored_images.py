"""Small images in every mode, and the pixels that they show."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

H, W = 5, 7
noise = np.random.default_rng(0).integers(0, 256, (H, W, 4), np.uint8)
ON_WHITE = np.rint(noise[..., :3] * (noise[..., 3:] / 255) + (255 - noise[..., 3:])).astype(int)
GREY, DEEP = noise[..., 0], (noise[..., 0].astype(np.uint16) << 8) + noise[..., 1]

# For each mode, the image and the pixels that it shows.
STORED = {
    "1": (Image.fromarray(GREY > 99), np.where(GREY > 99, 255, 0)),
    "L": (Image.fromarray(GREY), GREY),
    "LA": (Image.fromarray(noise[..., [0, 3]]), ON_WHITE[..., 0]),
    "P": (Image.fromarray(noise[..., :3]).quantize(8), None),
    "PA": (Image.fromarray(noise[..., :3]).quantize(8).convert("PA"), None),
    "RGB": (Image.fromarray(noise[..., :3]), noise[..., :3]),
    "RGBA": (Image.fromarray(noise), ON_WHITE),
    "CMYK": (Image.frombytes("CMYK", (W, H), noise.tobytes()), None),
    "YCbCr": (Image.fromarray(noise[..., :3]).convert("YCbCr"), None),
    "I;16": (Image.fromarray(DEEP), GREY),
    "I;16B": (Image.frombytes("I;16B", (W, H), DEEP.astype(">u2").tobytes()), GREY),
}
TURNED: dict[int, Any] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def shown(mode):
    """The pixels of ``STORED``; where they are None, Pillow's pixels of the image in memory, without a file."""
    image, pixels = STORED[mode]
    return np.asarray(image.convert("RGB")) if pixels is None else pixels


def chunk(kind, body):
    """A chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
