"""Files of weights: both sides read what either writes, and neither trusts a stranger's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import scratch.data
import scratch.predict
import torch_impl.predict
from alexnet_from_scratch.runs import files, weights
from alexnet_from_scratch.variants import VARIANTS
from tests.weights_files import CLASSES, write_mini, write_unchecked

SIDES: list[Any] = [scratch.predict, torch_impl.predict]


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mini.safetensors"
    write_mini(path)
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
    assert "größer [bold]" in printed[0]  # brackets in a class's name are not markup


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


BIAS, WEIGHT, LAST = "network.classifier.6.bias", "network.features.0.weight", "network.classifier.6.weight"
MEAN, COLOUR, SIZE = "preprocessing.mean", "preprocessing.colour", "preprocessing.size"
# Changes to a file's JSON and arrays, and the resulting messages.
SPOILT: dict[str, tuple[Any, str]] = {
    "format": (lambda about, arrays: about.update(format=2), "must be weights of format 1, got 2"),
    "format of another type": (lambda about, arrays: about.update(format=True), "must be weights of format 1, got True"),
    "variant": (lambda about, arrays: about.update(variant="vgg"), "its variant must be one of .*, got 'vgg'"),
    "variant of another type": (lambda about, arrays: about.update(variant=["mini"]), r"its variant must be .*, got \['mini'\]"),
    "a long variant": (lambda about, arrays: about.update(variant="v" * 10**6), "its variant must be one of"),
    "another variant": (lambda about, arrays: about.update(variant="paper"), "must hold the weights of paper for 3 classes, but"),
    "no classes": (lambda about, arrays: about.update(classes=[]), r"classes must be a list of at least one string, got \[\]"),
    "classes missing": (lambda about, arrays: about.pop("classes"), "classes must be a list of .*, got None"),
    "many classes": (lambda about, arrays: about.update(classes=["x"] * 10_000), rf"{LAST} must have shape \(10000, 256\), got"),
    "classes of other types": (lambda about, arrays: about.update(classes=[1, 2, 3]), r"classes must be .*, got \[1, 2, 3\]"),
    "classes as a string": (lambda about, arrays: about.update(classes="abc"), "classes must be a list of .*, got 'abc'"),
    "missing": (lambda about, arrays: arrays.pop(WEIGHT), f"{WEIGHT} is missing"),
    "nothing": (lambda about, arrays: arrays.clear(), f"{LAST} is missing"),
    "extra": (lambda about, arrays: arrays.update(extra=arrays[BIAS]), "extra must not be there"),
    "a thousand extras": (lambda about, arrays: arrays.update({f"e{i}": arrays[BIAS] for i in range(1000)}), "must not be there"),
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
    "a name for a terminal": (lambda about, arrays: arrays.update({"\x1b[2J": arrays[BIAS]}), r"names .* must be printable"),
    "NaN": (lambda about, arrays: arrays[BIAS].fill(np.nan), "NaN or infinity in classifier.6.bias"),
    "too large for float32": (
        lambda about, arrays: arrays.update({BIAS: np.full(3, 1e300)}),
        "NaN or infinity in classifier.6.bias",
    ),
    "preprocessing missing": (lambda about, arrays: arrays.pop(MEAN), f"{MEAN} is missing"),
    "preprocessing dtype": (lambda about, arrays: arrays.update({SIZE: np.array(np.nan)}), f"{SIZE} must be int64, got float64"),
    "preprocessing shape": (
        lambda about, arrays: arrays.update({MEAN: np.zeros((1, 5, 5))}),
        rf"{MEAN} must have shape \(1, 28, 28\), got \(1, 5, 5\)",
    ),
    "preprocessing channels": (
        lambda about, arrays: arrays.update({MEAN: np.zeros((3, 28, 28)), COLOUR: np.zeros((3, 3))}),
        rf"{MEAN} must have shape \(1, 28, 28\), got \(3, 28, 28\)",
    ),
    "preprocessing of another size": (
        lambda about, arrays: arrays.update({SIZE: np.array(8), MEAN: np.zeros((1, 8, 8))}),
        rf"{MEAN} must have shape \(1, 28, 28\), got \(1, 8, 8\)",
    ),
    "a size that lies": (lambda about, arrays: arrays[SIZE].fill(2**40), f"{SIZE} must be 28, .*, got 1099511627776"),
    "a negative size": (lambda about, arrays: arrays[SIZE].fill(-28), f"{SIZE} must be 28, .*, got -28"),
    "sizes": (lambda about, arrays: arrays.update({SIZE: np.array([28])}), rf"{SIZE} must have shape \(\), got \(1,\)"),
    "mean not finite": (lambda about, arrays: arrays[MEAN].fill(np.inf), f"{MEAN} must lie between -256 and 256"),
    "mean NaN": (lambda about, arrays: arrays[MEAN].fill(np.nan), f"{MEAN} must lie between -256 and 256"),
    "mean beyond float32": (lambda about, arrays: arrays[MEAN].fill(1e300), f"{MEAN} must lie between -256 and 256"),
    "mean beyond pixels": (lambda about, arrays: arrays[MEAN].fill(-3e38), f"{MEAN} must lie between -256 and 256"),
    "colour beyond float32": (lambda about, arrays: arrays[COLOUR].fill(1e300), f"{COLOUR} must lie between -256 and 256"),
}


@pytest.mark.parametrize("side", SIDES, ids=["scratch", "torch_impl"])
@pytest.mark.parametrize("spoil", SPOILT)
def test_a_strangers_file_is_not_believed(mini, tmp_path, side, spoil):
    header = files.read_header(mini, "weights")
    arrays, path = header.read(), tmp_path / "spoilt.safetensors"
    change, message = SPOILT[spoil]
    change(header.about, arrays)
    write_unchecked(path, header.about, arrays)
    with pytest.raises(ValueError, match=rf"(?s){re.escape(str(path))}.*{message}") as caught:
        side.load(path)
    assert len(str(caught.value)) < 4000
    assert "\x1b" not in str(caught.value)


# The writer cannot know or check these: they depend on the caller's network.
CALLERS = {
    "format",
    "format of another type",
    "missing",
    "nothing",
    "extra",
    "a thousand extras",
    "shape",
    "a name for a terminal",
}


@pytest.mark.parametrize("spoil", sorted(SPOILT.keys() - CALLERS))
def test_what_would_not_be_read_is_not_written(mini, tmp_path, spoil):
    header = files.read_header(mini, "weights")
    about, arrays = header.about, header.read()
    SPOILT[spoil][0](about, arrays)
    network, preprocessing = (
        {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        for prefix in ("network.", "preprocessing.")
    )
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "w"))):
        weights.save(tmp_path / "w", about["variant"], about.get("classes", []), network, preprocessing)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("side", SIDES, ids=["scratch", "torch_impl"])
def test_weights_that_overflow_are_named(mini, image, tmp_path, side):
    header = files.read_header(mini, "weights")
    arrays = header.read()
    for name in (LAST, "network.classifier.3.weight", WEIGHT):
        arrays[name].fill(3e38)
    files.write(tmp_path / "w", "weights", header.about, arrays)
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path / 'w'))}: .*overflow"):
        side.predict(image, tmp_path / "w")


@pytest.mark.parametrize("table", VARIANTS.values(), ids=list(VARIANTS))
def test_the_mean_image_is_as_large_as_a_scaled_image(table):
    assert table.canvas == scratch.data.scaled(table.size)


def test_the_first_layer_alone(mini, tmp_path):
    """What pictures draw from a file that may be a stranger's."""
    header = files.read_header(mini, "weights")
    arrays = header.read()
    assert np.array_equal(weights.open_weights(mini).first_layer(), arrays[WEIGHT])
    write_unchecked(tmp_path / "nan", header.about, {**arrays, WEIGHT: np.full_like(arrays[WEIGHT], np.nan)})
    with pytest.raises(ValueError, match=r"nan: .* NaN or infinity in features\.0\.weight"):
        weights.open_weights(tmp_path / "nan").first_layer()
    write_unchecked(tmp_path / "none", header.about, {name: array for name, array in arrays.items() if name != WEIGHT})
    with pytest.raises(ValueError, match=f"(?s)none: .*{WEIGHT} is missing"):
        weights.open_weights(tmp_path / "none")
