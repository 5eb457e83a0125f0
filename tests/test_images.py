"""Image files: the same pixels however they are stored, and whatever else the file says."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from alexnet_from_scratch.data.images import BrokenImageError, read_image
from tests.stored_images import GREY, STORED, TURNED, H, W, chunk, noise, shown, turned

# --- how it is stored -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", STORED)
def test_turned_tiffs(tmp_path, mode, compression):
    """Pillow 11.3 to 13.0 read uncompressed ones with the wrong width if they open the file themselves."""
    for orientation, turn in TURNED.items():
        path = tmp_path / f"{orientation}.tif"
        STORED[mode][0].save(path, compression=compression, exif=turned(orientation))
        pixels = read_image(path).astype(int)
        expected = turn(shown(mode))
        assert pixels.shape == expected.shape
        assert np.abs(pixels - expected).max() <= (1 if mode in ("LA", "RGBA", "YCbCr") else 0), orientation  # these are rounded


@pytest.mark.parametrize("kind", ["png", "webp", "jpg"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_other_turned_files(tmp_path, mode, kind):
    image = STORED["RGB" if kind == "jpg" else mode][0]
    image.save(tmp_path / f"plain.{kind}", lossless=True)
    for orientation, turn in TURNED.items():
        path = tmp_path / f"{orientation}.{kind}"
        image.save(path, exif=turned(orientation), lossless=True)
        assert np.array_equal(read_image(path), turn(read_image(tmp_path / f"plain.{kind}")))


def png(depth, colour, rows, *chunks):
    """A PNG file with these rows of samples, and chunks before them."""
    samples = np.asarray(rows, ">u2").reshape(len(rows), -1, 1)
    bits = np.unpackbits(samples.view(np.uint8), axis=2)[..., -depth:]
    lines = np.packbits(bits.reshape(len(rows), -1), axis=1)
    filtered = b"".join(b"\0" + line.tobytes() for line in lines)
    across = samples.shape[1] // {2: 3, 4: 2}.get(colour, 1)
    header = struct.pack(">IIBBBBB", across, len(rows), depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_white_at_every_depth(tmp_path, depth):
    most = 2**depth - 1
    rows = np.array([[0, most // 2, most - 1 if depth > 1 else 0], [most // 3, most // 2, 0]])
    key = most // 2
    (tmp_path / "key.png").write_bytes(png(depth, 0, rows, (b"tRNS", struct.pack(">H", key))))
    eight_bits = rows >> 8 if depth == 16 else rows * (255 // most)
    assert np.array_equal(read_image(tmp_path / "key.png"), np.where(rows == key, 255, eight_bits))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_white_at_every_depth(tmp_path, depth):
    key = np.array([0x12, 0x00, 0xFF]) << depth - 8
    rows = np.array([[key, np.add(key, (1, 0, 0))], [key[::-1], np.add(key, (0, 1, 0))]])  # one step away is another colour
    (tmp_path / "key.png").write_bytes(png(depth, 2, rows, (b"tRNS", struct.pack(">3H", *key))))
    expected = rows >> depth - 8
    expected[0, 0] = 255
    assert np.array_equal(read_image(tmp_path / "key.png"), expected)


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_with_alpha_is_grey_at_every_depth(tmp_path, depth):
    grey, alpha = np.array([[0x12, 0x80, 0xFF], [0x00, 0x34, 0x56]]), np.array([[255, 0, 128], [64, 255, 0]])
    rows = np.stack([grey, alpha], axis=2) * (257 if depth == 16 else 1)
    (tmp_path / "alpha.png").write_bytes(png(depth, 4, rows))
    pixels = read_image(tmp_path / "alpha.png")
    assert pixels.shape == grey.shape
    assert np.abs(pixels - (grey * (alpha / 255) + 255 - alpha)).max() <= 1


def test_transparent_palettes(tmp_path):
    palette = noise[0, :4, :3]
    for alphas, white in [(b"\xff\0\xff", [1]), (b"\0\0", [0, 1]), (b"\x80", [])]:
        chunks = [(b"PLTE", palette.tobytes()), (b"tRNS", alphas)]
        (tmp_path / "palette.png").write_bytes(png(2, 3, np.arange(4)[np.newaxis], *chunks))
        expected = palette.astype(int)
        expected[white] = 255
        if not white:
            expected[0] = np.rint(palette[0] * (128 / 255) + 127)
        assert np.abs(read_image(tmp_path / "palette.png")[0] - expected).max() <= 1


def tiff(order, bits, photometric, samples, *, fill=1):
    """An uncompressed TIFF file with one row of grey."""
    packed = np.packbits(np.unpackbits(np.array(samples, ">u2")[:, np.newaxis].view(np.uint8), axis=1)[:, -bits:])
    data = np.array(samples, order + "u2").tobytes() if bits == 16 else packed.tobytes()
    tags = [(256, len(samples)), (257, 1), (258, bits), (259, 1), (262, photometric), (266, fill), (273, 8), (277, 1)]
    tags += [(278, 1), (279, len(data))]
    data += bytes(len(data) % 2)
    directory = struct.pack(order + "H", len(tags)) + b"".join(struct.pack(order + "HHIHH", t, 3, 1, v, 0) for t, v in tags)
    return {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8 + len(data)) + data + directory + bytes(4)


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_grey_tiffs_of_every_depth(tmp_path, bits, white_is_zero):
    """With WhiteIsZero the largest number is black, even with 16 bits, which Pillow does not invert."""
    most = 2**bits - 1
    samples = [0, most, most // 3, most - most // 3]
    eight_bits = np.array(samples) * 255 // most
    for order in "<>":
        (tmp_path / "grey.tif").write_bytes(tiff(order, bits, int(not white_is_zero), samples))
        if (order, bits, white_is_zero) in [(">", 12, False), ("<", 12, True), (">", 12, True), (">", 16, True)]:
            with pytest.raises(BrokenImageError, match="unknown pixel mode"):  # Pillow does not have them
                read_image(tmp_path / "grey.tif")
        else:
            pixels = read_image(tmp_path / "grey.tif")
            assert np.abs(pixels[0] - (255 - eight_bits if white_is_zero else eight_bits)).max() <= 1


@pytest.mark.parametrize("most", [1, 100, 255, 256, 1023, 65535])
@pytest.mark.parametrize("plain", [True, False])
def test_netpbm_of_every_maximum(tmp_path, most, plain):
    samples = np.array([0, 1, most // 3, most // 2, most - 1, most])
    for colours, name in [(1, "grey.pgm"), (3, "colour.ppm")]:
        magic = f"P{(2 if plain else 5) + (colours == 3)}\n2 {3 // colours}\n{most}\n".encode()
        stored = " ".join(map(str, samples)).encode() if plain else samples.astype(">u2" if most > 255 else "u1").tobytes()
        (tmp_path / name).write_bytes(magic + stored)
        pixels = read_image(tmp_path / name)
        assert pixels.shape == ((3, 2) if colours == 1 else (1, 2, 3))
        assert np.abs(pixels.ravel() - samples * 255 / most).max() <= 1


def test_numbers_without_a_white_are_refused(tmp_path):
    for name, array in [("float.tif", np.ones((H, W), np.float32)), ("int.tif", np.ones((H, W), np.int32))]:
        Image.fromarray(array).save(tmp_path / name)
        with pytest.raises(BrokenImageError, match=f"{name} cannot be decoded: its pixels are signed or 32-bit numbers"):
            read_image(tmp_path / name)


def test_of_several_pictures_the_first(tmp_path):
    first, second = (Image.fromarray(GREY).convert("P"), Image.fromarray(255 - GREY).convert("P"))
    for name in ("a.gif", "a.png", "a.tif", "a.webp"):
        first.save(tmp_path / name, save_all=True, append_images=[second], lossless=True)
        pixels = read_image(tmp_path / name)
        assert np.array_equal(pixels, np.repeat(GREY[..., np.newaxis], 3, axis=2)), name
    photographs = [Image.new("RGB", (16, 8), colour) for colour in ("red", "blue")]
    photographs[0].save(tmp_path / "a.mpo", "MPO", save_all=True, append_images=photographs[1:])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert (np.abs(read_image(tmp_path / "a.jpg").astype(int) - [255, 0, 0]) <= 2).all()


# --- what else a file says --------------------------------------------------------------------------------------------

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PROFILE = PROFILE[:24] + bytes(12) + PROFILE[36:]  # without the time at which it was made: it is part of a test's name
BAD_EXIF = [b"", b"II", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"MM\0*\xff\xff\xff\xff", b"\0" * 40, turned(1).tobytes()[:9]]
BAD_CHUNKS = [
    *((b"eXIf", exif) for exif in BAD_EXIF),
    (b"iCCP", b""),
    (b"iCCP", b"name\0\x07" + zlib.compress(PROFILE)),
    (b"iCCP", b"name\0\0no profile"),
    (b"iCCP", b"bomb\0\0" + zlib.compress(bytes(2**22))),
    (b"pHYs", b"\0"),
    (b"pHYs", bytes(9)),
    (b"gAMA", b""),
    (b"cHRM", b"\1\2"),
    (b"sRGB", b""),
    (b"tEXt", b"interlace\0yes"),  # Pillow keeps texts in the dict of the image's properties
    (b"tEXt", b"transparency\0all"),
    (b"tEXt", b"bbox\0none"),
    (b"tEXt", b"icc_profile\0none"),
    (b"tEXt", b"exif\0none"),
    (b"zTXt", b"text\0\x05"),
    (b"zTXt", b"bomb\0\0" + zlib.compress(bytes(2**22))),
    (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='"),
    (b"acTL", b"\0"),
    (b"fcTL", bytes(26)),
]


@pytest.mark.parametrize("added", BAD_CHUNKS, ids=lambda added: f"{added[0].decode()}-{added[1][:12]!r}")
@pytest.mark.parametrize("sound_sum", [True, False])
def test_a_png_is_its_pixels(tmp_path, added, sound_sum):
    whole = png(8, 2, noise[..., :3].astype(int), added)
    at = whole.index(added[0]) + 4 + len(added[1])
    damaged = whole if sound_sum else whole[:at] + b"\0\0\0\0" + whole[at + 4 :]
    (tmp_path / "file.png").write_bytes(damaged)
    assert np.array_equal(read_image(tmp_path / "file.png"), noise[..., :3])
    late = whole.replace(chunk(*added), b"").replace(chunk(b"IEND", b""), chunk(*added))  # after the pixels, and no end chunk
    (tmp_path / "late.png").write_bytes(late)
    assert np.array_equal(read_image(tmp_path / "late.png"), noise[..., :3])


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


BAD_SEGMENTS = [
    *((0xE1, b"Exif\0\0" + exif) for exif in BAD_EXIF),
    (0xE1, b"Exif"),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='"),
    (0xE0, b"JFIF\0"),
    (0xE0, b"JFIF\0\1\2\1\0\0\0\0\0\0"),
    (0xE2, b"ICC_PROFILE\0"),
    (0xE2, b"ICC_PROFILE\0\1\2no profile"),
    (0xE2, b"MPF\0"),
    (0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
    (0xED, b"Photoshop 3.0\0008BIM\x04\x04"),
    (0xED, b"Photoshop 3.0\0008BIM\x03\xed\0\0\0\0\0\x10\0"),
    (0xFE, b"\xff\xfe comment"),
]


@given(added=st.sampled_from(BAD_SEGMENTS) | st.tuples(st.integers(0xE1, 0xED), st.binary(max_size=60)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_jpeg_is_its_pixels(tmp_path, added):
    file = io.BytesIO()
    STORED["RGB"][0].save(file, "JPEG")
    plain = file.getvalue()
    (tmp_path / "plain.jpg").write_bytes(plain)
    (tmp_path / "file.jpg").write_bytes(plain[:2] + segment(*added) + plain[2:])
    assert np.array_equal(read_image(tmp_path / "file.jpg"), read_image(tmp_path / "plain.jpg"))


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("profile", [b"no profile", PROFILE[:200]])
@pytest.mark.parametrize("exif", BAD_EXIF)
def test_bad_profiles_and_exif(tmp_path, kind, profile, exif):
    image = STORED["RGB"][0]
    image.save(tmp_path / f"plain.{kind}", lossless=True)
    if kind == "tif":
        file = tmp_path / "file.tif"
        image.save(file, icc_profile=profile, tiffinfo={34665: 10**9, 34853: 10**9, 282: 0.0, 283: 0.0, 700: exif})
        bad = file.read_bytes().replace(struct.pack("<II", 0, 1), struct.pack("<II", 1, 0))  # resolutions with a zero
        file.write_bytes(bad)
    else:
        image.save(tmp_path / f"file.{kind}", icc_profile=profile, exif=b"Exif\0\0" + exif, lossless=True)
    assert np.array_equal(read_image(tmp_path / f"file.{kind}"), read_image(tmp_path / f"plain.{kind}"))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("tag", [270, 282, 283, 305, 34675])
@pytest.mark.parametrize("wrong", [(2, 9, 2**31), (2, 2**31, 8), (5, 1, 2**32 - 1), (12, 2**32 - 1, 2**32 - 1), (99, 9, 9)])
def test_a_tiff_is_its_pixels(tmp_path, compression, tag, wrong):
    """If a tag's value is beyond the end of the file, Pillow does not read the tags after it."""
    path = tmp_path / "file.tif"
    info = {270: "description", 282: 72.5, 283: 72.5, 305: "software", 34675: bytes(99), 278: 1}
    STORED["RGB"][0].save(path, compression=compression, tiffinfo=info, strip_size=1)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    at = {struct.unpack_from("<H", content, start + 2 + 12 * i)[0]: start + 2 + 12 * i for i in range(count)}
    struct.pack_into("<HII", content, at[tag] + 2, *wrong)
    path.write_bytes(content)
    assert np.array_equal(read_image(path), noise[..., :3])
