"""Large images: the limit in pixels, memory, and the reduction by a whole factor while a file is read."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import scratch.data
import torch_impl.data
from alexnet_from_scratch.data.datasets import open_dataset, photographs
from alexnet_from_scratch.data.images import MAX_PIXELS, SWITCH, BrokenImageError, read_image
from alexnet_from_scratch.xray import photo
from tests.stored_images import STORED, TURNED, H, W, chunk, turned

# --- how large it may be ----------------------------------------------------------------------------------------------


def files_of_every_kind(folder, image):
    for name in ("a.png", "a.jpg", "a.gif", "a.bmp", "a.tif", "a.webp", "a.ppm", "turned.tif"):
        image.save(folder / name, **({"exif": turned(6)} if name == "turned.tif" else {}))
        yield folder / name


def test_pixels_are_counted_before_they_are_decoded(tmp_path, monkeypatch):
    for path in files_of_every_kind(tmp_path, STORED["RGB"][0]):
        monkeypatch.setenv(SWITCH, str(H * W))
        assert read_image(path).size == 3 * H * W
        monkeypatch.setenv(SWITCH, str(H * W - 1))
        content = path.read_bytes()
        if path.suffix in (".png", ".bmp", ".ppm"):
            path.write_bytes(content[:60])  # there is nothing to decode
        with pytest.raises(BrokenImageError, match=rf"{path.name} has [57]×[57] pixels, more than the limit of 34.*{SWITCH}"):
            read_image(path)


@pytest.mark.parametrize("side", [11_000, 13_370, 50_000, 2**31 - 1])
def test_bombs_are_refused_without_pillows_warnings(tmp_path, side):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9))))
    (tmp_path / "bomb.ppm").write_bytes(f"P5 {side} {side} 255\n".encode())
    for path in tmp_path.iterdir():
        with pytest.raises(BrokenImageError, match=f"has {side:,}×{side:,} pixels, more than the limit of {MAX_PIXELS:,}"):
            read_image(path)


def test_the_switch_goes_beyond_pillows_own_limit(tmp_path, monkeypatch):
    for path in files_of_every_kind(tmp_path, Image.fromarray(np.zeros((40, 60, 3), np.uint8))):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        monkeypatch.setenv(SWITCH, "2400")
        assert read_image(path).size == 7200
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        monkeypatch.setenv(SWITCH, "1000")  # Pillow's own count, in some of its readers, is more than twice that
        with pytest.raises(BrokenImageError, match=f"{path.name} has .* pixels, more than the limit of 1,000.*{SWITCH}"):
            read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setenv(SWITCH, "2400")
    read_image(path)
    assert Image.MAX_IMAGE_PIXELS is None


@pytest.mark.parametrize("value", ["", "0", "-5", "1e8", "many", "100_000", " 5", "٥", "9" * 5000])
def test_the_switch_is_checked(tmp_path, monkeypatch, value):
    STORED["RGB"][0].save(tmp_path / "a.png")
    monkeypatch.setenv(SWITCH, value)
    with pytest.raises(ValueError, match=f"{SWITCH} must be a number of pixels, from 1 to .*, got '{value}'") as raised:
        read_image(tmp_path / "a.png")
    assert not isinstance(raised.value, BrokenImageError)  # skip_broken would leave those out one after the other


@pytest.mark.parametrize("module", ["scratch", "torch_impl"])
def test_predict_says_what_to_set(tmp_path, module):
    STORED["RGB"][0].save(tmp_path / "a.png")
    weights = "alexnet_from_scratch/networks/mini-fashion-mnist/weights.safetensors"
    command = [sys.executable, "-m", f"{module}.predict", str(tmp_path / "a.png"), "--weights", weights]
    run = subprocess.run(command, env=os.environ | {SWITCH: "9"}, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert re.search(f"a.png has 7×5 pixels, more than the limit of 9.*{SWITCH}", run.stderr)


def test_a_bomb_is_skipped_and_a_bad_switch_is_not(tmp_path, monkeypatch):
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        STORED["RGB"][0].save(tmp_path / part / "a" / "small.png")
    Image.new("L", (2 * W, H)).save(tmp_path / "train/a/large.png")
    monkeypatch.setenv(SWITCH, str(H * W))
    dataset = open_dataset("imagefolder", tmp_path, skip_broken=True)
    assert (len(dataset.train), len(dataset.test)) == (1, 1)
    assert "large.png has 14×5 pixels" in dataset.train.skipped[0]
    monkeypatch.setenv(SWITCH, "none")
    with pytest.raises(ValueError, match=f"{SWITCH} must be"):
        open_dataset("imagefolder", tmp_path, skip_broken=True)


MEASURE = """
import sys
from alexnet_from_scratch.data.images import read_image

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

read_image(sys.argv[2])  # all is imported
before = status("VmRSS")
for for_size in (28, None):
    size = read_image(sys.argv[1], for_size).size
    print(status("VmHWM") - before, size)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the system does not say how much memory was taken")
@pytest.mark.parametrize("name", ["L.png", "LA.png", "RGBA.png", "RGB.jpg", "P.gif", "I;16.png", "RGBA.tif", "turned.tif"])
def test_memory_is_what_pillow_decodes_to_and_the_result(tmp_path, name):
    mode, _, kind = name.partition(".")
    image = Image.new("RGB" if mode in ("turned", "P") else mode, (4000, 2500))
    image.putpixel((1, 1), 1 if mode in ("L", "I;16") else (1, 2, 3, 4)[: len(image.getbands())])
    path, small = tmp_path / f"large.{kind}", tmp_path / f"small.{kind}"
    image.save(path, **({"exif": turned(6)} if mode == "turned" else {}))
    image.crop((0, 0, 300, 300)).save(small)
    command = [sys.executable, "-c", MEASURE, str(path), str(small)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    decoded = 4000 * 2500 * {"L": 1, "P": 1, "I;16": 2}.get(mode, 4)  # Pillow uses four bytes for a pixel of several samples
    for line in run.stdout.splitlines():
        taken, result = map(int, line.split())
        assert taken <= decoded + result + 2**24  # some for the rows being processed


# --- reduced by a whole factor ----------------------------------------------------------------------------------------


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    for_size=st.integers(1, 9),
    orientation=st.sampled_from(list(TURNED)),
    colours=st.sampled_from([(), (3,), (4,)]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_reduced_pixel_is_a_mean(tmp_path, height, width, for_size, orientation, colours, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *colours), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=turned(orientation))
    whole = read_image(tmp_path / "a.png")
    side = min(height, width)
    largest = max(1, side // (3 * for_size))
    factor = min((k for k in range(1, largest + 1) if 2 * k > largest), key=lambda k: (side % k, -k))
    kept = side // factor
    top, left = ((length - kept * factor) // 2 for length in whole.shape[:2])
    square = whole[top : top + kept * factor, left : left + kept * factor]
    means = square.reshape(kept, factor, kept, factor, -1).mean(axis=(1, 3)).reshape(kept, kept, *whole.shape[2:])
    reduced = read_image(tmp_path / "a.png", for_size)
    assert reduced.dtype == np.uint8
    assert np.abs(reduced - means).max() <= (0 if factor == 1 else 0.5 + 1 / factor**2)  # Pillow's halves are not exact
    Image.fromarray(reduced).save(tmp_path / "again.png")
    assert np.array_equal(read_image(tmp_path / "again.png", for_size), reduced)  # a saved example says the same


@pytest.mark.parametrize("size", [28, 90])
def test_reducing_first_keeps_the_picture(tmp_path, size):
    """Large photographs, scaled by hand after they were reduced, and in one step."""
    path = tmp_path / "large.png"
    for name in ("astronaut", "coffee", "retina"):
        image = Image.fromarray(photographs()[name])
        image.resize((10 * size, 10 * size * image.height // image.width)).save(path)
        reduced, whole = scratch.data.prepare(read_image(path, size), size), scratch.data.prepare(read_image(path), size)
        assert np.abs(reduced - whole).mean() < 1
        assert np.abs(reduced - torch_impl.data.prepare(read_image(path, size), size).numpy()).max() < 1e-10


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "LA"])
def test_the_xray_reads_what_the_networks_read(tmp_path, mode):
    STORED[mode][0].save(tmp_path / "a.png", exif=turned(6))
    expected = scratch.data.prepare(read_image(tmp_path / "a.png"))
    assert np.array_equal(photo.load(tmp_path / "a.png", None).image, expected)
