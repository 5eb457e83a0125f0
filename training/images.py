"""One image file to pixels, by Pillow; whatever is wrong with it ends in one kind of error that names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from training.data_packages import optional

# What photographs come in. Others are not even tried: some of Pillow's readers start other programs.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
)


class BrokenImageError(ValueError):
    """A file that is no image, is damaged, or whose pixels cannot be had as 8-bit grey or colour; the message says which."""


def read_image(path: Path | str) -> np.ndarray:
    """The image as it is meant to be seen: uint8, (H,W) if it is grey, else (H,W,3).

    Turned as its camera held it (EXIF's orientation); palettes, CMYK, YCbCr and the like become RGB; what is transparent is laid
    on white; of 16-bit grey the upper 8 bits are kept; of an animation the first picture.

    Raises:
        BrokenImageError: it is no image, or damaged, whatever the damage.
        OSError: the system does not let it be read, which says nothing of the image.
        ModuleNotFoundError: Pillow is not installed.
    """
    Image, ImageOps = optional("PIL.Image", "Pillow"), optional("PIL.ImageOps", "Pillow")
    UnidentifiedImageError = optional("PIL", "Pillow").UnidentifiedImageError
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
            return _pixels(Image, ImageOps.exif_transpose(image))
    except Exception as error:  # of damage Pillow's readers raise a dozen kinds, from SyntaxError to struct.error
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise
        if isinstance(error, UnidentifiedImageError):
            raise BrokenImageError(f"{path} is not an image in a known format ({', '.join(FORMATS)})") from error
        raise BrokenImageError(f"{path} cannot be decoded: {error or type(error).__name__}") from error


def _pixels(Image: Any, image: Any) -> np.ndarray:
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N"):
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}), of which none is known to be white")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return np.asarray(Image.alpha_composite(white, with_alpha).convert("L" if image.mode in ("LA", "La", "L") else "RGB"))
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
