"""Mistakes in the compiled rungs of simple operations, in defaults, in rare arguments, and in torch_impl."""

from __future__ import annotations

from parity_tests.mutants import Mutant, planting

NUMBA = "# --- numba"

RELU = planting(
    "relu",
    "numba",
    ("NaN becomes 0", "out[i] = zero if x[i] < zero else x[i]", "out[i] = x[i] if x[i] > zero else zero"),
    ("it leaks", "out[i] = zero if x[i] < zero", "out[i] = x[i] * x.dtype.type(0.01) if x[i] < zero"),
    ("-0.0 becomes 0.0", "out[i] = zero if x[i] < zero", "out[i] = zero if x[i] <= zero"),
    ("the gradient passes where x is 0", "zero if out[i] <= zero", "zero if out[i] < zero"),
    ("the gradient ends at a NaN", "zero if out[i] <= zero else grad_out[i]", "grad_out[i] if out[i] > zero else zero"),
    ("the upstream gradient is forgotten", "else grad_out[i]", "else out.dtype.type(1)"),
    after=NUMBA,
)

DROPOUT = planting(
    "dropout",
    "numba",
    ("the mask says what is dropped", "scale if mask[i] else zero", "zero if mask[i] else scale"),
    ("nothing is scaled", "scale if mask[i]", "x.dtype.type(1) if mask[i]"),
    ("everything is kept", "(scale if mask[i] else zero)", "scale"),
    ("what is dropped loses its NaN", "x[i] * (scale if mask[i] else zero)", "x[i] * scale if mask[i] else zero"),
    ("the gradient is scaled by what was dropped", "grad_out.ravel(), mask.ravel()", "grad_out.ravel(), (~mask).ravel()"),
    after=NUMBA,
)

LOG_SOFTMAX = planting(
    "log_softmax",
    "numba",
    ("the maximum comes back in", "(x[row, c] - peak) - log_norm", "x[row, c] - log_norm"),
    ("the logarithm has base 2", "np.log(norm)", "np.log2(norm)"),
    ("the last class's exponential is not there", "for c in range(C):", "for c in range(C - 1):"),
    ("backward forgets g's sum", "exp(out[row, c]) * g_sum", "exp(out[row, c])"),
    ("backward forgets the exponential", "exp(out[row, c]) * g_sum", "out[row, c] * g_sum"),
    ("backward's sum is of the row's first half", "total(grad_out[row])", "total(grad_out[row][: (C + 1) // 2])"),
    after=NUMBA,
)

CROSS_ENTROPY = planting(
    "cross_entropy",
    "numba",
    ("a class's weight is forgotten", "loss -= own * weight[t[n]]", "loss -= own"),
    ("smoothing ignores the weights", "loss -= share * weight[c]", "loss -= share"),
    ("smoothing leaves out the last class", "for c in range(C if share > 0 else 0)", "for c in range(C - 1 if share > 0 else 0)"),
    ("what is ignored has a gradient", "        g_sum = 0.0", "        g_sum = g[n] if t.ndim == 1 else 0.0"),
    ("the gradient is not normalized", "scale = g_sum / total", "scale = g_sum"),
    ("the target's gradient has the wrong sign", "grad_t[n, c] = -g[n]", "grad_t[n, c] = g[n]"),
    ("the target's own gradient is missing", "grad_x[n, t[n]] -= g[n] * (own", "grad_x[n, t[n]] -= 0 * g[n] * (own"),
    after=NUMBA,
)

DEFAULTS = (
    *planting(
        "local_response_norm",
        "numpy",
        ("k is the paper's unless given", "k: float = 1.0", "k: float = 2.0"),
        ("beta is 1 unless given", "beta: float = 0.75", "beta: float = 1.0"),
        ("alpha is the paper's, not divided, unless given", "alpha: float = 1e-4", "alpha: float = 5e-4"),
    ),
    *planting("softmax", "numpy", ("dim is the last axis unless given", "dim: int = 1", "dim: int = -1")),
    *planting("log_softmax", "numpy", ("dim is the first axis unless given", "dim: int = 1", "dim: int = 0")),
    *planting(
        "cross_entropy",
        "numpy",
        ("class 0 is ignored unless something else is", "ignore_index: int = -100", "ignore_index: int = 0"),
        ("losses are added unless told otherwise", 'reduction: str = "mean"', 'reduction: str = "sum"'),
    ),
    *planting(
        "max_pool2d",
        "numpy",
        ("an odd window at the edge counts unless told otherwise", "ceil_mode: bool = False", "ceil_mode: bool = True"),
    ),
    *planting("dropout", "numpy", ("p is a tenth unless given", "p: float = 0.5", "p: float = 0.1")),
)

RARE = (
    *planting(
        "conv2d",
        "winograd",
        ("a piece's lower edge is looked for across the window", "kh + 2 >= KH", "kh + 2 >= KW"),
        module="scratch.convolution.winograd_tiles",
    ),
    *planting(
        "conv2d",
        "winograd",
        ("one plane within the limit is enough", "not within.all()", "not within.any()"),
        module="scratch.convolution.packing",
    ),
    *planting("max_pool2d", "numba", ("an index has 16 bits in any plane", "np.min_scalar_type(H * W)", "np.uint16")),
)


def _of_torch(operation: str, rung: str, *rows: tuple[str, str, str]) -> tuple[Mutant, ...]:
    """Mistakes in torch_impl alone; scratch is as it was."""
    same = "def forward("
    return tuple(
        Mutant(
            operation, rung, f"right here, but in torch_impl {title}", same, same, also=((f"torch_impl.{operation}", old, new),)
        )
        for title, old, new in rows
    )


TORCH = (
    *_of_torch(
        "dropout",
        "numpy",
        ("the scale is 1/p", "div_(1 - p)", "div_(p or 1)"),
        ("evaluation drops too", "if not training:", "if False:"),
        ("p = 1 keeps everything", "torch.zeros_like(x)", "torch.ones_like(x)"),
    ),
    *_of_torch(
        "max_pool2d",
        "numpy",
        ("ceil_mode is ignored", "dilation, ceil_mode, return", "dilation, False, return"),
        ("the stride is 1 unless given", "kernel_size, stride, padding", "kernel_size, stride or 1, padding"),
    ),
    *_of_torch("relu", "numpy", ("it is a leaky one", "F.relu, x=x", "F.leaky_relu, x=x")),
    *_of_torch(
        "cross_entropy",
        "numpy",
        ("weight is ignored", "target, weight, ignore_index", "target, None, ignore_index"),
        ("ignore_index is ignored", "ignore_index=ignore_index", "ignore_index=-100"),
        ("smoothing is ignored", "label_smoothing=label_smoothing", "label_smoothing=0.0"),
    ),
    *_of_torch("local_response_norm", "numpy", ("k is ignored", "k=k", "k=1.0")),
    *_of_torch("softmax", "numpy", ("the axis is always the last", "F.softmax(x, dim)", "F.softmax(x, -1)")),
    *_of_torch("conv2d", "im2col", ("the dilation is ignored", "dilation=dilation", "dilation=1")),
)

MUTANTS: tuple[Mutant, ...] = (*RELU, *DROPOUT, *LOG_SOFTMAX, *CROSS_ENTROPY, *DEFAULTS, *RARE, *TORCH)
