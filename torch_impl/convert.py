"""torchvision's AlexNet weights to a file that both sides read: ``python -m torch_impl.convert alexnet.pth weights.safetensors``.

A ``.pth`` file is a pickle, and unpickling one can run anything; it is read with ``weights_only``, which knows tensors and
containers and refuses the rest.

torchvision's network wants pixels from 0 to 1, minus a mean, divided by a deviation, for each colour. The networks here want
pixels from 0 to 255 minus the mean: the first layer's weights are divided by 255 times the deviation, and the network is the
same.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from torch_impl.alexnet import AlexNet
from torch_impl.data import Preprocessing, scaled
from training import weights
from training.screen import failing_plainly
from training.text import CommandLine

SIZE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, as torchvision's documentation has them


def read_pth(path: Path | str) -> dict[str, torch.Tensor]:
    """The state dict of ``AlexNet("torchvision")`` in a file that ``torch.save`` wrote, float32. No pickled code is run.

    Raises:
        ValueError: the file is damaged or holds something else than that; or a value is not finite.
        OSError: it cannot be read.
    """
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError, ValueError) as error:
        first_line = str(error).splitlines()[:1]
        raise ValueError(f"{path}: must hold a state dict and nothing that runs code, got: {first_line}") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ValueError(f"{path}: must hold a state dict, a mapping of names to tensors, got {type(loaded).__name__}")
    classes = len(loaded["classifier.6.bias"]) if getattr(loaded.get("classifier.6.bias"), "ndim", 0) == 1 else 1000
    # On the meta device there are shapes alone: nothing is made as large as a file claims to be.
    shapes = {name: tensor.shape for name, tensor in AlexNet("torchvision", classes, device="meta").state_dict().items()}
    problems = [f"{name} is missing" for name in shapes if name not in loaded]
    for name, tensor in loaded.items():
        if name not in shapes:
            problems.append(f"{name} must not be there")
        elif tensor.shape != shapes[name] or not tensor.is_floating_point() or tensor.layout != torch.strided:
            problems.append(
                f"{name} must be floats of shape {tuple(shapes[name])}, got {tensor.layout} {tensor.dtype} {tuple(tensor.shape)}"
            )
    if problems:
        raise ValueError(f"{path}: must hold the weights of torchvision's AlexNet, but\n  " + "\n  ".join(problems))
    network = {name: loaded[name].to(torch.float32) for name in shapes}
    weights.require_finite(path, {name: tensor.numpy() for name, tensor in network.items()})
    return network


def convert(path: Path | str, out: Path, classes: Sequence[str] | None = None) -> None:
    """Read torchvision's weights from ``path`` and write them to ``out``, with names for the classes or numbers.

    Raises:
        ValueError: see :func:`read_pth`; or there are more or fewer names than classes.
        OSError: a file cannot be read or written.
    """
    network = read_pth(path)
    count = len(network["classifier.6.bias"])
    names = list(classes) if classes is not None else [str(i) for i in range(count)]
    if len(names) != count:
        raise ValueError(f"{path}: has {count} classes, but there are {len(names)} names")
    deviation = torch.tensor(DEVIATION).reshape(1, 3, 1, 1)
    network["features.0.weight"] = network["features.0.weight"] / (255 * deviation)
    mean = 255 * torch.tensor(MEAN, dtype=torch.float64).reshape(3, 1, 1).repeat(1, scaled(SIZE), scaled(SIZE))
    preprocessing = Preprocessing(SIZE, True, mean, torch.zeros(3, 3, dtype=torch.float64))
    arrays = {name: tensor.numpy() for name, tensor in network.items()}
    weights.save(out, "torchvision", names, arrays, preprocessing.state_dict())


def main() -> None:
    """The command."""
    parser = CommandLine("python -m torch_impl.convert", "torchvision's AlexNet for both sides.")
    parser.add_argument("pth", help="what torch.save wrote of a state dict")
    parser.add_argument("out", type=Path, help="the safetensors file to write")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes, a line each; default: numbers")
    arguments = parser.parse_args()
    with failing_plainly():
        names = arguments.classes.read_text(encoding="utf-8").splitlines() if arguments.classes else None
        convert(arguments.pth, arguments.out, names)


if __name__ == "__main__":
    main()
