"""What is accepted for writing opens again unchanged; what would not is refused before a run begins."""

from __future__ import annotations

import importlib
import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import torch_impl.train
from alexnet_from_scratch.data import datasets
from alexnet_from_scratch.runs import files, weights
from alexnet_from_scratch.runs.options import Options
from tests.weights_files import network_of, preprocessing_of, refusal

ORDINARY = [
    "a\u00a0b",  # a no-break space
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a joiner
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family: three and their joiners
    "\u5bff\u3000\u53f8",  # with an ideographic space
    "a\tb",
    "a\nb",
    "\ufeffa",
    "\u202eabc",
    "",
    " ",
    "\x1b[2J",
    "\x00",
    "\x7f\x85\u2028",
    "caf\udce9",  # a folder's name that is not UTF-8
    "\ud83d",
    "$5_$ [bold]{x}%s\\",
    "n" * 255,
]


def test_every_text_is_a_name(tmp_path):
    network = network_of(len(ORDINARY))
    weights.require_classes("here", ORDINARY)
    weights.save(tmp_path / "w", "mini", ORDINARY, network, preprocessing_of())
    assert weights.open_weights(tmp_path / "w").classes == tuple(ORDINARY)


NAMES = st.text(st.characters(), max_size=30) | st.sampled_from(ORDINARY)
FLOATS = st.sampled_from(["f2", "f4", "f8", ">f4", ">f8", "i4", "c8"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_what_is_accepted_for_writing_opens_again(tmp_path, data):
    classes = data.draw(st.lists(NAMES, max_size=20) | st.integers(1, 2000).map(lambda count: [str(i) for i in range(count)]))
    outputs = data.draw(st.just(len(classes)) | st.integers(0, 3))
    numbers = st.sampled_from([0.0, 1.0, -0.0, 1e-45, 6e4, 3e38, 1e300, math.inf, math.nan])
    network = {name: np.full(array.shape, data.draw(numbers)) for name, array in network_of(outputs).items()}
    if data.draw(st.integers(0, 9)) == 0:
        network["classifier.6.weight"] = np.ones((outputs, 4096))
    shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)
    for name in data.draw(st.lists(NAMES | st.sampled_from(["features.0.weight", "classifier.6.bias"]), max_size=3)):
        network[name] = np.full(data.draw(shapes), data.draw(numbers))
    with np.errstate(all="ignore"):
        network = {name: array.astype(data.draw(st.just("f4") | FLOATS)) for name, array in network.items()}
    if data.draw(st.booleans()):
        network = {name: array[..., ::-1] if array.ndim else array for name, array in network.items()}
    with np.errstate(all="ignore"):
        preprocessing = preprocessing_of(
            data.draw(st.sampled_from([28, 28, 28, 8])),
            data.draw(st.just(9.0) | numbers),
            data.draw(st.sampled_from(["f8", "f8", "f4"])),
        )
    path = tmp_path / "w"
    known = refusal(lambda: weights.require_classes(path, classes))
    said = refusal(lambda: weights.save(path, "mini", classes, network, preprocessing))
    if said:
        assert said.startswith(str(path))
        assert list(tmp_path.iterdir()) == []
        return
    assert not known  # nothing fails at the end of a run that could have failed at its start
    file = weights.open_weights(path)
    arrays, numbers_of_pixels = file.read({name: array.shape for name, array in network.items()})
    path.unlink()
    assert (file.variant, file.classes) == ("mini", tuple(classes))
    for name, array in network.items():
        assert np.array_equal(arrays[name], array.astype(np.float32))
    assert all(np.array_equal(numbers_of_pixels[name], array) for name, array in preprocessing.items())


@pytest.mark.parametrize(
    "classes",
    [
        [],
        None,
        "abc",
        ["a", 1],
        [b"a"],
        ["\ud83d\ude00"],  # two halves of a character, which every reader joins
        [f"{i:06}" + 249 * "\u00e4" for i in range(20_000)],
    ],
    ids=["none", "None", "a string", "a number", "bytes", "halves", "too many and too long"],
)
def test_names_that_no_file_can_keep_are_known_before_training(tmp_path, classes):
    with pytest.raises(ValueError, match="here: classes must") as caught:
        weights.require_classes("here", classes)
    assert len(str(caught.value)) < 500
    with pytest.raises(ValueError, match="classes must"):
        weights.save(tmp_path / "w", "mini", classes, {}, preprocessing_of())
    assert list(tmp_path.iterdir()) == []


def test_tens_of_thousands_of_long_names_are_kept(tmp_path):
    classes = [f"n{i:08} " + 150 * "x" for i in range(40_000)]
    network = network_of(40_000, "float16")
    weights.save(tmp_path / "w", "mini", classes, network, preprocessing_of())
    assert weights.open_weights(tmp_path / "w").classes == tuple(classes)


@pytest.mark.parametrize("side", ["scratch", "torch_impl"])
def test_a_run_knows_its_names_before_it_begins(tmp_path, monkeypatch, side):
    """Not after hours of training: the first step is not taken."""
    classes = ("\ud83d\ude00", "b")
    split = datasets.Split(np.arange(8) % 2, lambda i: np.full((28, 28), i, np.uint8))
    module = importlib.import_module(f"{side}.train")
    monkeypatch.setattr(module, "open_dataset", lambda *_, **__: datasets.Dataset("digits", classes, False, split, split))
    options = {"scratch": Options, "torch_impl": torch_impl.train.TorchOptions}[side](out=str(tmp_path / "run"), max_steps=1)
    with pytest.raises(ValueError, match="classes must"):
        module.train(options)
    assert not (tmp_path / "run").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    about=st.dictionaries(st.text(), st.text() | st.integers() | st.none()),
    arrays=st.dictionaries(
        st.text(st.characters(), max_size=9) | st.just("__metadata__"),
        st.tuples(
            st.lists(st.integers(0, 3), max_size=4),
            st.sampled_from(["f2", "f4", "f8", ">f4", "i8", ">i8", "?", "i4", "u1", "c8", "U3", "O", "M8[s]"]),
        ),
        max_size=4,
    ),
)
def test_any_arrays_that_are_written_are_read(tmp_path, about, arrays):
    made = {name: np.arange(math.prod(shape)).reshape(shape).astype(dtype) for name, (shape, dtype) in arrays.items()}
    path = tmp_path / "file"
    if said := refusal(lambda: files.write(path, "kind", about, made)):
        assert said.startswith(str(path))
        assert list(tmp_path.iterdir()) == []
        readable = ["f2", "f4", "f8", ">f4", "i8", ">i8", "?"]
        assert any(
            not name.isprintable() or name == "__metadata__" or dtype not in readable for name, (_, dtype) in arrays.items()
        )
        return
    header = files.read_header(path, "kind")
    read = header.read()
    path.unlink()
    assert header.about == about
    assert read.keys() == made.keys()
    for name, array in made.items():
        assert read[name].shape == array.shape == header.arrays[name][1]
        assert read[name].dtype == array.dtype.newbyteorder("=") == header.arrays[name][0]
        assert np.array_equal(read[name], array)


def test_a_header_that_would_not_be_read_is_not_written(tmp_path):
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(ValueError, match=f"file: .* at most {files.HEADER_LIMIT}"):
        files.write(tmp_path / "file", "kind", {"text": "x" * files.HEADER_LIMIT}, {})
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"before")]


@pytest.mark.parametrize("place", ["none/w", "folder", "file/w"])
def test_what_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(OSError, match=rf"{re.escape(str(tmp_path / place))}'$"):
        files.write(tmp_path / place, "kind", {}, {"a": np.zeros(3)})
    assert {path.name for path in tmp_path.rglob("*")} == {"folder", "file"}


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    network = {**network_of(1), "classifier.6.bias": np.array([np.inf], np.float32)}
    with pytest.raises(ValueError, match=r"NaN or infinity in classifier\.6\.bias"):
        weights.save(tmp_path / "w", "mini", ["x"], network, preprocessing_of())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["w" * 244, "w" * 255, "é" * 127, ".w"])
def test_a_files_name_may_be_as_long_as_the_system_allows(name, tmp_path):
    for content in (b"first", b"second"):
        files.write_bytes(tmp_path / name, content)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"second")]
