"""Image files as they usually are: their pixels, and a clear message for those that are broken."""

from __future__ import annotations

import struct
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet_from_scratch.data.images import BrokenImageError, read_image

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def in_colour():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8))


def test_pixels_are_as_stored(tmp_path):
    for name, image, expected in [
        ("grey.png", Image.fromarray(RAMP), RAMP),
        ("colour.png", in_colour(), np.asarray(in_colour())),
        ("palette.png", in_colour().quantize(48), np.asarray(in_colour().quantize(48).convert("RGB"))),
        ("bits.png", Image.fromarray(RAMP > 99), np.where(RAMP > 99, 255, 0)),
        ("deep.png", Image.fromarray(RAMP.astype(np.uint16) * 257), RAMP),
        ("deep.tif", Image.fromarray(RAMP.astype(np.uint16) * 257), RAMP),
        ("grey.gif", Image.fromarray(RAMP), np.repeat(RAMP[..., np.newaxis], 3, axis=2)),
        ("colour.webp", in_colour(), None),
        ("ink.jpg", Image.new("CMYK", (8, 6), (0, 255, 255, 0)), np.broadcast_to(np.array([255, 0, 0], np.uint8), (6, 8, 3))),
        ("colour.jpg", Image.new("RGB", (8, 6), (200, 100, 50)), np.broadcast_to(np.array([200, 100, 50], np.uint8), (6, 8, 3))),
        ("video.tif", Image.new("RGB", (8, 6), (200, 100, 50)).convert("YCbCr"), None),
    ]:
        image.save(tmp_path / name, lossless=True) if name.endswith("webp") else image.save(tmp_path / name)
        pixels = read_image(tmp_path / name)
        assert pixels.dtype == np.uint8
        assert pixels.shape in ((6, 8), (6, 8, 3)), name
        if expected is not None:
            assert np.abs(pixels.astype(int) - expected).max() <= (2 if name.endswith("jpg") else 0), name


def test_what_is_transparent_is_white(tmp_path):
    clear = np.zeros((6, 8), np.uint8)
    clear[:, 4:] = 255
    for name, channels in [("colour.png", [RAMP] * 3), ("grey.png", [RAMP])]:
        Image.fromarray(np.dstack([*channels, clear])).save(tmp_path / name)
        pixels = read_image(tmp_path / name)
        assert pixels.ndim == (2 if name == "grey.png" else 3)
        assert (pixels[:, :4] == 255).all()
        assert (pixels[:, 4:].reshape(6, 4, -1) == RAMP[:, 4:, np.newaxis]).all()
    palette = Image.fromarray(RAMP).convert("P")
    palette.save(tmp_path / "palette.png", transparency=0)
    assert (read_image(tmp_path / "palette.png")[0, 0] == 255).all()


@pytest.mark.parametrize(
    ("orientation", "turned"), [(1, RAMP), (2, RAMP[:, ::-1]), (3, RAMP[::-1, ::-1]), (6, np.rot90(RAMP, -1))]
)
def test_exif_orientation(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(RAMP).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), turned)


def broken_images(folder):
    """Every sort of broken image, and what the message says."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.save(folder / "whole.jpg")
    noise.save(folder / "whole.png")
    jpeg, png = (folder / "whole.jpg").read_bytes(), (folder / "whole.png").read_bytes()
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 1
    Image.fromarray(RAMP.astype(np.float32)).save(folder / "float.tif")
    Image.fromarray(RAMP.astype(np.int32)).save(folder / "int.tif")
    (folder / "vector.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name, content in [
        ("empty.jpg", b""),
        ("text.jpg", b"<html>404</html>"),
        ("cut.jpg", jpeg[: len(jpeg) // 2]),
        ("header.jpg", jpeg[:20]),
        ("cut.png", png[: len(png) // 2]),
        ("flipped.png", bytes(flipped)),
        ("bomb.ppm", b"P5 60000 60000 255\n"),
    ]:
        (folder / name).write_bytes(content)
    return {
        "empty.jpg": "is not an image in a known format",
        "text.jpg": "is not an image in a known format",
        "vector.png": "is not an image in a known format",
        "header.jpg": "is not an image in a known format|cannot be decoded",
        "cut.jpg": "cannot be decoded: .*truncated",
        "cut.png": "cannot be decoded: .*truncated",
        "flipped.png": "cannot be decoded: broken",
        "bomb.ppm": "has 60,000×60,000 pixels, more than the limit of",
        "float.tif": r"cannot be decoded: its pixels are signed or 32-bit numbers \(mode F\)",
        "int.tif": r"cannot be decoded: its pixels are signed or 32-bit numbers \(mode I\)",
    }


@pytest.mark.parametrize("value", [None, 1, True, 1.5, [], RAMP], ids=type)
def test_an_image_is_given_by_its_path(value):
    """An int would be an open file, which would be closed."""
    with pytest.raises(TypeError, match=r"^read_image: a file must be given by its path, got "):
        read_image(value)


def test_broken_images_are_named(tmp_path):
    for name, message in broken_images(tmp_path).items():
        with pytest.raises(BrokenImageError, match=f"{name} ({message})"):
            read_image(tmp_path / name)


def test_what_the_system_refuses_is_not_a_broken_image(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "absent.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


@given(suffix=st.sampled_from(["png", "jpg", "gif", "bmp", "tif", "webp"]), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_an_image_or_a_broken_one(tmp_path, suffix, data):
    path = tmp_path / f"image.{suffix}"
    in_colour().save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about some damage, and about large images
        try:
            read: Any = read_image(path)
        except BrokenImageError as error:
            read = str(error)
    if isinstance(read, str):
        assert str(path) in read
    else:
        assert read.dtype == np.uint8
        assert read.ndim == 2 or read.shape[2:] == (3,)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("position", [2**62, 2**63 - 2**16, 2**63])
def test_a_position_that_no_file_has_is_damage_and_no_error_of_the_system(tmp_path, order, position):
    """A TIFF with 64-bit numbers whose directory is beyond all files: seeking there is an OSError, with an errno."""
    (tmp_path / "far.tif").write_bytes(struct.pack(f"{order}2sHHHQ", b"II" if order == "<" else b"MM", 43, 8, 0, position))
    with pytest.raises(BrokenImageError, match=r"far\.tif cannot be decoded: "):
        read_image(tmp_path / "far.tif")
