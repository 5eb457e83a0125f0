"""Convert torchvision's AlexNet weights to a file that scratch and torch_impl read, and back.

::

    python -m torch_impl.convert alexnet.pth weights.safetensors
    python -m torch_impl.convert weights.safetensors alexnet.pth --to-torch

A ``.pth`` file is a pickle, and unpickling can run any code. So the file is read with ``weights_only``, which accepts only
tensors and containers.

torchvision's network takes pixels from 0 to 1, minus a mean, divided by a standard deviation, for each colour. This project's
networks take pixels from 0 to 255 minus the mean. So the first layer's weights are divided by 255 times the deviation, and the
network computes the same. The way back multiplies them, which rounds once more: these weights end at most one unit in the last
place from the original. All other weights keep every bit.
"""

from __future__ import annotations

import io
import mmap
import pickle
import re
import reprlib
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet_from_scratch import signs
from alexnet_from_scratch.arguments import require_path
from alexnet_from_scratch.paths import naming
from alexnet_from_scratch.runs import files, weights
from alexnet_from_scratch.runs.screen import failing_plainly, plain_console
from alexnet_from_scratch.text import CommandLine, shown
from torch_impl.alexnet import AlexNet
from torch_impl.data import Preprocessing, scaled

SIZE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, from torchvision's documentation
LAST = "classifier.6.bias"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Report = Callable[[str], object]


def convert(path: Path | str, out: Path | str, classes: Sequence[str] | None = None, report: Report = lambda line: None) -> None:
    """Read torchvision's weights from ``path`` and write them to ``out``. Without ``classes``, the classes' names are numbers.

    Raises:
        ValueError: see :func:`read_pth`; or there are more or fewer names than classes.
        OSError: a file cannot be read or written.
    """
    out = _require_another_file("convert", out, path)
    network = read_pth(path, report)
    count = len(network[LAST])
    names = list(classes) if classes is not None else [str(i) for i in range(count)]
    if len(names) != count:
        raise ValueError(f"{path}: has {count} classes, but there are {len(names)} names")
    network[weights.FIRST] = rescaled(network[weights.FIRST], -1)
    preprocessing = Preprocessing(SIZE, True, _mean(), torch.zeros(3, 3, dtype=torch.float64))
    weights.save(
        out, "torchvision", names, {name: tensor.numpy() for name, tensor in network.items()}, preprocessing.state_dict()
    )
    report(f"wrote {out}: torchvision, {count} classes, {_megabytes(out)}")


def to_torch(path: Path | str, out: Path | str, report: Report = lambda line: None) -> None:
    """Read a file of weights and write its network as a state dict, as ``torch.save`` does.

    The scaling of torchvision's first layer is undone where the file's mean is torchvision's. Another network's weights are
    written as they are: a run's mean image cannot be folded into them.

    Raises:
        ValueError: ``path`` is not a file of weights; or the first layer overflows float32 without its scaling.
        OSError: a file cannot be read or written.
    """
    out = _require_another_file("to_torch", out, path)
    file = weights.open_weights(path)
    arrays, preprocessing = file.read(_shapes(file.variant, len(file.classes)))
    count = len(file.classes)
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    loads = f"torchvision's alexnet(num_classes={count})" if file.variant == "torchvision" else ""
    if file.variant == "torchvision" and np.array_equal(preprocessing["mean"], _mean().numpy()):
        state[weights.FIRST] = rescaled(state[weights.FIRST], 1)
        weights.as_floats(path, {weights.FIRST: state[weights.FIRST].numpy()})
        wants = "images as torchvision's documentation prepares them"
    else:
        loads += (" or " if loads else "") + f"torch_impl.alexnet.AlexNet({file.variant!r}, {count})"
        wants = f"pixels from 0 to 255 minus the mean image, which stays in {path}"
    content = io.BytesIO()
    torch.save(state, content)
    files.write_bytes(out, content.getvalue())
    report(f"wrote {out}: a state dict for {loads}, which expects {wants}; {_megabytes(out)}")


def read_pth(path: Path | str, report: Report = lambda line: None) -> dict[str, torch.Tensor]:
    """The state dict of ``AlexNet("torchvision")`` in a file that ``torch.save`` wrote, float32. No pickled code is run.

    A state dict inside a training script's dict, or with the prefix of DataParallel or torch.compile, is accepted. Then
    ``report`` is called with a line that says so.

    Raises:
        ValueError: the file is damaged or holds something else; or a value is not finite.
        OSError: it cannot be read.
    """
    require_path("read_pth", path)
    state = _unwrapped(path, _loaded(Path(path)), report)
    last = state.get(LAST)
    count = len(last) if isinstance(last, torch.Tensor) and not _strangeness(last) and last.ndim == 1 and len(last) else 1000
    shapes = _shapes("torchvision", count)
    problems = [f"{name} is missing" for name in shapes if name not in state]
    for name, tensor in state.items():
        if name not in shapes:
            problems.append(f"{reprlib.repr(name)} must not be there")
        elif not isinstance(tensor, torch.Tensor):
            problems.append(f"{name} must be floats of shape {shapes[name]}, got {type(tensor).__name__}")
        elif strange := _strangeness(tensor):
            problems.append(f"{name} must be floats of shape {shapes[name]}, got {strange}")
        elif tuple(tensor.shape) != shapes[name]:
            problems.append(f"{name} must be floats of shape {shapes[name]}, got {tuple(tensor.shape)}")
    if problems:
        raise ValueError(f"{path}: must hold the weights of torchvision's AlexNet, but{files.listed(problems)}")
    network = {name: state[name].detach().resolve_neg().to(torch.float32).contiguous() for name in shapes}
    weights.as_floats(path, {name: tensor.numpy() for name, tensor in network.items()})
    return network


def read_names(path: Path | str) -> list[str]:
    """The lines of a text file, without empty ones at the end.

    Raises:
        ValueError: it is not UTF-8, or far too long.
        OSError: it cannot be read.
    """
    require_path("read_names", path)
    with naming(path), Path(path).open("rb") as file:
        content = file.read(files.HEADER_LIMIT + 1)
    if len(content) > files.HEADER_LIMIT:
        raise ValueError(f"{path}: must have at most {files.HEADER_LIMIT} bytes, one name a line, got more")
    try:
        text = content.decode("utf-8-sig")
        wrong = content.find(0)
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        raise ValueError(f"{path}: must be text in UTF-8, one name a line, got byte 0x{content[wrong]:02x} at {wrong}")
    return re.split("\r\n|\r|\n", text.rstrip("\r\n"))


def rescaled(weight: torch.Tensor, power: int) -> torch.Tensor:
    """The first layer's weight (OC,3,KH,KW) times (255 · deviation) to the power of 1 or -1, rounded once, to float32."""
    scale = 255 * torch.tensor(DEVIATION, dtype=torch.float64).reshape(1, 3, 1, 1)
    return (weight * scale if power > 0 else weight / scale).to(torch.float32)


def _loaded(path: Path) -> Any:
    """What ``torch.load`` reads from the file."""
    expected = f"{path}: must be a state dict that torch.save wrote"
    seems = signs.described(path)
    if seems == signs.SAFETENSORS:
        raise ValueError(f"{expected}, got {seems}. If this project wrote it, --to-torch makes a .pth file of it")
    if seems == signs.ZIP:
        _require_torchs(path, expected)
    elif seems != signs.PICKLE:
        raise ValueError(f"{expected}, got {seems}")
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            # A bytearray is, apart from tensors, the only object that weights_only creates at any requested size. No state dict
            # has one.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(b"bytearray") >= 0:
                    raise pickle.UnpicklingError("GLOBAL bytearray")
            warnings.simplefilter("ignore")  # torch warns about the new names of its own classes
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's parsers raise many kinds on a stranger's bytes: IndexError, struct.error, ...
        if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(
                f"{expected}, but to load it is to run {code[1]}, and no code from a file is run.\n"
                "If you trust it, load the model yourself, then torch.save(model.state_dict(), FILE) writes a state dict"
            ) from error
        raise ValueError(f"{expected}, got {seems} that torch.load cannot read ({type(error).__name__})") from error


def _require_torchs(path: Path, expected: str) -> None:
    """Raise ValueError for an archive that torch.save did not write."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise ValueError(f"{expected}, got a zip archive that is cut off or damaged: {error}") from error
    names = {Path(entry.filename).name for entry in entries}
    if "constants.pkl" in names:
        raise ValueError(
            f"{expected}, got a TorchScript archive\n"
            "If you trust it, torch.save(torch.jit.load(FILE).state_dict(), OTHER) writes a state dict"
        )
    if "data.pkl" not in names:
        raise ValueError(f"{expected}, got a zip archive without torch's data.pkl")
    claimed, there = sum(entry.file_size for entry in entries), path.stat().st_size
    if claimed > there or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError(f"{expected}, which does not compress, got a zip archive of {there} bytes that claims to hold {claimed}")


def _unwrapped(path: Path | str, loaded: Any, report: Report) -> dict[Any, Any]:
    """The state dict in what was loaded, without a prefix that all names share."""
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path}: must hold a state dict, a mapping of names to tensors, got {type(loaded).__name__}")
    if not _first(loaded):
        inner = [name for name, value in loaded.items() if isinstance(value, Mapping) and _first(value)]
        if len(inner) > 1:
            raise ValueError(
                f"{path}: holds {' and '.join(repr(name) for name in inner)}, each with a network.\n"
                f"Choose one: torch.save(torch.load(FILE)[{inner[0]!r}], OTHER)"
            )
        if inner:
            report(f"{path}: reading only what is under {inner[0]!r}")
            loaded = loaded[inner[0]]
    prefix = _first(loaded).removesuffix(weights.FIRST)
    if prefix and all(isinstance(name, str) and name.startswith(prefix) for name in loaded):
        report(f"{path}: leaving out {prefix!r}, which starts every name")
        return {name.removeprefix(prefix): value for name, value in loaded.items()}
    return dict(loaded)


def _first(state: Mapping[Any, Any]) -> str:
    """The name of the first layer's weight, with its prefix if any; empty if there is none."""
    return next((name for name in state if isinstance(name, str) and name.endswith(weights.FIRST)), "")


def _strangeness(tensor: torch.Tensor) -> str:
    """Why the tensor does not hold ordinary floats from the file; empty if it does."""
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return f"a tensor of layout {tensor.layout}"
    if tensor.is_meta:
        return f"{tuple(tensor.shape)} on the meta device, without values"
    if tensor.dtype not in FLOATS:
        return f"{tensor.dtype}"
    there = tensor.untyped_storage().nbytes() // tensor.element_size()
    if tensor.numel() > there:
        return f"{tuple(tensor.shape)}, {tensor.numel()} values, but the file holds {there}: save tensor.contiguous() instead"
    return ""


def _shapes(variant: str, classes: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the network's arrays; on the meta device, so that a file's claims allocate nothing."""
    return {name: tuple(tensor.shape) for name, tensor in AlexNet(variant, classes, device="meta").state_dict().items()}


def _mean() -> torch.Tensor:
    """A mean image that is torchvision's mean everywhere: (3,S,S), of pixels from 0 to 255."""
    return 255 * torch.tensor(MEAN, dtype=torch.float64).reshape(3, 1, 1).repeat(1, scaled(SIZE), scaled(SIZE))


def _require_another_file(where: str, out: Path | str, path: Path | str) -> Path:
    """``out`` as a path; it must be neither the file that is read nor a device."""
    require_path(where, out)
    require_path(where, path)
    out = Path(out)
    if out.exists() and Path(path).exists() and out.samefile(path):
        raise ValueError(f"{out}: must not be the file that is read")
    if out.exists():
        signs.require_file(out)  # as root one could replace /dev/null
    return out


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def main() -> None:
    """The command."""
    parser = CommandLine("python -m torch_impl.convert", "torchvision's AlexNet for both sides, and back.")
    parser.add_argument("file", help="a state dict that torch.save wrote; with --to-torch, a file of weights")
    parser.add_argument("out", type=Path, help="the file of weights to write; with --to-torch, a .pth file")
    parser.add_argument("--to-torch", action="store_true", help="convert back, to a file that torchvision's alexnet loads")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes, one a line; default: numbers")
    arguments = parser.parse_args()
    if arguments.to_torch and arguments.classes:
        parser.error("--classes must not come with --to-torch: a state dict has no names of classes")

    def report(line: str) -> None:
        console.print(shown(line))

    with failing_plainly():
        console = plain_console()
        if arguments.to_torch:
            to_torch(arguments.file, arguments.out, report)
        else:
            names = read_names(arguments.classes) if arguments.classes else None
            convert(arguments.file, arguments.out, names, report)


if __name__ == "__main__":
    main()
