"""Mistakes in convolutions, linear layers, ReLU and dropout."""

from __future__ import annotations

from parity_tests.mutants import Mutant, planting

NAIVE, IM2COL, NUMPY = "# --- naive", "# --- im2col", "# --- numpy"

CONV2D = (
    *planting(
        "conv2d",
        "naive",
        (
            "the kernel's rows are flipped, a true convolution",
            "kh * geometry.dilation[0]",
            "(weight_shape[2] - 1 - kh) * geometry.dilation[0]",
        ),
        ("the kernel's columns are flipped", "kw * geometry.dilation[1]", "(weight_shape[3] - 1 - kw) * geometry.dilation[1]"),
        ("the strides' axes are swapped", "oh * geometry.stride[0]", "oh * geometry.stride[1]"),
        ("the horizontal stride is forgotten", "ow * geometry.stride[1]", "ow"),
        ("the dilation's axes are swapped", "kw * geometry.dilation[1]", "kw * geometry.dilation[0]"),
        ("the dilation is forgotten", "kh * geometry.dilation[0]", "kh"),
        ("every group reads the first group's channels", "group * C_group + c", "c"),
        ("groups alternate instead of forming blocks", "oc // (OC // geometry.groups)", "oc % geometry.groups"),
        ("the bias is forgotten", "out[n, oc, oh, ow] += bias[oc]", "pass"),
        ("the bias is added twice", "out[n, oc, oh, ow] += bias[oc]", "out[n, oc, oh, ow] += 2 * bias[oc]"),
        ("grad_x keeps the padding above", "geometry.top : geometry.top + H", "0 : H"),
        ("grad_x keeps the padding on the left", "geometry.left : geometry.left + W", "0 : W"),
        ("the padding repeats the border", "(geometry.left, geometry.right)))", "(geometry.left, geometry.right)), mode='edge')"),
        (
            "the padding's axes are swapped",
            "(geometry.top, geometry.bottom), (geometry.left, geometry.right)",
            "(geometry.left, geometry.right), (geometry.top, geometry.bottom)",
        ),
        after=NAIVE,
    ),
    *planting(
        "conv2d",
        "naive",
        (
            "'same' puts the odd zero above and on the left",
            "total[0] // 2, total[1] // 2",
            "(total[0] + 1) // 2, (total[1] + 1) // 2",
        ),
        ("the output's height is rounded up", "(room[0] - 1) // stride[0] + 1", "-(-(room[0] - 1) // stride[0]) + 1"),
        module="scratch.convolution.geometry",
    ),
    *planting(
        "conv2d",
        "im2col",
        ("im2col orders a window's columns before its rows", "columns[:, kh, kw] = padded", "columns[:, kw, kh] = padded"),
        ("col2im assigns instead of adding", "*_seen(kh, kw, geometry)] +=", "*_seen(kh, kw, geometry)] ="),
        (
            "the output's batch and channel axes are mixed up",
            ".reshape(OC, N, geometry.OH, geometry.OW).swapaxes(0, 1)",
            ".reshape(N, OC, geometry.OH, geometry.OW)",
        ),
        ("grad_out's batch and channel axes are mixed up", "grad_out.swapaxes(0, 1).reshape(", "grad_out.reshape("),
        (
            "grad_weight's product takes the columns in reverse",
            "im2col(x, weight.shape, geometry).swapaxes(1, 2)",
            "im2col(x, weight.shape, geometry).swapaxes(1, 2)[:, ::-1]",
        ),
        ("a window's rows start one stride late", "kh * geometry.dilation[0], kh *", "kh * geometry.dilation[0] + 1, kh *"),
        after=IM2COL,
    ),
)

LINEAR = (
    *planting(
        "linear",
        "naive",
        ("the last feature is left out", "for i in range(IN)", "for i in range(IN - 1)"),
        after=NAIVE,
    ),
    *planting(
        "linear",
        "numpy",
        ("the weight is not transposed", "matmul(x, weight.T)", "matmul(x, weight.reshape(weight.shape[::-1]))"),
        ("the bias is subtracted", "out += bias", "out -= bias"),
        (
            "grad_weight is the rows' mean",
            "matmul(g.T, x.reshape(rows, x.shape[-1]))",
            "matmul(g.T, x.reshape(rows, x.shape[-1])) / x.dtype.type(max(rows, 1))",
        ),
        ("grad_bias is the rows' mean", "g.sum(axis=0)", "g.sum(axis=0) / x.dtype.type(max(rows, 1))"),
        after=NUMPY,
    ),
)

ELEMENTWISE = (
    *planting(
        "relu",
        "numpy",
        ("the gradient passes where x is 0", "np.where(out <= 0,", "np.where(out < 0,"),
        (
            "the gradient is multiplied, not selected",
            "np.where(out <= 0, out.dtype.type(0), grad_out)",
            "grad_out * (out > 0).astype(out.dtype)",
        ),
        (
            "the gradient ends at a NaN",
            "np.where(out <= 0, out.dtype.type(0), grad_out)",
            "np.where(out > 0, grad_out, out.dtype.type(0))",
        ),
        ("NaN becomes 0", "out[x < 0] = 0", "out[~(x > 0)] = 0"),
        ("it leaks", "out[x < 0] = 0", "out[x < 0] *= x.dtype.type(0.01)"),
        ("the absolute value is taken", "out[x < 0] = 0", "np.abs(out, out=out)"),
        ("the upstream gradient is forgotten", "np.where(out <= 0, out.dtype.type(0), grad_out)", "(out > 0).astype(out.dtype)"),
        after=NUMPY,
    ),
    *planting(
        "dropout",
        "numpy",
        ("nothing is scaled at training", "np.asarray(x * (mask * scale))", "np.asarray(x * mask)"),
        ("the gradient is not scaled", "np.asarray(grad_out * (mask * scale))", "np.asarray(grad_out * mask)"),
        ("the gradient passes everywhere", "np.asarray(grad_out * (mask * scale))", "np.asarray(grad_out * scale)"),
        (
            "the gradient is scaled twice",
            "np.asarray(grad_out * (mask * scale))",
            "np.asarray(grad_out * (mask * scale) * scale)",
        ),
        ("the mask says what is dropped", "np.asarray(x * (mask * scale))", "np.asarray(x * (~mask * scale))"),
        ("what is dropped loses its NaN", "np.asarray(x * (mask * scale))", "np.where(mask, x * scale, x.dtype.type(0))"),
        after=NUMPY,
    ),
    *planting(
        "dropout",
        "naive",
        ("the scale is 1/p", "x.dtype.type(1 - p) if", "x.dtype.type(p or 1) if"),
        ("p = 1 keeps everything", "if p < 1 else one * 0", "if p < 1 else one"),
        (
            "evaluation drops too",
            'if not checks.flag("dropout", "training", training):',
            'if not checks.flag("dropout", "training", True):',
        ),
        ("evaluation scales by 1-p, the paper's way", "return x, (None,)", "return x * x.dtype.type(0.5), (None,)"),
    ),
)

MUTANTS: tuple[Mutant, ...] = (*CONV2D, *LINEAR, *ELEMENTWISE)
