"""The whole network on a photograph: every layer's activations, and the gradients on the way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import torch_impl.alexnet
import torch_impl.modules
from alexnet_from_scratch.runs.prediction import SHIPPED, SHOWN
from alexnet_from_scratch.runs.weights import open_weights
from alexnet_from_scratch.text import shown
from alexnet_from_scratch.xray.page import Xray
from alexnet_from_scratch.xray.photo import Photo, data_uri
from alexnet_from_scratch.xray.tracing import Tape
from scratch import data, predict, softmax
from scratch.alexnet import AlexNet
from scratch.modules import CrossEntropyLoss, Dropout, Sequential

TILES = 12  # channels shown of a layer
BLUE, ORANGE = (31, 95, 174), (226, 116, 24)
PAGES = {
    "Conv2d": "conv2d",
    "ReLU": "relu",
    "LocalResponseNorm": "local_response_norm",
    "MaxPool2d": "max_pool2d",
    "AdaptiveAvgPool2d": "adaptive_avg_pool2d",
    "Linear": "linear",
    "Dropout": "dropout",
    "CrossEntropyLoss": "cross_entropy",
}


def network(
    photo: Photo, *, variant: str = "one_tower", weights: str = "", classes: int = 1000, label: int = 0, seed: int = 0
) -> Xray:
    """Every layer's output and its gradient: of a trained network, or of one with weights drawn at random."""
    file = weights or (str(SHIPPED) if variant == "mini" else "")
    rng = np.random.default_rng(seed)
    names: Sequence[str]
    if file:
        model, preprocessing, names = predict.load(file)
        image = preprocessing.evaluation([photo.as_the_trainer_reads_it(data.scaled(preprocessing.size))])
        variant, classes, told = open_weights(file).variant, len(names), f"with the trained weights of {shown(Path(file).name)}"
    else:
        model, names = AlexNet(variant, classes, rng=rng), [f"class {c}" for c in range(classes)]
        image = data.centre_crop(photo.image, 224).astype(np.float32)[np.newaxis]
        image -= image.mean()
        told = "with weights drawn at random, so that its answer means nothing"
    theirs = torch_impl.alexnet.AlexNet(variant, classes)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    if file:
        _without_dropout(model, theirs)

    steps = [(name, module) for name, module in model.named_modules() if name and not isinstance(module, Sequential)]
    their_steps = dict(theirs.named_modules())
    x, their_x = image, torch.from_numpy(image.copy()).requires_grad_()
    outs, their_outs = [image], [their_x]
    for name, module in steps:
        if isinstance(module, Dropout):
            module.mask = rng.random(x.shape) >= module.p
            their_steps[name].mask = torch.from_numpy(module.mask)
        x = module(x.copy())  # a copy, which an in-place ReLU may overwrite
        their_x = their_steps[name](their_x.clone())
        their_x.retain_grad()
        outs.append(x)
        their_outs.append(their_x)
    target = np.array([label])
    criterion = CrossEntropyLoss()
    loss = criterion(x, target)
    their_loss = torch_impl.modules.CrossEntropyLoss()(their_x, torch.from_numpy(target))
    their_loss.backward()
    figures = float(loss), float(their_loss.detach())
    gradients: list[Any] = [criterion.backward()]
    for _, module in reversed(steps):
        gradients.insert(0, module.backward(gradients[0]))

    layers = [(name, repr(module), PAGES.get(type(module).__name__, "")) for name, module in steps]
    described = [("image", "the photograph", ""), *layers]
    strip = [
        _stop(*words, out, gradient, their_out)
        for words, out, gradient, their_out in zip(described, outs, gradients, their_outs, strict=True)
    ]
    return Xray(
        "network",
        "The whole network",
        f"A photograph's way through AlexNet ({variant}) and the gradient's way back, computed by the shipped kernels {told}. "
        f"The loss for {shown(names[label])} is {figures[0]:.7g}, torch's {figures[1]:.7g}. Each picture has its own scale: "
        "orange is above zero, blue below.",
        {"variant": variant, "classes": classes, "image": "×".join(map(str, image.shape))},
        Tape(0),
        [],
        strip=strip,
        answer=_answer(x, their_x, names),
    )


def _without_dropout(*models: Any) -> None:
    """Put the networks into training mode, because only then layers keep what backward needs. But let them drop nothing."""
    for model in models:
        for _, module in model.train().named_modules():
            if type(module).__name__ == Dropout.__name__:
                module.p = 0.0


def _answer(logits: np.ndarray, theirs: torch.Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """The likeliest classes with their probabilities, and torch's."""
    (ours,), _ = softmax.forward(logits, dim=1)
    likeliest = np.argsort(-ours, kind="stable")[:SHOWN]
    expected = torch.softmax(theirs.detach()[0], 0)
    return [{"name": shown(names[i]), "probability": float(ours[i]), "torch": float(expected[i])} for i in likeliest]


def _stop(name: str, module: str, page: str, out: np.ndarray, gradient: np.ndarray, theirs: torch.Tensor) -> dict[str, Any]:
    assert theirs.grad is not None
    return {
        "name": name,
        "module": module,
        "page": page,
        "shape": list(out.shape),
        "forward": _side(out, theirs.detach().numpy()),
        "backward": _side(gradient, theirs.grad.numpy()),
    }


def _side(values: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """An array's picture, its numbers, and the largest difference from torch, as a share of torch's largest absolute value."""
    peak = float(np.abs(theirs).max())
    numbers = {"mean": values.mean(), "std": values.std(), "largest |x|": peak, "zeros": f"{(values == 0).mean():.0%}"}
    return {
        "picture": data_uri(_picture(values)),
        "numbers": {key: number if isinstance(number, str) else f"{number:.4g}" for key, number in numbers.items()},
        "torch": f"{float(np.abs(values - theirs).max()) / (peak or 1):.1g}",
    }


def _picture(values: np.ndarray) -> Image.Image:
    """(1,C,H,W): the first channels side by side; (1,F): the features in rows. Zero is transparent, so it shows the page's
    colour.
    """
    array = values[0]
    if array.ndim == 1:
        columns = min(array.size, 128)
        array = np.pad(array, (0, -array.size % columns)).reshape(1, -1, columns)[:, :32]
    channels, (H, W) = min(len(array), TILES), array.shape[1:]
    across = min(channels, 6)
    canvas = np.zeros((math.ceil(channels / across) * (H + 1) - 1, across * (W + 1) - 1))
    for c in range(channels):
        top, left = c // across * (H + 1), c % across * (W + 1)
        canvas[top : top + H, left : left + W] = array[c]
    strength = np.abs(canvas) / (np.abs(canvas).max() or 1)
    rgba = np.where(canvas[..., np.newaxis] > 0, (*ORANGE, 0), (*BLUE, 0))
    rgba[..., 3] = np.round(255 * np.sqrt(strength))
    return Image.fromarray(rgba.astype(np.uint8), "RGBA")
