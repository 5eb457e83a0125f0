"""Converting torchvision's weights into a file for both sides, and back."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import scratch.predict
import torch_impl.predict
from alexnet_from_scratch.proof.draws import fewer
from alexnet_from_scratch.runs import files
from tests.exact import check_names, check_rescaled
from tests.odd_files import check_link_to_what_is_read
from torch_impl import convert
from torch_impl.alexnet import AlexNet

SIDES: list[Any] = [scratch.predict, torch_impl.predict]
CLASSES = 4


@pytest.fixture(scope="module")
def small_state() -> dict[str, torch.Tensor]:
    """A state dict with torchvision's keys and shapes, but few classes and small weights."""
    generator = torch.Generator().manual_seed(0)
    state = AlexNet("torchvision", CLASSES, device="meta").state_dict()
    return {name: torch.randn(tensor.shape, generator=generator) * 0.01 for name, tensor in state.items()}


@pytest.fixture(scope="module")
def torchvisions(small_state, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torchvision") / "alexnet.pth"
    torch.save(small_state, path)
    return path


@pytest.fixture(scope="module")
def converted(torchvisions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("converted") / "alexnet.safetensors"
    convert.convert(torchvisions, path, ["a", "b", "c", "d"])
    return path


class TorchvisionAlexNet(nn.Module):
    """The layers of torchvision.models.alexnet.AlexNet, copied from its source, so that torchvision is not needed here."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(p=dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


# From torchvision's documentation of AlexNet_Weights.IMAGENET1K_V1: "normalized using mean=[0.485, 0.456, 0.406] and std=[0.229,
# 0.224, 0.225]", of red, green and blue.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalized(pixels: np.ndarray) -> torch.Tensor:
    """What torchvision's documentation makes of an image (H,W,3), uint8: (1,3,H,W)."""
    image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0) / 255
    return (image - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(DEVIATION).reshape(3, 1, 1)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of the command."""
    monkeypatch.setattr(sys, "argv", ["convert", *map(str, arguments)])
    try:
        convert.main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    return (code, *capsys.readouterr())


# --- there ------------------------------------------------------------------------------------------------------------


def test_torchvisions_weights_convert_into_both(torchvisions, converted):
    (ours, preprocessing, classes), (theirs, _, _) = (side.load(converted) for side in SIDES)
    assert classes == ("a", "b", "c", "d")
    original = torch.load(torchvisions, weights_only=True)
    assert original.keys() == ours.state_dict().keys() == theirs.state_dict().keys()
    for name, array in ours.state_dict().items():
        assert np.array_equal(array, theirs.state_dict()[name].numpy())
        if name != "features.0.weight":
            assert np.array_equal(array, original[name].numpy())

    # The first layer sees unscaled pixels, torchvision's sees scaled ones: the results are the same.
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    network = TorchvisionAlexNet(CLASSES).eval()
    network.load_state_dict(original)
    with torch.no_grad():
        expected = network(normalized(pixels[16:240, 16:240])).numpy()
    logits = ours(preprocessing.evaluation([pixels]))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_it_says_what_it_wrote(torchvisions, tmp_path, monkeypatch, capsys):
    out, names = tmp_path / "out.safetensors", tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\n")
    code, said, errors = run(monkeypatch, capsys, torchvisions, out, "--classes", names)
    assert said == f"wrote {out}: torchvision, 4 classes, {out.stat().st_size / 1e6:.1f} MB\n"
    assert (code, errors) == (0, "")


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("größer\nb\n".encode(), ["größer", "b"]),
        ("größer\nb".encode("utf-8-sig"), ["größer", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645\na\u2028b\x0bc\x85d\n".encode(),
            ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "a\u2028b\x0bc\x85d"],
        ),
        (b"a\tb\n\n", ["a\tb"]),
    ],
    ids=["UTF-8", "a mark of byte order", "Windows", "no other ends of lines", "an empty line at the end"],
)
def test_names_are_read_line_by_line(tmp_path, content, names):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    assert convert.read_names(path) == names


def test_names_keep_their_blanks(tmp_path):
    check_names(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("größer".encode("latin-1"), "must be text in UTF-8, one name a line, got byte 0xf6 at 2"),
        ("größer".encode("utf-16"), "must be text in UTF-8, one name a line, got byte 0xff at 0"),
        ("ab".encode("utf-16-le"), "must be text in UTF-8, one name a line, got byte 0x00 at 1"),
        (b"\x89PNG\r\n", "must be text in UTF-8, one name a line, got byte 0x89 at 0"),
        (b"a" * (files.HEADER_LIMIT + 1), "must have at most"),
    ],
    ids=["Latin-1", "UTF-16", "UTF-16 without a mark", "an image", "too long"],
)
def test_what_is_no_list_of_names_is_named(tmp_path, content, message):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: {message}"):
        convert.read_names(path)


def test_names_must_be_as_many_as_classes(torchvisions, tmp_path):
    with pytest.raises(ValueError, match="has 4 classes, but there are 1 names"):
        convert.convert(torchvisions, tmp_path / "out", ["one"])
    assert list(tmp_path.iterdir()) == []


# --- and back ---------------------------------------------------------------------------------------------------------


def test_the_way_back_is_torchvisions(small_state, converted, tmp_path, monkeypatch, capsys):
    out = tmp_path / "back.pth"
    code, said, errors = run(monkeypatch, capsys, converted, "--to-torch", out)
    assert (code, errors) == (0, "")
    assert f"wrote {out}: a state dict for torchvision's alexnet(num_classes=4)" in said
    state = torch.load(out, weights_only=True)
    network = TorchvisionAlexNet(CLASSES).eval()
    assert not any(network.load_state_dict(state))  # neither missing nor unexpected keys
    for name, tensor in small_state.items():
        if name != "features.0.weight":
            assert torch.equal(state[name], tensor)
    first, original = state["features.0.weight"].numpy(), small_state["features.0.weight"].numpy()
    assert (np.abs(first - original) <= np.spacing(np.abs(original))).all()  # at most one unit in the last place

    convert.convert(out, tmp_path / "again.safetensors", ["a", "b", "c", "d"])
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    model, preprocessing, _ = torch_impl.predict.load(tmp_path / "again.safetensors")
    with torch.no_grad():
        expected = network(normalized(pixels[16:240, 16:240])).numpy()
        logits = model(preprocessing.evaluation([pixels])).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_scale_is_rounded_once():
    check_rescaled()


@fewer
@given(st.lists(st.floats(2.0**-60, 2.0**60, width=32), min_size=1, max_size=30))
def test_the_scale_is_undone_to_the_last_place(values):
    first = torch.tensor(values).reshape(-1, 1, 1, 1).repeat(1, 3, 1, 1)
    back = convert.rescaled(convert.rescaled(first, -1), 1)
    assert (np.abs(back.numpy() - first.numpy()) <= np.spacing(first.numpy())).all()


def test_a_network_trained_here_goes_as_it_is(tmp_path):
    source, out = Path("alexnet_from_scratch/networks/mini-fashion-mnist/weights.safetensors"), tmp_path / "mini.pth"
    lines: list[str] = []
    convert.to_torch(source, out, lines.append)
    state = torch.load(out, weights_only=True)
    model, _, classes = torch_impl.predict.load(source)
    assert not any(AlexNet("mini", len(classes)).load_state_dict(state))
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert re.search(r"AlexNet\('mini', 10\).*0 to 255", lines[0])
    assert "torchvision's" not in lines[0]


def test_torchvisions_layers_trained_here_keep_their_pixels(converted, tmp_path):
    """A run's mean image cannot be folded into weights: they are written as they are, and a message says so."""
    header = files.read_header(converted, "weights")
    arrays = header.read()
    arrays["preprocessing.mean"][:] += np.linspace(0, 9, 256)
    source, out = tmp_path / "trained.safetensors", tmp_path / "trained.pth"
    lines: list[str] = []
    files.write(source, "weights", header.about, arrays)
    convert.to_torch(source, out, lines.append)
    state = torch.load(out, weights_only=True)
    assert torch.equal(state["features.0.weight"], torch.from_numpy(arrays["network.features.0.weight"]))
    assert "0 to 255" in lines[0]


def test_a_first_layer_that_overflows_without_its_scale_is_named(converted, tmp_path):
    header = files.read_header(converted, "weights")
    arrays = header.read()
    arrays["network.features.0.weight"][0, 0, 0, 0] = 1e37
    source, out = tmp_path / "large.safetensors", tmp_path / "large.pth"
    files.write(source, "weights", header.about, arrays)
    with pytest.raises(ValueError, match=r"large.safetensors: all weights must be finite .* infinity in features.0.weight"):
        convert.to_torch(source, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{pth}", "{new}", "--to-torch"), "must be a safetensors file, got a zip archive"),
        (("{safe}", "{new}"), "got a safetensors file.*--to-torch"),
        (("{safe}", "{safe}", "--to-torch"), "must not be the file that"),
        (("{pth}", "{pth}"), "must not be the file that"),
        (("{pth}", "{folder}"), "{folder}: must be a file, got a folder"),
        (("{pth}", "{folder}/none/out"), "{folder}/none/out: No such file or directory"),
        (("{safe}", "{folder}/none/out", "--to-torch"), "{folder}/none/out: No such file or directory"),
        (("{safe}", "{new}", "--to-torch", "--classes", "{pth}"), "--classes .*--to-torch"),
        (("{pth}", "{new}", "--classes", "{pth}"), "{pth}: must have at most .* bytes, one name a line"),
        (("{pth}", "{new}", "--classes", "{folder}"), "{folder}: Is a directory"),
    ],
)
def test_a_wrong_command_is_answered_in_a_line(torchvisions, converted, tmp_path, monkeypatch, capsys, arguments, message):
    places = {"pth": torchvisions, "safe": converted, "new": tmp_path / "new", "folder": tmp_path}
    before = torchvisions.read_bytes(), converted.read_bytes()
    code, said, errors = run(monkeypatch, capsys, *(argument.format(**places) for argument in arguments))
    assert (code, said) in ((1, ""), (2, ""))
    assert re.search(message.format(**{name: re.escape(str(path)) for name, path in places.items()}), errors, re.DOTALL)
    assert list(tmp_path.iterdir()) == []
    assert (torchvisions.read_bytes(), converted.read_bytes()) == before


def test_a_link_to_the_file_that_is_read_is_that_file(tmp_path):
    check_link_to_what_is_read(tmp_path)
