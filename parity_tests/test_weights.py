"""Files of weights: both sides read what either writes, and nobody believes a stranger's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

import scratch.predict
import torch_impl.predict
from scratch.alexnet import AlexNet
from scratch.data import Preprocessing
from torch_impl import convert
from torch_impl.alexnet import AlexNet as TorchAlexNet
from training import files, weights

SIDES: list[Any] = [scratch.predict, torch_impl.predict]
CLASSES = ("zero", "one", "größer [bold]")


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights as scratch writes it, of a small network that has learned nothing."""
    path = tmp_path_factory.mktemp("weights") / "mini.safetensors"
    rng = np.random.default_rng(0)
    model = AlexNet("mini", len(CLASSES), rng=rng)
    images = rng.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    preprocessing = Preprocessing.fit(images, size=28, channels=1, mirror=False)
    weights.save(path, "mini", CLASSES, model.state_dict(), preprocessing.state_dict())
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return path


def test_both_sides_read_the_same_network(mini):
    (ours, our_preprocessing, our_classes), (theirs, their_preprocessing, their_classes) = (side.load(mini) for side in SIDES)
    assert our_classes == their_classes == CLASSES
    assert not ours.training
    assert not theirs.training
    for name, tensor in theirs.state_dict().items():
        assert np.array_equal(ours.state_dict()[name], tensor.numpy())
    for name, array in their_preprocessing.state_dict().items():
        assert np.array_equal(our_preprocessing.state_dict()[name], array)


def test_what_torch_writes_is_what_scratch_writes(mini, tmp_path):
    model, preprocessing, classes = torch_impl.predict.load(mini)
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    weights.save(tmp_path / "again", "mini", classes, arrays, preprocessing.state_dict())
    assert (tmp_path / "again").read_bytes() == mini.read_bytes()


def test_both_sides_predict_the_same(mini, image):
    (ours, _), (theirs, _) = (side.predict(image, mini) for side in SIDES)
    assert ours.shape == (3,)
    np.testing.assert_allclose(ours.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_the_commands_print_the_same(mini, image):
    printed = []
    for side in ("scratch", "torch_impl"):
        command = [sys.executable, "-m", f"{side}.predict", str(image), "--weights", str(mini)]
        printed.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert printed[0] == printed[1]
    assert "größer [bold]" in printed[0]  # brackets in a class's name are no markup


def test_halves_and_doubles_become_floats(mini, tmp_path):
    header = files.read_header(mini, "weights")
    arrays = header.read()
    for name in arrays:
        if name.startswith("network.classifier"):
            arrays[name] = arrays[name].astype(np.float16 if name.endswith("bias") else np.float64)
    files.write(tmp_path / "mixed", "weights", header.about, arrays)
    model, _, _ = scratch.predict.load(tmp_path / "mixed")
    for name, array in model.state_dict().items():
        assert array.dtype == np.float32
        assert np.array_equal(array, arrays[f"network.{name}"].astype(np.float32))


BIAS, WEIGHT = "network.classifier.6.bias", "network.features.0.weight"
# What is done to a file's JSON and arrays, and what is said then.
SPOILT: dict[str, tuple[Any, str]] = {
    "format": (lambda about, arrays: about.update(format=2), "must be weights of format 1, got 2"),
    "variant": (lambda about, arrays: about.update(variant="vgg"), "its variant must be one of .*, got 'vgg'"),
    "variant of another type": (lambda about, arrays: about.update(variant=["mini"]), r"its variant must be .*, got \['mini'\]"),
    "another variant": (lambda about, arrays: about.update(variant="paper"), "must hold the weights of paper, but"),
    "no classes": (lambda about, arrays: about.update(classes=[]), "as many outputs as classes, got 0 classes"),
    "many classes": (lambda about, arrays: about.update(classes=["x"] * 10_000), "as many outputs as classes, got 10000"),
    "classes of other types": (lambda about, arrays: about.update(classes=[1, 2, 3]), "classes must be a list of printable"),
    "classes for a terminal": (lambda about, arrays: about.update(classes=["a", "b", "\x1b[2J"]), "must be a list of printable"),
    "classes as a string": (lambda about, arrays: about.update(classes="abc"), "classes must be a list of printable"),
    "missing": (lambda about, arrays: arrays.pop(WEIGHT), f"{WEIGHT} is missing"),
    "extra": (lambda about, arrays: arrays.update(extra=arrays[BIAS]), "extra must not be there"),
    "shape": (
        lambda about, arrays: arrays.update({WEIGHT: arrays[WEIGHT].reshape(32, 5, 5, 1)}),
        rf"{WEIGHT} must have shape \(32, 1, 5, 5\), got \(32, 5, 5, 1\)",
    ),
    "dtype": (
        lambda about, arrays: arrays.update({BIAS: arrays[BIAS].astype(np.int64)}),
        f"{BIAS} must be float16 or float32 or float64, got int64",
    ),
    "unknown dtype": (
        lambda about, arrays: arrays.update({BIAS: arrays[BIAS].astype(np.int8)}),
        f"{BIAS} must be one of .*, got I8",
    ),
    "NaN": (lambda about, arrays: arrays[BIAS].fill(np.nan), "NaN or infinity in classifier.6.bias"),
    "too large for float32": (
        lambda about, arrays: arrays.update({BIAS: np.full(3, 1e300)}),
        "NaN or infinity in classifier.6.bias",
    ),
    "preprocessing missing": (lambda about, arrays: arrays.pop("preprocessing.mean"), "preprocessing.mean is missing"),
    "preprocessing dtype": (
        lambda about, arrays: arrays.update({"preprocessing.size": np.array(np.nan)}),
        "preprocessing.size must be int64, got float64",
    ),
    "preprocessing shape": (
        lambda about, arrays: arrays.update({"preprocessing.mean": np.zeros((1, 5, 5))}),
        r"mean must have shape \(C,28,28\)",
    ),
    "preprocessing channels": (
        lambda about, arrays: arrays.update(
            {"preprocessing.mean": np.zeros((3, 28, 28)), "preprocessing.colour": np.zeros((3, 3))}
        ),
        "preprocessing.mean must have mini's channels",
    ),
    "preprocessing not finite": (
        lambda about, arrays: arrays["preprocessing.mean"].fill(np.inf),
        "mean must lie between -256 and 256",
    ),
}


@pytest.mark.parametrize("side", SIDES, ids=["scratch", "torch_impl"])
@pytest.mark.parametrize("spoil", SPOILT)
def test_a_strangers_file_is_not_believed(mini, tmp_path, side, spoil):
    header = files.read_header(mini, "weights")
    arrays, path = header.read(), tmp_path / "spoilt.safetensors"
    change, message = SPOILT[spoil]
    change(header.about, arrays)
    files.write(path, "weights", header.about, arrays)
    with pytest.raises(ValueError, match=rf"(?s){re.escape(str(path))}.*{message}"):
        side.load(path)


def header_of(content: bytes) -> bytes:
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


# What is done to a file's bytes.
BROKEN: dict[str, Any] = {
    "empty": lambda content: b"",
    "cut in the length": lambda content: content[:5],
    "cut in the header": lambda content: content[:100],
    "cut in the arrays": lambda content: content[:-1],
    "grown": lambda content: content + b"\0",
    "a huge header": lambda content: (2**40).to_bytes(8, "little") + content[8:],
    "a header larger than the file": lambda content: (2**19).to_bytes(8, "little") + content[8:1000],
    "a shape that lies": lambda content: content.replace(b'"shape":[3]', b'"shape":[9]'),
    "overlapping arrays": lambda content: re.sub(rb'"data_offsets":\[(\d+),(\d+)\]', rb'"data_offsets":[0,\2]', content),
    "brackets without end": lambda content: content[:8] + b"[" * len(header_of(content)) + content[8 + len(header_of(content)) :],
    "no JSON of ours": lambda content: safetensors.numpy.save({"a": np.zeros(3)}),
    "JSON of ours that is none": lambda content: safetensors.numpy.save({"a": np.zeros(3)}, {"weights": "{"}),
    "JSON of ours too deep": lambda content: safetensors.numpy.save({"a": np.zeros(3)}, {"weights": "[" * 100_000}),
    "JSON of ours of another type": lambda content: safetensors.numpy.save({"a": np.zeros(3)}, {"weights": "[]"}),
    "a checkpoint": lambda content: safetensors.numpy.save({"a": np.zeros(3)}, {"checkpoint": json.dumps({})}),
    "a pickle": lambda content: b"\x80\x04cos\nsystem\n(S'exit 1'\ntR.",
}


@pytest.mark.parametrize("side", SIDES, ids=["scratch", "torch_impl"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(mini, tmp_path, side, name):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(BROKEN[name](mini.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        side.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        scratch.predict.load(tmp_path)


def test_weights_that_are_not_finite_are_not_written(mini, tmp_path):
    arrays = files.read_header(mini, "weights").read()
    network = {"a": np.array([np.inf], np.float32)}
    with pytest.raises(ValueError, match="NaN or infinity in a"):
        weights.save(tmp_path / "w", "mini", ["x"], network, arrays)
    assert list(tmp_path.iterdir()) == []


# --- torchvision's ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torchvisions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict with torchvision's keys and shapes, but few classes and weights that are almost all the same."""
    path = tmp_path_factory.mktemp("torchvision") / "alexnet.pth"
    generator = torch.Generator().manual_seed(0)
    state = TorchAlexNet("torchvision", 4, device="meta").state_dict()
    small = {name: torch.randn(tensor.shape, generator=generator) * 0.01 for name, tensor in state.items()}
    torch.save(small, path)
    return path


def test_torchvisions_weights_convert_into_both(torchvisions, tmp_path, image):
    out = tmp_path / "alexnet.safetensors"
    convert.convert(torchvisions, out, ["a", "b", "c", "d"])
    (ours, preprocessing, classes), (theirs, _, _) = (side.load(out) for side in SIDES)
    assert classes == ("a", "b", "c", "d")
    original = torch.load(torchvisions, weights_only=True)
    assert original.keys() == ours.state_dict().keys() == theirs.state_dict().keys()
    for name, array in ours.state_dict().items():
        assert np.array_equal(array, theirs.state_dict()[name].numpy())
        if name != "features.0.weight":
            assert np.array_equal(array, original[name].numpy())

    # The first layer sees pixels as they are, where torchvision's sees them scaled: the results are the same.
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    network = TorchAlexNet("torchvision", 4)
    network.load_state_dict(original)
    crop = torch.from_numpy(pixels[16:240, 16:240]).permute(2, 0, 1) / 255
    crop = (crop - torch.tensor(convert.MEAN).reshape(3, 1, 1)) / torch.tensor(convert.DEVIATION).reshape(3, 1, 1)
    with torch.no_grad():
        expected = network.eval()(crop.unsqueeze(0)).numpy()
    logits = ours(preprocessing.evaluation([pixels]))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


class Bomb:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: [state], "must hold a state dict, a mapping of names to tensors, got list"),
        (lambda state: {**state, "classifier.6.bias": 3}, "must hold a state dict, a mapping of names to tensors"),
        (lambda state: {**state, "extra": torch.zeros(1)}, "extra must not be there"),
        (lambda state: {name: state[name] for name in list(state)[1:]}, "features.0.weight is missing"),
        (lambda state: {**state, "features.0.bias": torch.zeros(1)}, r"features.0.bias must be floats of shape \(64,\)"),
        (lambda state: {**state, "features.0.bias": torch.zeros(64, dtype=torch.int64)}, "features.0.bias must be floats"),
        (lambda state: {**state, "features.0.bias": torch.zeros(64).to_sparse()}, "features.0.bias must be floats"),
        (lambda state: {**state, "features.0.bias": torch.full((64,), torch.nan)}, "NaN or infinity in features.0.bias"),
    ],
)
def test_another_state_dict_is_refused(torchvisions, tmp_path, spoil, message):
    path = tmp_path / "spoilt.pth"
    # A network as large as torchvision's, without its bytes: every tensor is one number, shown everywhere.
    state = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in torch.load(torchvisions, weights_only=True).items()}
    torch.save(spoil(state), path)
    with pytest.raises(ValueError, match=rf"(?s){re.escape(str(path))}.*{message}"):
        convert.read_pth(path)


def test_no_pickle_is_executed(tmp_path):
    path, trace = tmp_path / "bomb.pth", tmp_path / "trace"
    torch.save({"features.0.weight": Bomb(trace)}, path)
    with pytest.raises(ValueError, match="nothing that runs code"):
        convert.read_pth(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\3\4" + bytes(100), b"\x80\x02]q\0."])
def test_what_is_no_pth_file_is_refused(tmp_path, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        convert.read_pth(path)


def test_names_must_be_as_many_as_classes(torchvisions, tmp_path):
    with pytest.raises(ValueError, match="has 4 classes, but there are 1 names"):
        convert.convert(torchvisions, tmp_path / "out", ["one"])
