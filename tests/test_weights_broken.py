"""Files of weights that are broken, or something else: the message says what they are, at no cost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import scratch.predict
import torch_impl.predict
from alexnet_from_scratch.runs import files, weights
from tests.odd_files import pipe
from tests.weights_files import preprocessing_of, refusal, write_mini, write_unchecked

SIDES: list[Any] = [scratch.predict, torch_impl.predict]
BIAS = "network.classifier.6.bias"


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mini.safetensors"
    write_mini(path)
    return path


def header_of(content: bytes) -> bytes:
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def with_header(content: bytes, header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + content[8 + len(header_of(content)) :]


# Changes to a file's bytes, and the resulting messages.
BROKEN: dict[str, tuple[Any, str]] = {
    "empty": (lambda content: b"", "got an empty file"),
    "cut in the length": (lambda content: content[:5], ""),
    "cut in the header": (lambda content: content[:100], ""),
    "cut in the arrays": (lambda content: content[:-1], ""),
    "grown": (lambda content: content + b"\0", ""),
    "a huge header": (lambda content: (2**39).to_bytes(8, "little") + content[8:], "header"),
    "a header larger than the file": (lambda content: (2**19).to_bytes(8, "little") + content[8:1000], ""),
    "a shape that lies": (lambda content: content.replace(b'"shape":[3]', b'"shape":[9]'), ""),
    "a shape beyond all": (lambda content: content.replace(b'"shape":[3]', b'"shape":[%d]' % 2**63), ""),
    "a negative shape": (lambda content: content.replace(b'"shape":[3]', b'"shape":[-3]'), ""),
    "overlapping arrays": (lambda content: re.sub(rb'"data_offsets":\[(\d+),(\d+)\]', rb'"data_offsets":[0,\2]', content), ""),
    "a name that comes twice": (
        lambda content: with_header(
            content, re.sub(rb'("network.classifier.6.bias":\{[^}]*\})', rb"\1,\1", header_of(content).rstrip())
        ),
        "'network.classifier.6.bias' comes twice",
    ),
    "JSON of ours that comes twice": (
        lambda content: safetensors.numpy.save({"a": np.zeros(3)}, {"weights": '{"format":1,"format":1}'}),
        "'format' comes twice",
    ),
    "brackets without end": (lambda content: with_header(content, b"[" * len(header_of(content))), ""),
    "no JSON of ours": (lambda content: safetensors.numpy.save({"a": np.zeros(3)}), "without 'weights' in its header"),
    "JSON of ours that is none": (lambda content: safetensors.numpy.save({"a": np.zeros(3)}, {"weights": "{"}), "must be JSON"),
    "JSON of ours too deep": (lambda content: safetensors.numpy.save({"a": np.zeros(3)}, {"weights": "[" * 100_000}), "JSON"),
    "a number too long": (
        lambda content: safetensors.numpy.save({"a": np.zeros(3)}, {"weights": '{"a":' + 9999 * "9" + "}"}),
        "JSON",
    ),
    "JSON of ours of another type": (
        lambda content: safetensors.numpy.save({"a": np.zeros(3)}, {"weights": "[]"}),
        "JSON object",
    ),
    "a checkpoint": (lambda content: safetensors.numpy.save({"a": np.zeros(3)}, {"checkpoint": json.dumps({})}), "'weights'"),
    "a pickle": (lambda content: b"\x80\x04cos\nsystem\n(S'exit 1'\ntR.", "got a pickle; .*torch_impl.convert"),
    "torch.save's": (lambda content: b"PK\3\4" + bytes(100), "got a zip archive; .*torch_impl.convert"),
    "a web page": (lambda content: b"<!DOCTYPE html><html></html>", "got a web page"),
    "an answer": (lambda content: b"Repository not found", "got text that begins 'Repository not found'"),
    "Git LFS": (lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "an image": (lambda content: b"\x89PNG\r\n\x1a\n" + bytes(50), r"got bytes that begin b'\\x89PNG"),
    "text for a terminal": (lambda content: b"\x1b[2Jhello", "got bytes that begin"),
}


@pytest.mark.parametrize("side", SIDES, ids=["scratch", "torch_impl"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(mini, tmp_path, side, name):
    path = tmp_path / "broken.safetensors"
    spoil, message = BROKEN[name]
    path.write_bytes(spoil(mini.read_bytes()))
    with pytest.raises(ValueError, match=f"(?s){re.escape(str(path))}.*{message}") as caught:
        side.load(path)
    assert len(str(caught.value)) < 4000
    assert "\x1b" not in str(caught.value)


def test_a_file_that_is_cut_anywhere_is_named(mini, tmp_path):
    content, path = mini.read_bytes(), tmp_path / "cut.safetensors"
    for end in [*range(0, len(header_of(content)) + 64, 64), len(content) // 2]:
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            weights.open_weights(path)


@pytest.fixture(scope="module")
def header_and_place(mini, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int, Path]:
    """A file's bytes, where its header ends, and a path for a damaged copy."""
    content = mini.read_bytes()
    return content, 8 + len(header_of(content)), tmp_path_factory.mktemp("fuzz") / "w"


@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=8))
def test_a_header_with_flipped_bits_opens_or_is_named(header_and_place, flips):
    content, end, path = header_and_place
    spoilt = bytearray(content)
    for place, bit in flips:
        spoilt[int(place * end)] ^= 1 << bit
    path.write_bytes(spoilt)
    if said := refusal(lambda: scratch.predict.load(path)):
        assert said.startswith(str(path))
        assert said.replace("\n", "").isprintable()


@given(
    piece=st.sampled_from([b'"', b"{", b"}", b"[", b"]", b",", b"0", b"-", b"1e9", b"null", b"\\u0000", b"\\ud800", b"\xff"]),
    place=st.floats(0, 1),
)
def test_a_header_with_another_piece_opens_or_is_named(header_and_place, piece, place):
    content, end, path = header_and_place
    at = int(place * (end - 8 - len(piece)))
    header = header_of(content)
    path.write_bytes(with_header(content, header[:at] + piece + header[at + len(piece) :]))
    if said := refusal(lambda: scratch.predict.load(path)):
        assert said.startswith(str(path))
        assert said.replace("\n", "").isprintable()


def test_a_file_that_changes_while_it_is_read_is_named(mini, tmp_path):
    path = tmp_path / "w"
    path.write_bytes(mini.read_bytes())
    file = weights.open_weights(path)
    arrays = file.header.read()
    arrays[BIAS] = arrays[BIAS].astype(np.float64)
    files.write(path, "weights", file.header.about, arrays)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: changed while it was read"):
        file.header.read()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the system does not say how much memory was taken")
@pytest.mark.parametrize("side", ["scratch", "torch_impl"])
def test_no_network_is_made_for_what_a_file_claims(tmp_path, side):
    """A quarter of a megabyte of biases, and a header that claims a last layer for that many classes."""
    path, count = tmp_path / "claims", 120_000
    arrays = {
        f"network.{name}": np.zeros(shape, "f2")
        for name, shape in {"classifier.6.weight": (count, 1), "classifier.6.bias": (count,)}.items()
    }
    arrays |= {f"preprocessing.{name}": array for name, array in preprocessing_of().items()}
    write_unchecked(path, {"format": 1, "variant": "torchvision", "classes": ["x"] * count}, arrays)
    program = f"""
from {side}.predict import load
def peak():  # not ru_maxrss, which begins with what the tests' own process held
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
before = peak()
try:
    load({str(path)!r})
except ValueError as error:
    assert "network.classifier.6.weight must have shape (120000, 4096), got (120000, 1)" in str(error), error
print(peak() - before)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 200 * 2**10  # in KiB; the layer would take 1.8 GiB


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="x: there is no such file"):
        scratch.predict.load(tmp_path / "x")
    with pytest.raises(IsADirectoryError, match=f"{re.escape(str(tmp_path))}: must be a file, got a folder"):
        scratch.predict.load(tmp_path)


@pytest.mark.parametrize("value", [None, 1, True, 1.5, []], ids=type)
def test_weights_are_given_by_their_path(value):
    with pytest.raises(TypeError, match=r"^weights: a file must be given by its path, got "):
        weights.open_weights(value)


def test_a_pipe_is_no_file(tmp_path):
    pipe(tmp_path / "fifo")
    with pytest.raises(OSError, match="fifo: must be a file"):
        scratch.predict.load(tmp_path / "fifo")
