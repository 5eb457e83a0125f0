"""Read one image file with Pillow. Whatever is wrong with the image raises one kind of error, which names the file."""

from __future__ import annotations

import errno
import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from alexnet_from_scratch.arguments import integer, require_path
from alexnet_from_scratch.packages import optional
from alexnet_from_scratch.paths import kind, naming

# The first bytes of the file formats of photographs. No other format is tried: some of Pillow's readers start other programs.
FORMATS = {
    "Jpeg": rb"\xff\xd8\xff",
    "Png": rb"\x89PNG\r\n\x1a\n",
    "Gif": rb"GIF8[79]a",
    "Bmp": rb"BM",
    "Tiff": rb"II[*+]\0|MM\0[*+]|II\0\*|MM\*\0",
    "WebP": rb"RIFF....WEBP",
    "Ppm": rb"P[1-6]\s",
}
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
)

SWITCH = "ALEXNET_MAX_PIXELS"
MAX_PIXELS = 120_000_000  # enough for hundred-megapixel cameras; a file of one kilobyte can claim many more
SPARE = 3  # Pillow says of reducing_gap: from 3 on, the result looks as if scaled in one step
BAND = 2**18  # pixels that are converted at once

# EXIF's orientation: the step along the stored rows, the step along the columns, and whether to swap the two axes afterwards.
TURNS = {
    2: (1, -1, False),
    3: (-1, -1, False),
    4: (-1, 1, False),
    5: (1, 1, True),
    6: (-1, 1, True),
    7: (-1, -1, True),
    8: (1, -1, True),
}
# The TIFF tags that concern pixels, and the size in bytes of each TIFF type.
TIFF_TAGS = {*range(254, 260), 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, *range(322, 326), 332, 338, 339, 347}
TIFF_TAGS |= {*range(512, 522), *range(529, 533)}  # of JPEG, of YCbCr
TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # grey modes with more than 8 bits
GREY = ("1", "L", "LA", "La", *DEEP)


class BrokenImageError(ValueError):
    """A file that is not an image, is damaged or too large, or cannot become 8-bit grey or colour; the message says which."""


def read_image(path: Path | str, for_size: int | None = None) -> np.ndarray:
    """The image as it is meant to be seen: uint8, (H,W) if it is grey, else (H,W,3).

    The image is rotated upright (EXIF's orientation). Palettes, CMYK, YCbCr and the like become RGB. Transparent parts are drawn
    on white. 16-bit samples keep their upper 8 bits. Of an animation, the first frame is read. Other metadata (profiles, texts,
    resolutions) is ignored, even if it is damaged.

    Args:
        path: of the file.
        for_size: the height and width to which ``data.prepare`` will scale the image. Only the middle square is then returned,
            and a large image is reduced: each k·k pixels become their mean. A reduced image keeps at least ``SPARE`` times
            ``for_size``. Of the k that allow this, from the largest to just over half of it, the one that loses the fewest
            outermost rows is taken.

    Raises:
        BrokenImageError: it is not an image, or is damaged in whatever way; or it has more pixels than the limit, ``MAX_PIXELS``
            or the environment variable ``ALEXNET_MAX_PIXELS``, and is not decoded then.
        TypeError: ``path`` is not a path, or ``for_size`` not an int.
        ValueError: ``for_size`` is below 1, or that variable is not a number of pixels.
        OSError: the system does not let it be read, which says nothing about the image.
        ModuleNotFoundError: Pillow is not installed.
    """
    require_path("read_image", path)
    if for_size is not None:
        for_size = integer("read_image", "for_size", for_size, low=1)
    Image: Any = optional("PIL.Image")
    limit = _limit()
    if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own limit must not act first. It is process-wide, so it is only raised
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, limit)
    try:
        # If Pillow opens the file itself, it memory-maps rotated TIFFs with the wrong width.
        with open(path, "rb", opener=_without_waiting) as file:
            if not file.seekable():
                raise BrokenImageError(f"is {kind(Path(path))}, not a file")
            return _read(Image, file, limit, for_size)
    except Exception as error:  # Pillow's readers raise a dozen kinds for damage, from SyntaxError to struct.error
        # The system says EINVAL where a damaged file leads its reader to a position that no file has.
        if isinstance(error, MemoryError) or getattr(error, "errno", None) not in (None, errno.EINVAL):
            with naming(path):
                raise
        if isinstance(error, BrokenImageError):
            problem = str(error)
        elif isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
            problem = _too_many("more pixels", limit)
        else:
            problem = f"cannot be decoded: {error or type(error).__name__}"
        raise BrokenImageError(f"{path} {problem}") from error


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a named pipe that no process writes to counts as empty, instead of blocking forever."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(descriptor, True)
    return descriptor


def _limit() -> int:
    text = os.environ.get(SWITCH, str(MAX_PIXELS))
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text, re.ASCII):
        raise ValueError(f"{SWITCH} must be a number of pixels, from 1 to {10**18 - 1:,}, got {text!r}")
    return int(text)


def _too_many(found: str, limit: int) -> str:
    return f"has {found}, more than the limit of {limit:,}. If you trust the file, set {SWITCH} to a higher number"


def _read(Image: Any, file: IO[bytes], limit: int, for_size: int | None) -> np.ndarray:
    image = _open(file)
    columns, rows = image.size
    if columns * rows > limit:
        raise BrokenImageError(_too_many(f"{columns:,}×{rows:,} pixels", limit))
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        raise ValueError(f"its pixels are signed or 32-bit numbers (mode {image.mode}), where no value is known to mean white")
    plain = _Plain(Image, image, file)
    image.load()
    columns, rows = image.im.size  # as stored
    down, right, exchanged = _turn(image)
    factor, height, width = 1, rows, columns
    if for_size is not None:
        height = width = min(rows, columns)
        largest = max(1, height // (SPARE * for_size))
        factor = min(range(largest, largest // 2, -1), key=lambda k: height % k)
    height, width = height // factor, width // factor
    # The middle is that of the rotated image. If an odd number of pixels is cut, the larger part is on its right or below.
    top, left = (rows - height * factor + (down < 0)) // 2, (columns - width * factor + (right < 0)) // 2

    out = np.empty((height, width) if plain.grey else (height, width, 3), np.uint8)
    at_once = max(1, BAND // (width * factor**2))
    for first in range(0, height, at_once):
        last = min(first + at_once, height)
        band = plain((left, top + first * factor, left + width * factor, top + last * factor))
        out[first:last] = np.asarray(band.reduce(factor))
    out = out[::down, ::right]
    return out.swapaxes(0, 1) if exchanged else out


def _open(file: IO[bytes]) -> Any:
    """The image in a file. Its header has been read, but no pixel."""
    start = file.read(12)
    file.seek(0)
    for name, beginning in FORMATS.items():
        if re.match(beginning, start, re.DOTALL):
            reader = getattr(optional(f"PIL.{name}ImagePlugin"), f"{name}ImageFile")
            break
    else:
        raise BrokenImageError(f"is not an image in a known format ({', '.join(FORMATS).upper()})")
    exif = None
    if name == "Jpeg":
        file, exif = _bare_jpeg(file)
    if name == "Png":
        file, exif = _bare_png(file)
    if name == "Tiff":
        file = _bare_tiff(file)
    image = reader(file)
    if exif is not None:
        image.info["exif"] = exif
    if name == "Tiff":
        image.load_end = lambda: None  # Pillow's rotates the image, differently in each version, and fails on damaged EXIF
    return image


def _bare_jpeg(file: IO[bytes]) -> tuple[IO[bytes], bytes | None]:
    """A JPEG file reduced to what its pixels need, and its EXIF. Pillow would read the rest too, and fail if it is damaged."""
    bare, exif = io.BytesIO(file.read(2)), None
    bare.seek(2)
    while re.fullmatch(rb"\xff[\xc0-\xcf\xdb-\xfe]", marker := file.read(2)):  # up to the first scan or an unknown marker
        length = file.read(2)
        body = file.read(max(0, int.from_bytes(length, "big") - 2))
        if marker == b"\xff\xe1" and body.startswith(b"Exif\0\0"):
            exif = exif or body
        application = 0xE0 <= marker[1] <= 0xEF or marker[1] == 0xFE  # or a comment
        # The segments of JFIF and Adobe say how the colours are stored. Decoders ignore such a segment if it is too short.
        if not application or re.match(rb"JFIF\0.{9}|Adobe.{7}", body, re.DOTALL):
            bare.write(marker + length + body)
    bare.write(marker + file.read())
    bare.seek(0)
    return bare, exif


def _bare_png(file: IO[bytes]) -> tuple[IO[bytes], bytes | None]:
    """The same for PNG: Pillow keeps texts and the image's properties in one dict, and a text may be called 'interlace'."""
    bare, exif = io.BytesIO(file.read(8)), None
    bare.seek(8)
    while len(head := file.read(8)) == 8:
        kind, body = head[4:], file.read(int.from_bytes(head[:4], "big") + 4)
        if kind == b"eXIf" and zlib.crc32(kind + body[:-4]) == int.from_bytes(body[-4:], "big"):
            exif = body[:-4]
        if kind[0] & 32 == 0 or kind == b"tRNS":  # a capital letter: a chunk that the image needs
            bare.write(head + body)
    bare.seek(0)
    return bare, exif


def _bare_tiff(file: IO[bytes]) -> IO[bytes]:
    """The same for TIFF, but only if the file lacks the value of a tag: Pillow would not read the tags after that one."""
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    version, start = struct.unpack(order + "HI", file.read(6))
    file.seek(start)
    (count,) = struct.unpack(order + "H", file.read(2))
    entries = [struct.unpack(order + "HHII", file.read(12)) for _ in range(count)]
    kept = [entry for entry in entries if entry[0] in TIFF_TAGS]
    sizes = [TIFF_BYTES.get(kind, 0) * n for _, kind, n, _ in entries]
    lost = sum(sizes) > length or any(size > max(4, length - entry[3]) for size, entry in zip(sizes, entries, strict=True))
    file.seek(0)
    if version != 42 or not lost:  # version 43 has wider numbers
        return file
    content = bytearray(file.read())
    directory = struct.pack(order + "H", len(kept)) + b"".join(struct.pack(order + "HHII", *entry) for entry in kept) + bytes(4)
    content[start : start + len(directory)] = directory
    return io.BytesIO(content)


def _turn(image: Any) -> tuple[int, int, bool]:
    try:
        tags = image.tag_v2 if image.format == "TIFF" else image.getexif()
        return TURNS.get(tags.get(0x0112), (1, 1, False))
    except Exception:  # damaged EXIF raises a dozen kinds of error
        return 1, 1, False


class _Plain:
    """Converts a box of an image to 8-bit grey or colour, on white. The converter may be made before the image is loaded."""

    def __init__(self, Image: Any, image: Any, file: IO[bytes]) -> None:
        self.Image, self.image = Image, image
        # Pillow reads 16-bit grey with alpha as colour.
        self.grey = image.mode in GREY or (image.format == "PNG" and image.tile[0][3] == "LA;16B")
        self.bits, self.negative = 16, False
        if image.format == "TIFF" and image.mode in DEEP:
            self.bits = image.tag_v2[258][0]  # BitsPerSample
            self.negative = image.tag_v2.get(262, 0) == 0  # WhiteIsZero; Pillow inverts up to 8 bits itself
        # The sample values that mean a transparent pixel, if the file names any. They have as many bits as the file's samples.
        self.clear = None if image.mode == "P" else image.info.pop("transparency", None)
        self.low = None
        if self.clear is not None and image.format == "PNG":
            rawmode = image.tile[0][3]
            self.clear = np.array(self.clear) * {"L;2": 85, "L;4": 17}.get(rawmode, 1)
            if rawmode == "RGB;16B":  # Pillow keeps the upper bytes only
                file.seek(0)
                self.low = _open(file)
                self.low.tile = [(*self.low.tile[0][:3], "RGB;16L")]

    def __call__(self, box: tuple[int, int, int, int]) -> Any:
        band = self.image.crop(box)
        target = "L" if self.grey else "RGB"
        if band.has_transparency_data:  # an alpha channel, or a palette with alpha
            if band.mode in ("La", "RGBa"):
                band = band.convert(band.mode.upper())
            return self.Image.alpha_composite(self.Image.new("RGBA", band.size, "white"), band.convert("RGBA")).convert(target)
        if band.mode not in DEEP:
            band = band.convert(target)
            if self.clear is None:
                return band
        samples = pixels = np.asarray(band)
        if self.low is not None:
            samples = samples.astype(np.uint16) << 8 | np.asarray(self.low.crop(box))
        if band.mode in DEEP:
            pixels = (samples >> self.bits - 8).astype(np.uint8)
            pixels = ~pixels if self.negative else pixels
        if self.clear is not None:
            clear = samples == self.clear
            pixels = np.where(clear.all(axis=2, keepdims=True) if clear.ndim == 3 else clear, np.uint8(255), pixels)
        return self.Image.fromarray(pixels)
