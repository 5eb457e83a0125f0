"""Strangers' .pth files: what people really have is accepted; the rest is refused with a clear reason, and costs no memory."""

from __future__ import annotations

import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from alexnet_from_scratch.variants import VARIANTS
from tests.odd_files import pipe
from torch_impl import convert
from torch_impl.alexnet import AlexNet

CLASSES = 4
LAST = "classifier.6.bias"


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    """Torchvision's network with few hidden values, on all sides, so that a file is not a quarter of a gigabyte."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "torchvision", VARIANTS["torchvision"]._replace(hidden=8))
        yield


@pytest.fixture(scope="module")
def small_state(narrow) -> dict[str, torch.Tensor]:
    """A state dict with torchvision's keys and shapes, but few hidden values and classes, and small weights."""
    generator = torch.Generator().manual_seed(0)
    state = AlexNet("torchvision", CLASSES, device="meta").state_dict()
    return {name: torch.randn(tensor.shape, generator=generator) * 0.01 for name, tensor in state.items()}


def named_parameters(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: nn.Parameter(tensor) for name, tensor in state.items()}


def prefixed(prefix: str) -> Any:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


# What people really have, and the message about it.
WRAPPED: dict[str, tuple[Any, str]] = {
    "a state dict": (dict, ""),
    "named_parameters": (named_parameters, ""),
    "keep_vars": (lambda state: OrderedDict(named_parameters(state)), ""),
    "DataParallel": (prefixed("module."), "leaving out 'module.'"),
    "torch.compile": (prefixed("_orig_mod."), "leaving out '_orig_mod.'"),
    "both": (prefixed("module._orig_mod."), "leaving out 'module._orig_mod.'"),
    "a training script": (lambda state: {"epoch": 3, "state_dict": prefixed("module.")(state)}, "under 'state_dict'"),
    "model": (lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}}, "under 'model'"),
    "model_state_dict": (lambda state: {"model_state_dict": state, "loss": 0.5}, "under 'model_state_dict'"),
    "halves": (lambda state: {name: tensor.half() for name, tensor in state.items()}, ""),
    "bfloat16": (lambda state: {name: tensor.bfloat16() for name, tensor in state.items()}, ""),
    "doubles": (lambda state: {name: tensor.double() for name, tensor in state.items()}, ""),
    "channels_last": (
        lambda state: {
            name: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor for name, tensor in state.items()
        },
        "",
    ),
    "a negated view": (lambda state: {**state, LAST: torch.complex(state[LAST], -state[LAST]).conj().imag}, ""),
    "a negated view without gaps": (lambda state: {**state, LAST: torch._neg_view(-state[LAST])}, ""),
    "a slice of another tensor": (lambda state: {**state, LAST: torch.cat([state[LAST], torch.ones(9)])[:CLASSES]}, ""),
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_what_people_really_have_is_taken(small_state, tmp_path, name, zipped):
    wrap, said = WRAPPED[name]
    path = tmp_path / "theirs.pth"
    lines: list[str] = []
    torch.save(wrap(small_state), path, _use_new_zipfile_serialization=zipped)
    state = convert.read_pth(path, lines.append)
    assert list(state) == list(small_state)
    rounding = {"halves": torch.float16, "bfloat16": torch.bfloat16}.get(name, torch.float32)
    for key, tensor in state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, small_state[key].to(rounding).float())
        tensor.numpy()
    assert bool(said) == bool(lines)
    assert said in "\n".join(lines)


# --- what is refused --------------------------------------------------------------------------------------------------


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_no_pickle_is_executed(tmp_path):
    path, trace = tmp_path / "bomb.pth", tmp_path / "trace"
    torch.save({"features.0.weight": Bomb(trace)}, path)
    with pytest.raises(ValueError, match=r"no code from a file is run.*\n.*state_dict\(\)"):
        convert.read_pth(path)
    assert not trace.exists()


# Changes to a state dict, and the resulting messages.
SPOILT: dict[str, tuple[Any, str]] = {
    "a list": (lambda state: [state], "must hold a state dict, a mapping of names to tensors, got list"),
    "a tensor": (lambda state: state[LAST], "must hold a state dict, a mapping of names to tensors, got Tensor"),
    "nothing": (lambda state: {}, "features.0.weight is missing"),
    "a number": (lambda state: {**state, LAST: 3}, f"{LAST} must be floats of shape .*, got int"),
    "extra": (lambda state: {**state, "extra": torch.zeros(1)}, "'extra' must not be there"),
    "a name that is none": (lambda state: {**state, 3: torch.zeros(1)}, "3 must not be there"),
    "missing": (lambda state: {name: state[name] for name in list(state)[1:]}, "features.0.weight is missing"),
    "shape": (lambda state: {**state, "features.0.bias": torch.zeros(1)}, r"features.0.bias must be floats of shape \(64,\)"),
    "no class": (lambda state: {**state, LAST: torch.zeros(0)}, rf"{LAST} must be floats of shape .*, got .*\(0,\)"),
    "a bias of two axes": (lambda state: {**state, LAST: torch.zeros(4, 1)}, rf"{LAST} must be floats of shape .*\(4, 1\)"),
    "integers": (lambda state: {**state, "features.0.bias": torch.zeros(64, dtype=torch.int64)}, "features.0.bias .*int64"),
    "complex": (lambda state: {**state, "features.0.bias": torch.zeros(64).to(torch.complex64)}, "features.0.bias .*complex64"),
    "eight bits": (
        lambda state: {**state, "features.0.bias": torch.zeros(64).to(torch.float8_e4m3fn)},
        "features.0.bias .*float8_e4m3fn",
    ),
    "sparse": (lambda state: {**state, "features.0.bias": torch.zeros(64).to_sparse()}, "features.0.bias .*sparse_coo"),
    "meta": (lambda state: {**state, LAST: torch.zeros(4, device="meta")}, f"{LAST} .*on the meta device, without values"),
    "all meta": (lambda state: {name: tensor.to("meta") for name, tensor in state.items()}, "on the meta device"),
    "nested": (
        lambda state: {**state, LAST: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)},
        f"{LAST} .*nested",
    ),
    "expanded": (lambda state: {**state, LAST: torch.zeros(()).expand(4)}, f"{LAST} .*4 values, but the file holds 1"),
    "expanded over 2^60 classes": (
        lambda state: {**state, LAST: torch.zeros(()).expand(2**60)},
        f"{LAST} .*1152921504606846976 values, but the file holds 1",
    ),
    "overlapping windows": (
        lambda state: {**state, "features.3.bias": torch.zeros(100).as_strided((192,), (0,))},
        "features.3.bias .*192 values, but the file holds 100",
    ),
    "NaN": (lambda state: {**state, LAST: torch.full((4,), torch.nan)}, f"NaN or infinity in {LAST}"),
    "too large for float32": (
        lambda state: {**state, LAST: torch.full((4,), 1e300, dtype=torch.float64)},
        f"NaN or infinity in {LAST}",
    ),
    "two networks": (lambda state: {"model": state, "ema": state}, r"holds 'model' and 'ema'.*\n.*torch\.save"),
    "two prefixes": (
        lambda state: {("a." if i % 2 else "b.") + name: state[name] for i, name in enumerate(state)},
        "features.0.weight is missing",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_another_state_dict_is_refused(small_state, tmp_path, name):
    spoil, message = SPOILT[name]
    path = tmp_path / "spoilt.pth"
    torch.save(spoil(small_state), path)
    with pytest.raises(ValueError, match=rf"(?s){re.escape(str(path))}.*{message}") as caught:
        convert.read_pth(path)
    assert len(str(caught.value)) < 4000


def test_quantized_and_ragged_tensors_are_refused(small_state, tmp_path):
    path = tmp_path / "spoilt.pth"
    with pytest.warns(UserWarning, match="nested tensors"):
        ragged = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    torch.save({**small_state, LAST: ragged}, path)
    with pytest.raises(ValueError, match=f"(?s){re.escape(str(path))}.*{LAST}.*nested"):
        convert.read_pth(path)
    with pytest.warns(UserWarning, match="quantize"):
        quantized = torch.quantize_per_tensor(torch.zeros(CLASSES), 1.0, 0, torch.qint8)
    torch.save({**small_state, LAST: quantized}, path)
    with pytest.raises(ValueError, match=f"(?s){re.escape(str(path))}.*{LAST}.*qint8"):
        convert.read_pth(path)


def pickled(value: object, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def zipped(names: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return stream.getvalue()


def scripted() -> bytes:
    stream = io.BytesIO()
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), stream)
    return stream.getvalue()


def a_bomb() -> bytes:
    """An archive like torch.save's whose zeros are compressed."""
    whole = pickled({LAST: torch.zeros(10_000_000)})
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        return zipped({name: archive.read(name) for name in archive.namelist()}, zipfile.ZIP_DEFLATED)


# Contents of strangers' files, and the messages about them.
BROKEN: dict[str, tuple[Any, str]] = {
    "empty": (lambda: b"", "got an empty file"),
    "a web page": (lambda: b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "got a web page"),
    "an answer": (lambda: b"Repository not found", "got text that begins 'Repository not found'"),
    "XML": (lambda: b'\xef\xbb\xbf<?xml version="1.0"?><Error>AccessDenied</Error>', "got a web page"),
    "RIFF": (lambda: b"RIFF\x24\0\0\0WAVEfmt ", r"got bytes that begin b'RIFF\$"),
    "Git LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 244408911\n", "git lfs pull"),
    "gzip": (lambda: b"\x1f\x8b\x08\0\0\0\0\0", "got a gzip file"),
    "a cut pickle": (lambda: pickle.dumps({"a": [1, 2, 3]}, 2)[:-5], "got a pickle"),
    "a whole pickle": (lambda: pickle.dumps({"a": [1, 2, 3]}, 4), "got a pickle"),
    "a cut legacy file": (lambda: pickled({LAST: torch.zeros(9)}, _use_new_zipfile_serialization=False)[:-9], "got a pickle"),
    "a cut zip": (lambda: pickled({LAST: torch.zeros(9)})[:-100], "got a zip archive"),
    "a start of a zip": (lambda: b"PK\3\4" + bytes(100), "got a zip archive"),
    "another zip": (lambda: zipped({"a.txt": b"x"}), "got a zip archive without torch's data.pkl"),
    "a zip without files": (lambda: zipped({}), "got a zip archive without torch's data.pkl"),
    "a zip that torch half knows": (
        lambda: zipped({"x/data.pkl": b"\x80\x02]q\0.", "x/version": b"3\n"}),
        "zip archive|got list",
    ),
    "a packed zip": (a_bomb, "does not compress, got a zip archive of .* that claims to hold 400"),
    "TorchScript": (scripted, r"got a TorchScript archive\n.*torch\.jit\.load"),
    "a whole module": (
        lambda: pickled(nn.Linear(2, 2)),
        r"to load it is to run torch\.nn\.modules\.linear\.Linear.*no code from a file.*\n.*state_dict\(\)",
    ),
    "a claim": (lambda: b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\0\xe4\x0b\x54\2\x85R.", "to load it is to run bytearray"),
    "safetensors": (lambda: safetensors.torch.save({"a": torch.zeros(3)}), r"got a safetensors file"),
    "an empty list": (lambda: b"\x80\x02]q\0.", "got a pickle"),
    "an index": (lambda: b"\x80\x02h\x05.", "got a pickle"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_pth_file_is_refused(tmp_path, name):
    make, message = BROKEN[name]
    path = tmp_path / "broken.pth"
    path.write_bytes(make())
    with pytest.raises(ValueError, match=rf"(?s){re.escape(str(path))}.*(?:{message})") as caught:
        convert.read_pth(path)
    assert "\x1b" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's own message advises running strangers' code


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60), start=st.sampled_from([b"", b"\x80\x02", b"PK\3\4", b"(", b"}", b"]", b"\x80\x04\x95"]))
def test_any_bytes_are_refused_by_name(tmp_path, content, start):
    path = tmp_path / "any.pth"
    path.write_bytes(start + content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        convert.read_pth(path)


LEGACY = pickled({LAST: torch.zeros(3), "a": {"b": torch.ones(2, 2)}}, _use_new_zipfile_serialization=False)
ZIPPED = pickled({LAST: torch.zeros(3), "a": {"b": torch.ones(2, 2)}})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(whole=st.sampled_from([LEGACY, ZIPPED]), flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7))))
def test_any_flipped_bits_are_refused_by_name(tmp_path, whole, flips):
    content, path = bytearray(whole), tmp_path / "flipped.pth"
    for place, bit in flips:
        content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        convert.read_pth(path)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["nothing", "a folder"])
def test_what_is_no_file_is_named(tmp_path, make):
    path = tmp_path / "x.pth"
    make(path)
    with pytest.raises(OSError, match=re.escape(str(path))):
        convert.read_pth(path)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the system does not say how much memory was taken")
def test_no_memory_is_taken_for_what_a_file_claims(small_state, tmp_path):
    classes = 40_000
    state = {**small_state, LAST: torch.zeros(classes), "classifier.6.weight": torch.zeros(()).expand(classes, 4096)}
    path = tmp_path / "claims.pth"
    torch.save(state, path)
    program = f"""
from torch_impl import convert
def peak():  # not ru_maxrss, which begins with what the tests' own process held
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
before = peak()
try:
    convert.read_pth({str(path)!r})
except ValueError as error:
    assert "but the file holds 1" in str(error), error
print(peak() - before)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 100 * 2**10  # in KiB; the last layer alone would take 640 MiB


def test_a_network_on_the_meta_device_is_made_there(monkeypatch):
    made: list[torch.Tensor] = []
    monkeypatch.setattr(nn.init, "kaiming_uniform_", lambda tensor, **more: made.append(tensor))
    AlexNet("mini", 10, device="meta")
    assert len(made) == 8  # the weights of eight layers
    assert all(tensor.is_meta for tensor in made)


def test_no_pipe_and_no_device_is_replaced(small_state, tmp_path):
    """As root one could replace /dev/null."""
    torch.save(small_state, tmp_path / "x.pth")
    pipe(tmp_path / "pipe")
    for write in (convert.convert, convert.to_torch):
        with pytest.raises(OSError, match="pipe: must be a file, got a pipe or a device"):
            write(tmp_path / "x.pth", tmp_path / "pipe")
        with pytest.raises(IsADirectoryError, match=r"^\.: must be a file, got a folder"):
            write(tmp_path / "x.pth", Path(""))  # as a command's argument that is empty
    assert (tmp_path / "pipe").is_fifo()
