"""Mistakes in pooling, normalization and the optimizer."""

from __future__ import annotations

from parity_tests.mutants import Mutant, planting

NAIVE, NUMPY = "# --- naive", "# --- numpy"

MAX_POOL2D = (
    *planting(
        "max_pool2d",
        "naive",
        ("the last of equal cells wins", "value > largest", "value >= largest"),
        ("NaN is smaller than any number", "or np.isnan(value):", "or False:"),
        ("the first NaN wins", "or np.isnan(value):", "or (np.isnan(value) and not np.isnan(largest)):"),
        (
            "the maximum starts at 0, as if the padding took part",
            "if index == H * W or value > largest",
            "if value > max(largest, 0)",
        ),
        ("-inf is not a candidate", "if index == H * W or value", "if value"),
        ("the strides' axes are swapped", "oh * geometry.stride[0]", "oh * geometry.stride[1]"),
        ("the dilation is forgotten", "kw * geometry.dilation[1]", "kw"),
        ("the window's axes are swapped", "np.ndindex(geometry.kernel_size)", "np.ndindex(geometry.kernel_size[::-1])"),
        ("the index counts rows of H cells", "largest, index = value, h * W + w", "largest, index = value, h * H + w"),
        ("the padding is not taken off the row", "- geometry.padding[0]", "- 0 * geometry.padding[0]"),
        after=NAIVE,
    ),
    *planting(
        "max_pool2d",
        "numpy",
        ("the last of equal cells wins", "(value > largest)", "(value >= largest)"),
        (
            "windows that share a maximum count once",
            "np.add.at(grad_planes, (np.arange(N * C)[:, np.newaxis], indices.reshape(by_plane)), grad_out.reshape(by_plane))",
            "grad_planes[np.arange(N * C)[:, np.newaxis], indices.reshape(by_plane)] += grad_out.reshape(by_plane)",
        ),
        ("a tap's first window is rounded down", "max(0, -(start // stride))", "max(0, -start // stride)"),
        ("a tap's last window is missing", "(cells - 1 - start) // stride)", "(cells - 2 - start) // stride)"),
        after=NUMPY,
    ),
    *planting(
        "max_pool2d",
        "naive",
        ("the stride's default is 1", "kernel_size if stride is None", "(1, 1) if stride is None"),
        ("ceil_mode keeps a last window that starts after the image", "count -= 1", "pass"),
        ("ceil_mode adds a window too many", "room + step - 1 if", "room + step if"),
        ("ceil_mode is ignored", "(room + step - 1 if ceil_mode else room)", "room"),
    ),
)

ADAPTIVE = (
    *planting(
        "adaptive_avg_pool2d",
        "naive",
        ("windows end rounded down", "-(-(o + 1) * cells // outputs)", "(o + 1) * cells // outputs"),
        ("windows start rounded up", "range(o * cells // outputs,", "range(-(-o * cells // outputs),"),
        (
            "windows all have the same size",
            "range(o * cells // outputs, -(-(o + 1) * cells // outputs))",
            "range(o * (cells // outputs), (o + 1) * (cells // outputs))",
        ),
        (
            "the sum is divided by the rows twice",
            "out[n, c, oh, ow] / len(rows) / len(columns)",
            "out[n, c, oh, ow] / len(rows) / len(rows)",
        ),
        ("it is a sum", "out[n, c, oh, ow] = out[n, c, oh, ow] / len(rows) / len(columns)", "pass"),
        after=NAIVE,
    ),
)

RUNNING_SUM = """running = np.cumsum(np.concatenate([np.zeros_like(padded[:, :1]), padded], 1), 1)
    return running[:, 1 + before + after :] - running[:, :C]"""

NORMALIZATION = (
    *planting(
        "local_response_norm",
        "naive",
        ("alpha is not divided by size", "alpha / size", "alpha"),
        ("alpha is divided by the channels there are", "alpha / size", "alpha / min(size, C)"),
        ("the window is one longer at its end", "min((size - 1) // 2, C)", "min(size // 2, C)"),
    ),
    *planting(
        "local_response_norm",
        "naive",
        ("the window is one short", "min(C, c + window.after + 1)", "min(C, c + window.after)"),
        (
            "an even window is mirrored",
            "range(max(0, c - window.before), min(C, c + window.after + 1))",
            "range(max(0, c - window.after), min(C, c + window.before + 1))",
        ),
        ("values are not squared", "x[n, i, *position] * x[n, i, *position]", "x[n, i, *position]"),
        ("k is always 1", "window.k + window.alpha * squares", "1 + window.alpha * squares"),
        ("beta is missing in the gradient", "(beta * _power(scale, beta - 1))", "_power(scale, beta - 1)"),
        ("the gradient has the wrong sign inside", "return -grad_out *", "return grad_out *"),
        after=NAIVE,
    ),
    *planting(
        "local_response_norm",
        "numpy",
        (
            "the sum runs over the batch",
            "_sum_of_shifted(x * x, window.before, window.after)",
            "_sum_of_shifted((x * x).swapaxes(0, 1), window.before, window.after).swapaxes(0, 1)",
        ),
        (
            "a running sum loses what is small compared with what has left",
            "return total",
            RUNNING_SUM,
        ),
        ("the exponent is always 0.75", "x / _power(scale, window.beta), (x", "x / scale**0.75, (x"),
        ("backward looks at its own channel only", "_sum_of_shifted(pull, window.after, window.before)", "pull"),
        ("the gradient forgets the neighbours' x", "x * pulls", "pulls"),
        (
            "backward stops at the direct term",
            "grad_out / _power(scale, window.beta) + x * pulls",
            "grad_out / _power(scale, window.beta)",
        ),
        after=NUMPY,
    ),
)

SGD = (
    *planting(
        "sgd",
        "numpy",
        ("the first velocity is dampened", "keep, gain = 0.0, 1.0", "keep = 0.0"),
        (
            "the gradient's sign turns after weight decay",
            "d = -grad if maximize else grad\n    if weight_decay != 0:\n        d = d + weight_decay * data",
            "d = grad + weight_decay * data if weight_decay else grad\n    d = -d if maximize else d",
        ),
        ("weight decay goes past the velocity", "data += rate * d", "data += rate * (d + weight_decay * data)", "# --- numpy"),
        (
            "weight decay is subtracted from the gradient",
            "d = d + weight_decay * data",
            "d = d - weight_decay * data",
            "# --- numpy",
        ),
        ("nesterov is plain momentum", "d = d + momentum * velocity if nesterov else velocity", "d = velocity", "# --- numpy"),
        (
            "nesterov steps by the gradient twice",
            "d = d + momentum * velocity if nesterov",
            "d = d + velocity if nesterov",
            "# --- numpy",
        ),
        ("the paper's learning rate stays outside the velocity", "gain, rate = -lr, 1.0", "gain, rate = 1.0, -lr"),
        (
            "momentum weighs the new gradient by 1 - momentum",
            "velocity += gain * d",
            "velocity += (1 - momentum) * gain * d",
            "# --- numpy",
        ),
        (
            "dampening is added",
            "velocity, gain, rate = self._velocities[i], 1 - dampening, -lr",
            "velocity, gain, rate = self._velocities[i], 1 + dampening, -lr",
        ),
        ("maximize is ignored", "-grad if maximize else grad", "grad", "# --- numpy"),
        (
            "the velocity is forgotten after a step",
            "velocity = self._velocities[i] = memory.empty_like(grad)",
            "velocity = memory.empty_like(grad)",
        ),
    ),
)

MUTANTS: tuple[Mutant, ...] = (*MAX_POOL2D, *ADAPTIVE, *NORMALIZATION, *SGD)
