"""Mistakes in softmax, log_softmax and cross_entropy; and, for every assertion of the generic test, one mistake that only it
sees.
"""

from __future__ import annotations

from parity_tests.mutants import Mutant, planting

NAIVE, NUMPY = "# --- naive", "# --- numpy"

SOFTMAX = (
    *planting(
        "softmax",
        "numpy",
        (
            "the maximum is not subtracted",
            "np.exp(x_rows - x_rows.max(axis=1, keepdims=True, initial=-np.inf))",
            "np.exp(x_rows)",
        ),
        (
            "one maximum is taken for all rows",
            "x_rows.max(axis=1, keepdims=True, initial=-np.inf)",
            "x_rows.max(initial=-np.inf)",
        ),
        ("the sum is not exp's", "out.sum(axis=1, keepdims=True)", "abs(x_rows).sum(axis=1, keepdims=True)"),
        ("backward knows the diagonal only", "s * (g - (g * s).sum(axis=1, keepdims=True))", "g * s * (1 - s)"),
        ("backward subtracts the sum of g alone", "(g * s).sum(axis=1, keepdims=True)", "g.sum(axis=1, keepdims=True)"),
        (
            "backward forgets its last factor",
            "s * (g - (g * s).sum(axis=1, keepdims=True))",
            "g - (g * s).sum(axis=1, keepdims=True)",
        ),
        ("the axis is always the last", "x_rows = rows(x, dim)", "x_rows = rows(x, x.ndim - 1)"),
        after=NUMPY,
    ),
    *planting(
        "log_softmax",
        "numpy",
        ("the maximum is not subtracted", "x_rows - x_rows.max(axis=1, keepdims=True, initial=-np.inf)", "x_rows.copy()"),
        (
            "it is softmax's logarithm",
            "out -= np.log(np.exp(out).sum(axis=1, keepdims=True))",
            "out = np.log(np.exp(out) / np.exp(out).sum(axis=1, keepdims=True))",
        ),
        ("the logarithm has base 2", "np.log(np.exp(out)", "np.log2(np.exp(out)"),
        (
            "backward is softmax's, with a product too many",
            "g - np.exp(rows(out, dim)) * g.sum(axis=1, keepdims=True)",
            "np.exp(rows(out, dim)) * (g - g.sum(axis=1, keepdims=True))",
        ),
        ("backward takes the mean of g", "g.sum(axis=1, keepdims=True)", "g.mean(axis=1, keepdims=True)"),
        ("backward forgets g's sum", "np.exp(rows(out, dim)) * g.sum(axis=1, keepdims=True)", "np.exp(rows(out, dim)) * g"),
        after=NUMPY,
    ),
)

CROSS_ENTROPY = (
    *planting(
        "cross_entropy",
        "naive",
        (
            "the weighted mean divides by N",
            "np.count_nonzero(counted) if weight is None else weight[t[counted]].sum(dtype=np.float64)",
            "np.count_nonzero(counted)",
        ),
        ("what is ignored counts in the mean", "counted = t >= 0", "counted = t >= -1"),
        ("what is ignored counts as class 0", "classes[ignored] = -1", "classes[ignored] = 0"),
        ("smoothing spreads over the other classes only", "smoothing / max(C, 1)", "smoothing / max(C - 1, 1)"),
        ("smoothing leaves the target its whole weight", "1 - smoothing, smoothing", "1, smoothing"),
        (
            "the mean of probabilities is weighted",
            "total = N * D if C else 0",
            "total = (C if weight is None else weight.sum(dtype=np.float64)) * N * D / C",
        ),
        ("the mean of probabilities is over N alone", "total = N * D if C else 0", "total = N"),
        ("'sum' is a mean", 'if reduction == "mean" else 1.0', 'if reduction != "none" else 1.0'),
    ),
    *planting(
        "cross_entropy",
        "naive",
        (
            "the gradient of the mean is not divided",
            "spread.fill(grad_out / options.divisor)",
            "spread.fill(grad_out)",
        ),
        (
            "the upstream gradient is forgotten",
            "spread.fill(grad_out / options.divisor)",
            "spread.fill(1 / options.divisor)",
        ),
    ),
    *planting(
        "cross_entropy",
        "naive",
        ("smoothing ignores the classes' weights", "yield c, share * weight[c]", "yield c, share"),
        ("a class's weight is forgotten", "yield t[n, d], own * weight[t[n, d]]", "yield t[n, d], own"),
        after=NAIVE,
    ),
)

SCALE = "one / x.dtype.type(1 - p)"
TORCH_UNSCALED = ("torch_impl.dropout", "mask.to(x.dtype).div_(1 - p)", "mask.to(x.dtype)")
TORCH_A_LITTLE_OFF = ("torch_impl.dropout", ".div_(1 - p)", ".div_(1 - p).mul_(1 + 2**-22)")
REFERENCE_UNSCALED = ("alexnet_from_scratch.proof.reference", "1 / (1 - np.longdouble(p))", "np.longdouble(1)")

NEEDED = (
    Mutant(
        "sgd",
        "numpy",
        "the rung hands everything down",
        "    d = -grad if maximize else grad\n",
        "    raise NotTakenError\n",
        NUMPY,
        only="assert_rung_ran",
    ),
    Mutant(
        "linear",
        "numpy",
        "a bias that is not there has a gradient",
        "g.sum(axis=0) if has_bias else None",
        "g.sum(axis=0)",
        NUMPY,
        only="assert_same_parts",
    ),
    Mutant(
        "linear",
        "numpy",
        "grad_bias keeps the summed axis",
        "g.sum(axis=0)",
        "g.sum(axis=0, keepdims=True)",
        NUMPY,
        only="assert_same_shapes",
    ),
    Mutant(
        "linear",
        "numpy",
        "grad_bias comes in float64",
        "g.sum(axis=0)",
        "g.sum(axis=0, dtype=np.float64)",
        NUMPY,
        only="assert_same_dtypes",
    ),
    Mutant(
        "dropout",
        "numpy",
        "nothing is scaled",
        SCALE,
        "one",
        only="assert_near_reference",
    ),
    Mutant(
        "dropout",
        "numpy",
        "nothing is scaled, nor in torch_impl",
        SCALE,
        "one",
        also=(TORCH_UNSCALED,),
    ),
    Mutant(
        "dropout",
        "numpy",
        "nothing is scaled, nor in the reference",
        SCALE,
        "one",
        also=(REFERENCE_UNSCALED,),
        only="assert_torch_near_reference",
    ),
    Mutant(
        "dropout",
        "numpy",
        "right here, but torch_impl's scale is two units in the last place off: more than one bound, less than two",
        SCALE,
        SCALE,
        also=(TORCH_A_LITTLE_OFF,),
        only="assert_torch_near_reference",
    ),
    Mutant(
        "relu",
        "numpy",
        "-0.0 becomes 0.0",
        "out[x < 0] = 0",
        "out[x <= 0] = 0",
        NUMPY,
        only="assert_same_zeros",
    ),
    Mutant(
        "max_pool2d",
        "numpy",
        "indices count from 1",
        "indices.astype(np.int64).reshape(out.shape)",
        "indices.astype(np.int64).reshape(out.shape) + 1",
        only="assert_same_integers",
    ),
    Mutant(
        "relu",
        "numpy",
        "it works in place where it can",
        "    out[x < 0] = 0",
        "    out[x < 0] = 0\n    if x.flags.writeable:\n        x[...] = out",
        NUMPY,
        only="assert_inputs_unchanged",
    ),
    Mutant(
        "relu",
        "numpy",
        "backward works in the cache",
        "    return (np.where(out <= 0, out.dtype.type(0), grad_out),)",
        "    np.copyto(out, grad_out, where=~(out <= 0))\n    return (out,)",
        NUMPY,
        only="assert_backward_repeats",
    ),
    Mutant(
        "relu",
        "numpy",
        "the input comes back where nothing is negative",
        "    out[...] = x\n",
        "    if not (x < 0).any():\n        return x, (x,)\n    out[...] = x\n",
        NUMPY,
        only="assert_own_memory",
    ),
)

MUTANTS: tuple[Mutant, ...] = (*SOFTMAX, *CROSS_ENTROPY, *NEEDED)
