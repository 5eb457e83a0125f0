"""Which kernel runs on which input, and how its page is laid out: a function for each operation, its options as arguments."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np

import scratch
from docs.xray.page import STEPS, Panel, Section, Xray, compare
from docs.xray.photo import Photo
from docs.xray.tracing import Tape
from scratch import adaptive_avg_pool2d as average
from scratch import conv2d as convolution
from scratch import cross_entropy as loss
from scratch import dropout as dropping
from scratch import linear as affine
from scratch import local_response_norm as response
from scratch import max_pool2d as pooling
from scratch import relu as rectifier
from scratch import sgd as descent
from scratch import softmax

GRAD_OUT = "What the layers behind it send back: drawn at random, in sixteenths."


def conv2d(
    photo: Photo,
    *,
    size: int = 10,
    channels: int = 4,
    kernel: int = 3,
    stride: int = 2,
    padding: int = 1,
    dilation: int = 1,
    seed: int = 0,
) -> Xray:
    """The naive loops, and the same by im2col."""
    x = photo.pixels(size)[np.newaxis]
    weight = _gabor(channels, 3, kernel)
    bias = np.linspace(-0.5, 0.5, channels).astype(np.float32)
    params: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    out, _ = scratch.conv2d.forward(x, weight, bias, **params)
    grad_out = _cotangent(out.shape, seed)

    tape = Tape(STEPS)
    geometry = convolution._geometry(x.shape, weight.shape, stride, padding, dilation, 1)
    arrays = [tape.given("x", x), tape.given("weight", weight), tape.given("bias", bias)]
    g = tape.given("grad_out", grad_out)

    def run(forward: Any, backward: Any) -> None:
        made, saved = forward(*arrays, geometry)
        tape.made("out", made)
        for name, gradient in zip(("grad_x", "grad_weight", "grad_bias"), backward(g, *saved, need_grad_x=True), strict=True):
            tape.made(name, gradient)

    run(convolution.naive_forward, convolution.naive_backward)
    tape.rung = "im2col"
    im2col, col2im = convolution.im2col, convolution.col2im

    def matrix(name: str, columns: np.ndarray) -> np.ndarray:
        return tape.made(name, columns[0])[np.newaxis]  # of the one group

    with (
        patch.object(convolution, "im2col", lambda *given: matrix("columns", im2col(*given))),
        patch.object(convolution, "col2im", lambda columns, *rest: col2im(matrix("grad_columns", columns), *rest)),
    ):
        run(convolution.im2col_forward, convolution.im2col_backward)

    xray = Xray(
        "conv2d",
        "2-D convolution",
        "Every output is a sum of products: the window's cells times the weights. Backward is the same walk, in which what was "
        "read is added to. Choose the rung: naive takes a window at a time; im2col first copies each window into a column, "
        "so that all sums are one matrix product. Beside each value stand all rungs that take such windows; winograd asks for "
        "sides of 3, 5 or 6 at stride 1.",
        {"kernel": f"{kernel}×{kernel}", **params, "groups": 1},
        tape,
        [
            Section(
                "Forward",
                "Point at an output: its window lights up in x, with the weights that it met. In the rung im2col it is a column.",
                [
                    Panel("x", "N C H W", "The photograph: red, green and blue, 0 in the middle of their scale."),
                    Panel("weight", "OC C KH KW", "Waves that answer to edges, one direction an output channel."),
                    Panel("bias", "OC"),
                    Panel("columns", "C·KH·KW OH·OW", "im2col: a column a window, so that a cell of x stands in several."),
                    Panel("out", "N OC OH OW"),
                ],
            ),
            Section(
                "Backward",
                "Point at a pixel of grad_x: every output that had read it sends gradient × weight. At a weight: every pair of "
                "an input and a gradient that it joined.",
                [
                    Panel("grad_out", "N OC OH OW", GRAD_OUT),
                    Panel("grad_columns", "C·KH·KW OH·OW", "weightᵀ · grad_out; col2im adds up a cell's copies.", between=True),
                    Panel("grad_x", "N C H W"),
                    Panel("grad_weight", "OC C KH KW"),
                    Panel("grad_bias", "OC"),
                ],
            ),
        ],
    )
    compare(xray, "conv2d", (x, weight, bias), params, ["out"], grad_out, ["grad_x", "grad_weight", "grad_bias"])
    return xray


def relu(photo: Photo, *, size: int = 10, seed: int = 0) -> Xray:
    """The whole operation is a comparison."""
    x = photo.pixels(size)[np.newaxis]
    grad_out = _cotangent(x.shape, seed)
    tape = Tape(STEPS)
    given = tape.given("x", x)
    made, _ = rectifier.naive_forward(given, np.empty_like(given))
    (gradient,) = rectifier.naive_backward(tape.given("grad_out", grad_out), tape.made("out", made))
    tape.made("grad_x", gradient)
    xray = Xray(
        "relu",
        "Rectified linear unit",
        "What is negative becomes zero. The gradient passes where the output was above zero: it is selected, never multiplied, "
        "so that an infinite gradient that is shut out gives 0 and not NaN.",
        {},
        tape,
        [
            Section("Forward", "Point at an output: it is its input, or 0.", [Panel("x", "N C H W"), Panel("out", "N C H W")]),
            Section(
                "Backward",
                "Point at grad_x: the output of the same place decides. At exactly 0 nothing passes.",
                [Panel("grad_out", "N C H W", GRAD_OUT), Panel("grad_x", "N C H W")],
            ),
        ],
    )
    compare(xray, "relu", (x,), {}, ["out"], grad_out, ["grad_x"])
    return xray


def local_response_norm(
    photo: Photo,
    *,
    size: int = 4,
    channels: int = 8,
    window: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    seed: int = 0,
) -> Xray:
    """Windows over channels."""
    pixels = 128 * photo.pixels(2 * size)[np.newaxis]
    convolved, _ = scratch.conv2d.forward(pixels, _gabor(channels, 3, 3), np.full(channels, 20, np.float32), stride=2, padding=1)
    x, _ = scratch.relu.forward(convolved)
    grad_out = _cotangent(x.shape, seed)
    params: dict[str, Any] = {"size": window, "alpha": alpha, "beta": beta, "k": k}
    _, cache = scratch.local_response_norm.forward(x, **params)

    tape = Tape(STEPS)
    given: response.Window = cache.saved[-1]
    scalars: Any = {
        "alpha": tape.scalar("alpha/size", given.alpha),
        "beta": tape.scalar("beta", beta),
        "k": tape.scalar("k", k),
    }
    made, (x_numbers, scale, numbers) = response.naive_forward(tape.given("x", x), given._replace(**scalars))
    tape.made("scale", scale)
    tape.made("out", made)
    pulls: list[Any] = []
    pull = response._pull

    def kept(*operands: Any) -> Any:
        pulls.append(pull(*operands))
        if len(pulls) == x.size:
            tape.made("pull", np.array(pulls, object).reshape(x.shape))
        return pulls[-1]

    with patch.object(response, "_pull", kept):
        (gradient,) = response.naive_backward(tape.given("grad_out", grad_out), x_numbers, scale, numbers)
    tape.made("grad_x", gradient)
    xray = Xray(
        "local_response_norm",
        "Local response normalization",
        "Every value is divided by how loud its neighbours are: the same place in the channels around it. torch, and the paper's "
        "own program, divide alpha by the size of the window; the paper's text prints alpha alone.",
        {**params, "alpha/size": given.alpha},
        tape,
        [
            Section(
                "Forward",
                "Point at an output: the squares of its window over channels, which make its scale. At the edges the window is "
                "cut off, and alpha is divided by the full size all the same.",
                [
                    Panel("x", "N C H W", "The photograph after a convolution and ReLU, on the scale of pixels from 0 to 255."),
                    Panel("scale", "N C H W", "k + alpha/size · Σ x²", between=True),
                    Panel("out", "N C H W", "x / scale^beta"),
                ],
            ),
            Section(
                "Backward",
                "Point at grad_x: its own way through out, then the pull of every channel whose window held it. That is the "
                "window's mirror image: for an even size, another window.",
                [
                    Panel("grad_out", "N C H W", GRAD_OUT),
                    Panel("pull", "N C H W", "What a channel's scale passes on to its window.", between=True),
                    Panel("grad_x", "N C H W"),
                ],
            ),
        ],
    )
    compare(xray, "local_response_norm", (x,), params, ["out"], grad_out, ["grad_x"])
    return xray


def max_pool2d(
    photo: Photo, *, size: int = 11, kernel: int = 3, stride: int = 2, padding: int = 0, ceil_mode: bool = False, seed: int = 0
) -> Xray:
    """Winners and ties."""
    x = np.round(photo.pixels(size)[np.newaxis] * 8) / 8  # few shades, so that there are ties
    params: dict[str, Any] = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    out, _ = scratch.max_pool2d.forward(x, **params)
    grad_out = _cotangent(out.shape, seed)
    tape = Tape(STEPS)
    geometry = pooling._geometry(x.shape, kernel, stride, padding, 1, ceil_mode)
    made, saved = pooling.naive_forward(tape.given("x", x), geometry)
    tape.made("out", made)
    (gradient,) = pooling.naive_backward(tape.given("grad_out", grad_out), *saved)
    tape.made("grad_x", gradient)
    xray = Xray(
        "max_pool2d",
        "2-D max pooling",
        "The largest cell under each window. The whole gradient goes back to that cell. Of equal cells the first in reading "
        "order wins and takes it all: the photograph is cut to sixteen shades here, so that there are ties.",
        params,
        tape,
        [
            Section(
                "Forward",
                "Point at an output: each cell against the largest so far. ★ won; = is as large, but came later: nothing.",
                [Panel("x", "N C H W"), Panel("out", "N C OH OW")],
            ),
            Section(
                "Backward",
                "Point at a gradient: where it goes. At a pixel of grad_x: the windows that it won, which overlap.",
                [Panel("grad_out", "N C OH OW", GRAD_OUT), Panel("grad_x", "N C H W")],
            ),
        ],
    )
    compare(xray, "max_pool2d", (x,), params, ["out"], grad_out, ["grad_x"])
    return xray


def adaptive_avg_pool2d(photo: Photo, *, size: int = 8, output: int = 3, seed: int = 0) -> Xray:
    """Windows that share rows."""
    x = photo.pixels(size)[np.newaxis]
    out, _ = scratch.adaptive_avg_pool2d.forward(x, output_size=output)
    grad_out = _cotangent(out.shape, seed)
    tape = Tape(STEPS)
    made, _ = average.naive_forward(tape.given("x", x), output, output)
    tape.made("out", made)
    (gradient,) = average.naive_backward(tape.given("grad_out", grad_out), size, size)
    tape.made("grad_x", gradient)
    xray = Xray(
        "adaptive_avg_pool2d",
        "2-D adaptive average pooling",
        "The mean over windows that are laid out so as to give the size asked for. Where it does not divide the image, "
        "neighbouring windows share rows and columns.",
        {"output_size": (output, output)},
        tape,
        [
            Section("Forward", "Point at an output: its window.", [Panel("x", "N C H W"), Panel("out", "N C OH OW")]),
            Section(
                "Backward",
                "Point at grad_x: a share of the gradient of every window that held it.",
                [Panel("grad_out", "N C OH OW", GRAD_OUT), Panel("grad_x", "N C H W")],
            ),
        ],
    )
    compare(xray, "adaptive_avg_pool2d", (x,), {"output_size": output}, ["out"], grad_out, ["grad_x"])
    return xray


def linear(photo: Photo, *, size: int = 3, batch: int = 2, features: int = 5, seed: int = 0) -> Xray:
    """Every output sees every input."""
    rng = np.random.default_rng(seed)
    x = _pieces(photo, size, batch).reshape(batch, 3 * size**2)
    weight = _drawn(rng, (features, x.shape[1]))
    bias = _drawn(rng, (features,))
    grad_out = _cotangent((batch, features), seed)
    tape = Tape(STEPS)
    made, saved = affine.naive_forward(tape.given("x", x), tape.given("weight", weight), tape.given("bias", bias))
    tape.made("out", made)
    gradients = affine.naive_backward(tape.given("grad_out", grad_out), *saved, need_grad_x=True)
    for name, gradient in zip(("grad_x", "grad_weight", "grad_bias"), gradients, strict=True):
        assert gradient is not None
        tape.made(name, gradient)
    xray = Xray(
        "linear",
        "Linear layer",
        "out = x · weightᵀ + bias: every output sees every input, which is why AlexNet has nine parameters in ten here.",
        {},
        tape,
        [
            Section(
                "Forward",
                "Point at an output: its row of x, and its row of weight.",
                [
                    Panel("x", "N IN", f"A row a piece of the photograph, at {size}×{size} pixels."),
                    Panel("weight", "OUT IN"),
                    Panel("bias", "OUT"),
                    Panel("out", "N OUT"),
                ],
            ),
            Section(
                "Backward",
                "Point at grad_x: all outputs send gradient × weight. At a weight: the whole batch adds up.",
                [
                    Panel("grad_out", "N OUT", GRAD_OUT),
                    Panel("grad_x", "N IN"),
                    Panel("grad_weight", "OUT IN"),
                    Panel("grad_bias", "OUT"),
                ],
            ),
        ],
    )
    compare(xray, "linear", (x, weight, bias), {}, ["out"], grad_out, ["grad_x", "grad_weight", "grad_bias"])
    return xray


def dropout(photo: Photo, *, size: int = 8, p: float = 0.5, seed: int = 0) -> Xray:
    """A mask in the open."""
    x = photo.pixels(size)[np.newaxis]
    _, cache = scratch.dropout.forward(x, p=p, rng=np.random.default_rng(seed))
    mask, scale = cache.saved
    grad_out = _cotangent(x.shape, seed)
    tape = Tape(STEPS)
    mask_numbers, scale_number = tape.given("mask", mask), tape.scalar("scale", scale)
    made, _ = dropping.naive_forward(tape.given("x", x), mask_numbers, scale_number)  # type: ignore[arg-type]
    tape.made("out", made)
    (gradient,) = dropping.naive_backward(tape.given("grad_out", grad_out), mask_numbers, scale_number)  # type: ignore[arg-type]
    tape.made("grad_x", gradient)
    xray = Xray(
        "dropout",
        "Dropout",
        "Each value is kept with probability 1-p, and then multiplied by 1/(1-p), so that the expectation stays. Backward drops "
        "and scales the gradient by the same mask.",
        {"p": p, "scale = 1/(1-p)": scale},
        tape,
        [
            Section(
                "Forward",
                "Point at an output: its input, and what the mask said.",
                [Panel("x", "N C H W"), Panel("mask", "N C H W", "1: kept."), Panel("out", "N C H W")],
            ),
            Section(
                "Backward",
                "Point at grad_x: nothing passes where the value was dropped.",
                [Panel("grad_out", "N C H W", GRAD_OUT), Panel("grad_x", "N C H W")],
            ),
        ],
    )
    compare(xray, "dropout", (x,), {"p": p, "mask": mask}, ["out"], grad_out, ["grad_x"])
    return xray


def cross_entropy(photo: Photo, *, batch: int = 3, classes: int = 6, seed: int = 0) -> Xray:
    """From logits to a loss by way of softmax."""
    rng = np.random.default_rng(seed)
    features = _pieces(photo, 4, batch).reshape(batch, 48)
    logits, _ = scratch.linear.forward(features, _drawn(rng, (classes, 48)))
    target = rng.integers(0, classes, batch)
    grad_losses = np.full(batch, 1 / batch, np.float32)

    tape = Tape(STEPS)
    x = tape.given("logits", logits)
    tape.given("target", target)
    tape.made("softmax", softmax.naive_forward(x, 1)[0])
    _, cache = scratch.cross_entropy.forward(logits, target, reduction="none")
    made, (options, logp, t) = loss.naive_forward(x[:, :, np.newaxis], target[:, np.newaxis], cache.saved[0])
    tape.made("log_softmax", logp[:, :, 0])
    tape.made("loss", made)
    g = tape.given("grad_loss", grad_losses)
    gradient, *_ = loss.naive_backward(g, options, tape.arrays["log_softmax"].numbers[:, :, np.newaxis], t)
    tape.made("grad_logits", gradient[:, :, 0])
    xray = Xray(
        "cross_entropy",
        "Softmax and cross-entropy",
        "Logits become probabilities by exp and a division by the sum; the loss is minus the logarithm of the probability of the "
        "right class. Backward the two together are simple: the probability, minus 1 for the right class.",
        {"reduction": "none", "label_smoothing": 0},
        tape,
        [
            Section(
                "Forward",
                "Point at a probability: its logit against the whole row. At a loss: the one class that counts.",
                [
                    Panel("logits", "N C", "Of a random linear layer, for pieces of the photograph."),
                    Panel("target", "N", "The right class."),
                    Panel("softmax", "N C", "Each row adds up to 1."),
                    Panel("log_softmax", "N C", "x - peak - log Σ exp(x - peak): the logarithm without a detour through 0."),
                    Panel("loss", "N"),
                ],
            ),
            Section(
                "Backward",
                "Point at grad_logits: softmax of the same place, minus the right class, each times the loss's gradient.",
                [
                    Panel("grad_loss", "N", "1/N each: what the mean over the batch sends back."),
                    Panel("grad_logits", "N C"),
                ],
            ),
        ],
    )
    compare(xray, "softmax", (logits,), {"dim": 1}, ["softmax"])
    compare(xray, "log_softmax", (logits,), {"dim": 1}, ["log_softmax"])
    params = {"target": target, "reduction": "none"}
    compare(xray, "cross_entropy", (logits,), params, ["loss"], grad_losses, ["grad_logits"])
    return xray


def sgd(
    photo: Photo, *, lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 5e-4, update: str = "torch", seed: int = 0
) -> Xray:
    """Two steps of a convolution's weight."""
    x = photo.pixels(10)[np.newaxis]
    weight = _gabor(2, 3, 3)
    out, cache = scratch.conv2d.forward(x, weight)
    gradients = [scratch.conv2d.backward(_cotangent(out.shape, seed + step), cache)[1] for step in range(2)]
    rates = (lr, lr / 10)
    params: dict[str, Any] = {
        "momentum": momentum, "weight_decay": weight_decay, "update": update,
        "dampening": 0.0, "nesterov": False, "maximize": False,
    }  # fmt: skip

    tape = Tape(STEPS)
    data = tape.given("weight", weight).copy()
    decay, kept = tape.scalar("weight_decay", weight_decay), tape.scalar("momentum", momentum)
    velocity: Any = np.zeros(weight.shape, object)
    panels = [Panel("weight", "OC C KH KW", "Before the first step.")]
    update_in_place = descent.naive_update
    for step, (rate, gradient) in enumerate(zip(rates, gradients, strict=True), 1):
        # What SGD.step hands to the rung; the first velocity is 0, so that it does not matter how much of it is kept.
        gain, move = (-rate, 1.0) if update == "paper" else (1.0, -rate)
        g = tape.given(f"grad {step}", gradient)
        update_in_place(data, g, velocity, kept, kept, gain, move, decay, False, False)  # type: ignore[arg-type]
        velocity = tape.made(f"velocity {step}", velocity).copy()
        data = tape.made(f"weight {step}", data).copy()
        panels += [
            Panel(f"grad {step}", "OC C KH KW", "From conv2d's backward pass."),
            Panel(f"velocity {step}", "OC C KH KW", between=True),
            Panel(f"weight {step}", "OC C KH KW", f"After step {step}, with lr {rate:g}."),
        ]
    xray = Xray(
        "sgd",
        "Gradient descent with momentum",
        "Two steps of a convolution's weight, the second with a tenth of the learning rate. In torch's form the rate multiplies "
        "the whole velocity, so the old gradients slow down with it; in the paper's it sits inside, and they do not "
        "(--update paper writes that page).",
        {"lr": " then ".join(f"{rate:g}" for rate in rates), **params},
        tape,
        [
            Section("The first step", "Point at a weight: where it was, and how far it was moved.", panels[:4]),
            Section("The second step", "The velocity keeps a part of the first step's.", panels[4:]),
        ],
    )
    for step in (1, 2):
        compare(xray, "sgd", (weight, *gradients[:step]), {"lr": rates[:step], **params}, [f"weight {step}"])
    return xray


OPERATIONS = {
    build.__name__: build
    for build in (conv2d, relu, local_response_norm, max_pool2d, adaptive_avg_pool2d, linear, dropout, cross_entropy, sgd)
}


def _gabor(OC: int, C: int, kernel: int) -> np.ndarray:
    """(OC,C,kernel,kernel): waves under a bell, half a turn over the output channels, weaker in some of C than in others."""
    at = (np.arange(kernel) - (kernel - 1) / 2) / max(1, kernel / 2)
    angle = np.pi * np.arange(OC)[:, np.newaxis, np.newaxis] / OC
    along = np.cos(angle) * at + np.sin(angle) * at[:, np.newaxis]  # (OC,kernel,kernel)
    waves = np.sin(2.2 * along + 0.3) * np.exp(-(at**2) - at[:, np.newaxis] ** 2)
    strength = (1 + np.cos(np.arange(C) - 1 + angle[:, 0])) / C  # (OC,C)
    weight: np.ndarray = waves[:, np.newaxis] * strength[:, :, np.newaxis, np.newaxis]
    return weight.astype(np.float32)


def _cotangent(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return _drawn(np.random.default_rng([seed, 1]), shape)


def _drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers in sixteenths: short to read."""
    return (np.round(16 * rng.normal(size=shape)) / 16).astype(np.float32)


def _pieces(photo: Photo, size: int, count: int) -> np.ndarray:
    """(count,3,size,size): the photograph's square and what is right of it, cut into pieces side by side."""
    top, left, side = photo.region
    step = side // count
    cuts = [photo._replace(region=(top + i * step // 2, left + i * step // 2, side - i * step // 2)) for i in range(count)]
    return np.stack([cut.pixels(size) for cut in cuts])
