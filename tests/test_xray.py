"""The X-ray's traces: every number on a page follows from the numbers shown with it, and is the shipped kernel's and torch's."""

from __future__ import annotations

import functools
import json
import operator
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_from_scratch.xray import photo
from alexnet_from_scratch.xray.__main__ import main, write_page
from alexnet_from_scratch.xray.operations import OPERATIONS
from scratch import max_pool2d

ROOT = Path(__file__).parents[1]
COMPUTE: dict[str, Any] = {
    "·": operator.mul, "/": operator.truediv, "^": operator.pow, "−": operator.neg, "exp": np.exp, "log": np.log,
}  # fmt: skip
COMPARE: dict[str, Any] = {">": operator.gt, "<": operator.lt, "≤": operator.le, "?": bool, "is NaN": np.isnan}


@functools.cache
def xray(operation: str) -> Any:
    return OPERATIONS[operation](photo.load(None, None))


@functools.cache
def trace(operation: str, folder: Path) -> dict[str, Any]:
    return embedded(write_page(operation, photo.load(None, None), folder / f"{operation}.html"))


def embedded(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="trace">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    parsed: dict[str, Any] = json.loads(found[1])
    return parsed


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("xray")


each_operation = pytest.mark.parametrize("operation", OPERATIONS)


@each_operation
def test_traced_values_are_the_shipped_kernels(operation: str) -> None:
    for section in xray(operation).sections:
        for panel in section.panels:
            if "naive" in panel.rungs:
                traced, shipped = xray(operation).tape.arrays[panel.name].values, panel.rungs["naive"]
                assert traced.tobytes() == shipped.tobytes(), f"{panel.name}: the trace has other bits than naive"


@each_operation
def test_rungs_are_within_their_bound_of_torch(operation: str) -> None:
    compared = 0
    for section in xray(operation).sections:
        for panel in section.panels:
            for rung, values in panel.rungs.items():
                error = np.abs(values.astype(np.float64) - panel.torch)
                assert (error <= panel.allowed).all(), f"{panel.name} by {rung}: off by {(error - panel.allowed).max()}"
                compared += 1
    assert compared


@each_operation
def test_numbers_on_the_page_follow_from_each_other(operation: str, folder: Path) -> None:
    """In float32, in the order shown, to the bit: what a page shows for a number must give that number."""
    page = trace(operation, folder)
    # A parameter is a Python number, so it takes the other operand's precision, as in the kernel.
    kinds = {array["name"]: np.float32 if array["shape"] else float for array in page["arrays"]}
    cells = [kinds[array["name"]](value) for array in page["arrays"] for value in array["values"]]
    checked = 0

    def value(node: Any) -> Any:
        nonlocal checked
        if isinstance(node, int):
            return cells[node]
        sign, told, _, *operands = node
        if sign == "=":
            return told
        if sign == "pick":
            chosen, *tests = operands
            for question, outcome, _, *asked in tests:
                assert COMPARE[question](*map(value, asked)) == outcome
            found = value(chosen)
        elif sign == "Σ":
            found = functools.reduce(operator.add, map(value, operands), 0)
        else:
            found = COMPUTE[sign](*map(value, operands))
        assert np.float32(found) == np.float32(told), f"{sign} of {operands} is {found}, the page says {told}"
        checked += 1
        return found

    for array in page["arrays"]:
        for nodes in array["how"].values():
            assert len(nodes) == len(array["values"])
            for node, told in zip(nodes, array["values"], strict=True):
                if "naive" in array["how"] and nodes is not array["how"]["naive"]:
                    value(node)  # another rung, which adds in another order
                else:
                    assert np.float32(value(node)) == np.float32(told)
    assert checked


@each_operation
def test_source_lines_are_in_the_page(operation: str, folder: Path) -> None:
    page = trace(operation, folder)
    lines = {(source["file"], source["first"] + i) for source in page["sources"] for i in range(len(source["lines"]))}
    assert page["places"]
    assert all((file, line) in lines for place in page["places"] for file, line in place)
    for source in page["sources"]:
        shipped = Path(source["file"]).read_text().splitlines()
        assert f"def {source['function']}(" in shipped[source["first"] - 1]


def test_a_convolution_is_told_in_full(folder: Path) -> None:
    """An output has a term for each of its C·KH·KW taps and the bias; each of them goes back into grad_x, except the padding."""
    arrays = {array["name"]: array for array in trace("conv2d", folder)["arrays"]}
    assert {len(node) - 3 for node in arrays["out"]["how"]["naive"]} == {3 * 3 * 3 + 1}
    inside = sum(
        isinstance(operand, int) and operand < arrays["x"]["offset"] + 300
        for node in arrays["out"]["how"]["naive"]
        for term in node[3:-1]
        for operand in term[3:4]
    )
    back = sum(len(node) - 3 if node[0] == "Σ" else node[0] == "+" for node in arrays["grad_x"]["how"]["naive"])
    assert back == inside
    # A cell of the column matrix is a copy of a cell of x, or of the padding.
    assert all(isinstance(node, int) or node[:2] == ["=", 0] for node in arrays["columns"]["how"]["im2col"])


def test_max_pool_names_the_winner(folder: Path) -> None:
    page = trace("max_pool2d", folder)
    arrays = {array["name"]: array for array in page["arrays"]}
    x = np.array(arrays["x"]["values"], np.float32).reshape(arrays["x"]["shape"])
    (_, indices), _ = max_pool2d.forward(x, kernel_size=3, stride=2, return_indices=True)
    plane = x.shape[2] * x.shape[3]
    ties = 0
    for i, node in enumerate(arrays["out"]["how"]["naive"]):
        channel = i // (indices.shape[2] * indices.shape[3])
        assert node[3] - arrays["x"]["offset"] == channel * plane + indices.flat[i]
        asked = {operand for test in node[4:] for operand in test[3:]}
        assert len(asked) == 9
        ties += sum(arrays["x"]["values"][cell - arrays["x"]["offset"]] == node[1] for cell in asked) > 1
    assert ties, "the page has no tie to show"


def test_page_needs_nothing_else(folder: Path) -> None:
    trace("relu", folder)
    page = (folder / "relu.html").read_text()
    assert not re.search(r"(?:https?:)?//[a-z]+\.|fetch\(|XMLHttpRequest|import\(|@import|url\(", page)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("conv2d --stride 0", "--stride: must be at least 1, got 0"),
        ("conv2d --kernel x", "--kernel: must be an int, got 'x'"),
        ("conv2d --kernel 30", "conv2d: weight must fit into the padded image"),
        ("conv2d --crop 200 0 100", "crop must be TOP LEFT SIDE within 256×256 pixels, got 200 0 100"),
        ("conv2d --size 60 --channels 9", "conv2d: the kernel must take at most 120,000 steps"),
        ("relu --out README.md/relu.html", "out must be in a folder, and README.md is a file"),
        ("relu --size 65", "size must lie between 1 and 64 pixels, got 65"),
        ("relu --size 40", "relu: arrays must have at most 12,000 cells to fit on a page, got 19,200"),
        ("max_pool2d --padding 2", "max_pool2d: padding must be at most half of kernel_size"),
        ("dropout --p 2", "dropout: p must lie between 0 and 1, got 2.0"),
        ("sgd --update newton", "sgd: update must be one of torch, paper, got 'newton'"),
        ("network --variant vgg", "AlexNet: variant must be one of"),
        ("norm", "invalid choice: 'norm'"),
    ],
)
def test_wrong_arguments(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--input nothing.jpg", "nothing.jpg: No such file or directory"),
        ("--input README.md", "README.md is not an image in a known format (JPEG, PNG, GIF, BMP, TIFF, WEBP, PPM)"),
        ("--input docs", "docs: Is a directory"),
        ("--out /proc/relu.html", "/proc/relu.html: No such file or directory"),
        ("--weights README.md", "README.md: must be a safetensors file, got text that begins '# alexnet-from-scratch'"),
    ],
)
def test_a_file_that_is_wrong(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = "network --variant mini" if "weights" in arguments else "relu"
    with pytest.raises(SystemExit, match="1"):
        main(f"{page} {arguments}".split())
    assert capsys.readouterr().err == f"error: {message}\n"


def test_ones_own_photograph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, target = tmp_path / "photo.png", tmp_path / "deep" / "page.html"
    shades = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    Image.fromarray(shades).save(picture)
    main(f"conv2d --input {picture} --size 6 --channels 2 --kernel 3 --stride 2 --padding 1 --out {target}".split())
    assert capsys.readouterr().out.strip() == str(target)
    arrays = {array["name"]: array for array in embedded(target)["arrays"]}
    assert arrays["out"]["shape"] == [1, 2, 3, 3]
    expected = photo.load(picture, None).pixels(6)
    assert np.array_equal(np.array(arrays["x"]["values"], np.float32), expected.ravel())


def test_a_page_is_written_whatever_the_locale_and_the_photographs_name(tmp_path: Path) -> None:
    name, page = "caf\udce9<b>.png", tmp_path / "out.html"
    Image.effect_noise((64, 64), 99).save(tmp_path / name)
    command = [sys.executable, "-m", "alexnet_from_scratch.xray", "relu", "--input", str(tmp_path / name), "--out", str(page)]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, capture_output=True, encoding="ascii", cwd=ROOT, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert embedded(page)["photograph"] == r"caf\udce9<b>.png"


@pytest.mark.parametrize("content", [b"mine", b"<!doctype html><title>mine</title>", None], ids=["text", "markup", "a folder"])
def test_only_a_page_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None) -> None:
    path = tmp_path / "page.html"
    main(["relu", "--out", str(path)])
    main(["relu", "--out", str(path)])  # an earlier page
    if content is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(SystemExit):
        main(["relu", "--out", str(path)])
    assert "out must be a" in (said := capsys.readouterr().err)
    assert str(path) in said
    assert path.is_dir() if content is None else path.read_bytes() == content
