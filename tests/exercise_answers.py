"""Answers as readers write them, ten right ones and ten mistakes for each exercise, each the body of the function to fill in.

The right ones are right in the mathematics. Some differ from torch at an edge, which ``AT_AN_EDGE`` lists.
"""

from __future__ import annotations

_SELECTED = "grad_x = np.zeros_like(out); grad_x[~(out <= 0)] = grad_out[~(out <= 0)]; return (grad_x,)"
_POOL = "N, C, H, W = x_shape; grad_x = np.zeros(x_shape, grad_out.dtype)"
_FLAT_POOL = "N, C, H, W = x_shape; flat = np.zeros((N * C, H * W + 1), grad_out.dtype)"
_ROWS = "g, s, grad_x = rows(grad_out, dim), rows(out, dim), np.empty_like(out)"
_LINEAR = "g, flat = grad_out.reshape(-1, len(weight)), x.reshape(-1, x.shape[-1])"
_BIAS = "g.sum(0) if has_bias else None"
_WALK = """padded = _pad(x, geometry)
grad_padded, grad_weight, grad_bias = np.zeros_like(padded), np.zeros_like(weight), np.zeros(len(weight), x.dtype)
"""
_RETURN = "return _unpad(grad_padded, x, geometry) if need_grad_x else None, grad_weight, grad_bias if has_bias else None"
_CELL = "(n, *_cell(oc, c, oh, ow, kh, kw, weight.shape, geometry))"
_VIEWS = """views = {}
for oc in range(len(weight)):
    for c, kh, kw in np.ndindex(weight.shape[1:]):
        channel, row, column = _cell(oc, c, 0, 0, kh, kw, weight.shape, geometry)
        rows = slice(row, row + (grad_out.shape[2] - 1) * geometry.stride[0] + 1, geometry.stride[0])
        columns = slice(column, column + (grad_out.shape[3] - 1) * geometry.stride[1] + 1, geometry.stride[1])
        views[oc, c, kh, kw] = (slice(None), channel, rows, columns)
"""
_LRN = """C, grad_x = x.shape[1], np.zeros_like(x)
"""
_PULLS = "pull = -grad_out * x * window.beta * scale ** (-window.beta - 1)\n"
_CE = """N, _, D = logp.shape
g, a, grad_t = _spread(grad_out, options, N, D), np.zeros_like(logp), np.zeros_like(logp)
for n, d in np.ndindex(N, D):
    for c, factor in _factors(t, n, d, options):
        a[n, c, d] += factor
"""
_GRAD_T = "grad_t[...] = -(g[:, None] * options.factors.own * options.factors.weight[:, None] * logp)\n"
_CE_END = "return (grad_x,) if t.ndim == 2 else (grad_x, grad_t)"
_RULE = "keep, momentum, gain, rate, weight_decay, nesterov = rule\n"
_D = "d = -grad if maximize else grad\nd = d + weight_decay * data\n"

RIGHT: dict[str, tuple[str, ...]] = {
    "relu": (
        "return (grad_out * (out > 0),)",
        "return (np.where(out > 0, grad_out, 0),)",
        "return (np.where(out <= 0, 0, grad_out),)",
        "return ((out > 0).astype(out.dtype) * grad_out,)",
        _SELECTED,
        "grad_x = grad_out.copy(); grad_x[out <= 0] = 0; return (grad_x,)",
        "grad_x = np.array(grad_out); grad_x *= out > 0; return (grad_x,)",
        "return (grad_out * np.sign(out),)",
        "return (np.array([g if o > 0 else 0 for g, o in zip(grad_out.flat, out.flat)], out.dtype).reshape(out.shape),)",
        "slope = np.zeros_like(out); slope[out > 0] = 1; return (slope * grad_out,)",
    ),
    "dropout": (
        "return (grad_out * mask * scale,)",
        "return (grad_out * (mask * scale),)",
        "return (scale * mask * grad_out,)",
        "return (np.where(mask, grad_out * scale, 0),)",
        "grad_x = grad_out * scale; return (np.where(mask, grad_x, 0).astype(grad_out.dtype),)",
        "grad_x = np.zeros_like(grad_out); grad_x[mask] = grad_out[mask] * scale; return (grad_x,)",
        "return (grad_out * np.where(mask, scale, 0),)",
        "grad_x = grad_out.copy(); grad_x[~mask] = 0; return (grad_x * scale,)",
        "grad_x = grad_out.copy(); grad_x *= mask; grad_x *= scale; return (grad_x,)",
        "return (np.array([g * scale * m for g, m in zip(grad_out.flat, mask.flat)], grad_out.dtype).reshape(mask.shape),)",
    ),
    "max_pool2d": (
        _POOL + "\nfor i in np.ndindex(grad_out.shape):\n    h, w = indices[i] // W, indices[i] % W\n    if h < H:\n"
        "        grad_x[(*i[:2], h, w)] += grad_out[i]\nreturn (grad_x,)",
        _POOL + "\nfor n, c, oh, ow in np.ndindex(grad_out.shape):\n    k = int(indices[n, c, oh, ow])\n    if k < H * W:\n"
        "        grad_x[n, c].flat[k] += grad_out[n, c, oh, ow]\nreturn (grad_x,)",
        _POOL + "\nflat = grad_x.reshape(N, C, H * W)\nfor n, c, oh, ow in np.ndindex(grad_out.shape):\n"
        "    k = int(indices[n, c, oh, ow])\n    if k != H * W:\n        flat[n, c, k] += grad_out[n, c, oh, ow]\n"
        "return (grad_x,)",
        _FLAT_POOL + "\nfor p, (k, g) in enumerate(zip(indices.reshape(N * C, -1), grad_out.reshape(N * C, -1))):\n"
        "    np.add.at(flat[p], k, g)\nreturn (flat[:, :-1].reshape(x_shape),)",
        _FLAT_POOL + "\nnp.add.at(flat, (np.arange(N * C)[:, None], indices.reshape(N * C, -1)), grad_out.reshape(N * C, -1))\n"
        "return (flat[:, :-1].reshape(x_shape),)",
        _FLAT_POOL + "\nfor p, (k, g) in enumerate(zip(indices.reshape(N * C, -1), grad_out.reshape(N * C, -1))):\n"
        "    flat[p] = np.bincount(k, g, H * W + 1)\nreturn (np.ascontiguousarray(flat[:, :-1]).reshape(x_shape),)",
        _POOL
        + "\nfor n in range(N):\n    for c in range(C):\n        for k, g in zip(indices[n, c].flat, grad_out[n, c].flat):\n"
        "            if k < H * W:\n                grad_x[n, c, k // W, k % W] += g\nreturn (grad_x,)",
        _POOL + "\nfor h in range(H):\n    for w in range(W):\n"
        "        grad_x[:, :, h, w] = (grad_out * (indices == h * W + w)).sum((2, 3))\nreturn (grad_x,)",
        _POOL + "\nfor k in range(H * W):\n"
        "    grad_x[:, :, k // W, k % W] = np.where(indices == k, grad_out, 0).sum((2, 3))\nreturn (grad_x,)",
        _POOL
        + "\nfor n, c, oh, ow in np.ndindex(grad_out.shape):\n    k = int(indices[n, c, oh, ow])\n    if k == H * W: continue\n"
        "    grad_x[n, c, k // W, k % W] = grad_x[n, c, k // W, k % W] + grad_out[n, c, oh, ow]\nreturn (grad_x,)",
    ),
    "adaptive_avg_pool2d": tuple(
        "N, C, OH, OW = grad_out.shape; grad_x = np.zeros((N, C, H, W), grad_out.dtype)\n" + body + "\nreturn (grad_x,)"
        for body in (
            "for n, c, oh, ow in np.ndindex(grad_out.shape):\n    r, k = _window(oh, H, OH), _window(ow, W, OW)\n"
            "    for h in r:\n        for w in k:\n            grad_x[n, c, h, w] += grad_out[n, c, oh, ow] / (len(r) * len(k))",
            "for n, c, oh, ow in np.ndindex(grad_out.shape):\n    r, k = _window(oh, H, OH), _window(ow, W, OW)\n"
            "    grad_x[n, c, r.start : r.stop, k.start : k.stop] += grad_out[n, c, oh, ow] / (len(r) * len(k))",
            "for oh, ow in np.ndindex(OH, OW):\n    r, k = _window(oh, H, OH), _window(ow, W, OW)\n"
            "    share = grad_out[:, :, oh, ow] / (len(r) * len(k))\n"
            "    grad_x[:, :, r.start : r.stop, k.start : k.stop] += share[:, :, None, None]",
            "for oh, ow in np.ndindex(OH, OW):\n    r, k = _window(oh, H, OH), _window(ow, W, OW)\n    for h in r:\n"
            "        for w in k:\n            grad_x[:, :, h, w] += grad_out[:, :, oh, ow] / len(r) / len(k)",
            "for h, w in np.ndindex(H, W):\n    for oh, ow in np.ndindex(OH, OW):\n"
            "        r, k = _window(oh, H, OH), _window(ow, W, OW)\n        if h in r and w in k:\n"
            "            grad_x[:, :, h, w] += grad_out[:, :, oh, ow] / (len(r) * len(k))",
            "A, B = np.zeros((OH, H), grad_out.dtype), np.zeros((OW, W), grad_out.dtype)\nfor o in range(OH):\n"
            "    A[o, list(_window(o, H, OH))] = 1 / len(_window(o, H, OH))\nfor o in range(OW):\n"
            "    B[o, list(_window(o, W, OW))] = 1 / len(_window(o, W, OW))\ngrad_x[...] = A.T @ grad_out @ B",
            "for n, c, oh, ow in np.ndindex(grad_out.shape):\n    cells = [(h, w) for h in _window(oh, H, OH) for w in "
            "_window(ow, W, OW)]\n    for h, w in cells:\n        grad_x[n, c, h, w] += grad_out[n, c, oh, ow] / len(cells)",
            "for n, c, oh, ow in np.ndindex(grad_out.shape):\n    r = slice(oh * H // OH, -(-(oh + 1) * H // OH))\n"
            "    k = slice(ow * W // OW, -(-(ow + 1) * W // OW))\n    part = grad_x[n, c, r, k]\n"
            "    part += grad_out[n, c, oh, ow] / part.size",
            "for n, c, oh, ow in np.ndindex(grad_out.shape):\n    r, k = _window(oh, H, OH), _window(ow, W, OW)\n"
            "    share = 1 / (len(r) * len(k))\n    for h in r:\n        for w in k:\n"
            "            grad_x[n, c, h, w] += share * grad_out[n, c, oh, ow]",
            "for oh in range(OH):\n    for ow in range(OW):\n        area = np.zeros((H, W), grad_out.dtype)\n"
            "        area[np.ix_(_window(oh, H, OH), _window(ow, W, OW))] = 1\n"
            "        grad_x += grad_out[:, :, oh, ow, None, None] * (area / area.sum())",
        )
    ),
    "linear": (
        f"{_LINEAR}\nreturn (g @ weight).reshape(x.shape) if need_grad_x else None, g.T @ flat, {_BIAS}",
        f"{_LINEAR}\nreturn grad_out @ weight if need_grad_x else None, (flat.T @ g).T, {_BIAS}",
        f"{_LINEAR}\nreturn np.dot(g, weight).reshape(x.shape) if need_grad_x else None, np.dot(g.T, flat), {_BIAS}",
        f"{_LINEAR}\nreturn np.einsum('...o,oi->...i', grad_out, weight) if need_grad_x else None, "
        f"np.einsum('ro,ri->oi', g, flat), {_BIAS}",
        f"{_LINEAR}\nreturn (weight.T @ g.T).T.reshape(x.shape) if need_grad_x else None, g.T @ flat, np.ones(len(g), "
        f"g.dtype) @ g "
        "if has_bias else None",
        f"{_LINEAR}\ngrad_weight = np.zeros_like(weight)\nfor row, r in zip(g, flat):\n    grad_weight += np.outer(row, r)\n"
        f"return (g @ weight).reshape(x.shape) if need_grad_x else None, grad_weight, {_BIAS}",
        f"{_LINEAR}\nreturn (g[:, :, None] * weight).sum(1).reshape(x.shape) if need_grad_x else None, "
        f"(g[:, :, None] * flat[:, None, :]).sum(0), {_BIAS}",
        f"{_LINEAR}\ngrad_x = np.stack([row @ weight for row in g] or [np.zeros((0, x.shape[-1]), x.dtype)]).reshape(x.shape)\n"
        f"return grad_x if need_grad_x else None, g.T @ flat, {_BIAS}",
        f"{_LINEAR}\ngrad_x, grad_weight = np.zeros_like(flat), np.zeros_like(weight)\nfor r, o, i in np.ndindex(*g.shape, "
        "flat.shape[1]):\n    grad_x[r, i] += g[r, o] * weight[o, i]\n    grad_weight[o, i] += g[r, o] * flat[r, i]\n"
        f"return grad_x.reshape(x.shape) if need_grad_x else None, grad_weight, {_BIAS}",
        f"{_LINEAR}\ngrad_bias = np.zeros(len(weight), x.dtype)\nfor row in g:\n    grad_bias += row\n"
        "return np.tensordot(grad_out, weight, 1) if need_grad_x else None, np.tensordot(g, flat, (0, 0)), "
        "grad_bias if has_bias else None",
    ),
    "conv2d": (
        _WALK + "for n, oc, oh, ow in np.ndindex(grad_out.shape):\n    g = grad_out[n, oc, oh, ow]\n    grad_bias[oc] += g\n"
        f"    for c, kh, kw in np.ndindex(weight.shape[1:]):\n        cell = {_CELL}\n"
        "        grad_padded[cell] += weight[oc, c, kh, kw] * g\n        grad_weight[oc, c, kh, kw] += padded[cell] * g\n"
        + _RETURN,
        _WALK + "for n, oc, oh, ow in np.ndindex(grad_out.shape):\n    for c, kh, kw in np.ndindex(weight.shape[1:]):\n"
        f"        cell = {_CELL}\n        grad_padded[cell] += grad_out[n, oc, oh, ow] * weight[oc, c, kh, kw]\n"
        "        grad_weight[oc, c, kh, kw] += grad_out[n, oc, oh, ow] * padded[cell]\ngrad_bias = grad_out.sum((0, 2, 3))\n"
        + _RETURN,
        _WALK + "for oc, c, kh, kw in np.ndindex(weight.shape):\n    for n, oh, ow in np.ndindex(grad_out[:, 0].shape):\n"
        f"        cell, g = {_CELL}, grad_out[n, oc, oh, ow]\n        grad_padded[cell] += g * weight[oc, c, kh, kw]\n"
        "        grad_weight[oc, c, kh, kw] += g * padded[cell]\ngrad_bias[:] = grad_out.sum((0, 2, 3))\n" + _RETURN,
        _WALK
        + _VIEWS
        + "for tap, view in views.items():\n    g = grad_out[:, tap[0]]\n    grad_padded[view] += g * weight[tap]\n"
        "    grad_weight[tap] = (g * padded[view]).sum()\ngrad_bias = grad_out.sum(axis=(0, 2, 3))\n" + _RETURN,
        _WALK + _VIEWS + "for tap, view in views.items():\n    grad_padded[view] += weight[tap] * grad_out[:, tap[0]]\n"
        "    grad_weight[tap] = np.vdot(grad_out[:, tap[0]], padded[view])\ngrad_bias = np.einsum('nohw->o', grad_out)\n"
        + _RETURN,
        _WALK + "for n, oc, oh, ow in np.ndindex(grad_out.shape):\n    for c, kh, kw in np.ndindex(weight.shape[1:]):\n"
        "        channel, row, column = _cell(oc, c, oh, ow, kh, kw, weight.shape, geometry)\n"
        "        g = grad_out[n, oc, oh, ow]\n"
        "        grad_padded[n, channel, row, column] += g * weight[oc, c, kh, kw]\n"
        "        grad_weight[oc, c, kh, kw] += g * padded[n, channel, row, column]\n"
        "    grad_bias[oc] += grad_out[n, oc, oh, ow]\n" + _RETURN,
        _WALK + "grad_x = np.zeros_like(x)\nfor n, oc, oh, ow in np.ndindex(grad_out.shape):\n    g = grad_out[n, oc, oh, ow]\n"
        f"    grad_bias[oc] += g\n    for c, kh, kw in np.ndindex(weight.shape[1:]):\n        n, channel, row, column = {_CELL}\n"
        "        grad_weight[oc, c, kh, kw] += g * padded[n, channel, row, column]\n"
        "        h, w = row - geometry.top, column - geometry.left\n"
        "        if 0 <= h < x.shape[2] and 0 <= w < x.shape[3]:\n"
        "            grad_x[n, channel, h, w] += g * weight[oc, c, kh, kw]\n"
        "return grad_x if need_grad_x else None, grad_weight, grad_bias if has_bias else None",
        _WALK + "for n in reversed(range(len(x))):\n    for oc, oh, ow in np.ndindex(grad_out.shape[1:]):\n"
        "        for c, kh, kw in np.ndindex(weight.shape[1:]):\n"
        f"            cell, g = {_CELL}, grad_out[n, oc, oh, ow]\n            grad_padded[cell] += g * weight[oc, c, kh, kw]\n"
        "            grad_weight[oc, c, kh, kw] += g * padded[cell]\nfor oc in range(len(weight)):\n"
        "    grad_bias[oc] = grad_out[:, oc].sum()\n" + _RETURN,
        _WALK + "for n, oc, oh, ow in np.ndindex(grad_out.shape):\n    g = grad_out[n, oc, oh, ow]\n    grad_bias[oc] += g\n"
        "    if g == 0: continue\n    for c, kh, kw in np.ndindex(weight.shape[1:]):\n"
        f"        cell = {_CELL}\n        grad_padded[cell] += g * weight[oc, c, kh, kw]\n"
        "        grad_weight[oc, c, kh, kw] += g * padded[cell]\n" + _RETURN,
        _WALK + _VIEWS + "for (oc, c, kh, kw), view in views.items():\n    for n in range(len(x)):\n"
        "        grad_weight[oc, c, kh, kw] += (grad_out[n, oc] * padded[view][n]).sum()\n"
        "        grad_padded[view][n] += grad_out[n, oc] * weight[oc, c, kh, kw]\n"
        "for oc in range(len(weight)):\n    grad_bias[oc] = np.sum(grad_out[:, oc])\n" + _RETURN,
    ),
    "local_response_norm": (
        _LRN + _PULLS + "for j in range(C):\n    s = pull[:, max(0, j - window.after) : j + window.before + 1].sum(1)\n"
        "    grad_x[:, j] = grad_out[:, j] * scale[:, j] ** -window.beta + 2 * window.alpha * x[:, j] * s\nreturn (grad_x,)",
        _LRN + _PULLS + "for j in range(C):\n    s = pull[:, max(0, j - window.after) : j + window.before + 1].sum(1)\n"
        "    grad_x[:, j] = grad_out[:, j] / scale[:, j] ** window.beta + 2 * window.alpha * x[:, j] * s\nreturn (grad_x,)",
        _LRN + "for n, j, *p in np.ndindex(x.shape):\n    s = 0\n"
        "    for c in range(max(0, j - window.after), min(C, j + window.before + 1)):\n"
        "        s += grad_out[n, c, *p] * x[n, c, *p] * scale[n, c, *p] ** (-window.beta - 1)\n"
        "    grad_x[n, j, *p] = grad_out[n, j, *p] * scale[n, j, *p] ** -window.beta "
        "- 2 * window.alpha * window.beta * x[n, j, *p] * s\nreturn (grad_x,)",
        _LRN + "pull = pull_of(grad_out, x, scale, window.beta)\ngrad_x = grad_out / scale**window.beta\nfor c in range(C):\n"
        "    for j in range(max(0, c - window.before), min(C, c + window.after + 1)):\n"
        "        grad_x[:, j] += 2 * window.alpha * x[:, j] * pull[:, c]\nreturn (grad_x,)",
        _LRN + "pull = pull_of(grad_out, x, scale, window.beta)\nfor j in range(C):\n"
        "    near = [c for c in range(C) if c - window.before <= j <= c + window.after]\n"
        "    grad_x[:, j] = grad_out[:, j] / _power(scale[:, j], window.beta) + 2 * window.alpha * x[:, j] * pull[:, "
        "near].sum(1)\n"
        "return (grad_x,)",
        _LRN + "pull = pull_of(grad_out, x, scale, window.beta)\nM = np.zeros((C, C), x.dtype)\nfor c in range(C):\n"
        "    M[c, max(0, c - window.before) : c + window.after + 1] = 1\n"
        "s = np.einsum('cj,nc...->nj...', M, pull)\n"
        "return (grad_out / _power(scale, window.beta) + 2 * window.alpha * x * s,)",
        _LRN + "grad_scale = np.empty_like(x)\nfor i in np.ndindex(x.shape):\n"
        "    grad_scale[i] = -grad_out[i] * x[i] * window.beta / scale[i] ** (window.beta + 1)\n"
        "for n, j, *p in np.ndindex(x.shape):\n    grad_x[n, j, *p] = grad_out[n, j, *p] * scale[n, j, *p] ** -window.beta\n"
        "    for c in range(max(0, j - window.after), min(C, j + window.before + 1)):\n"
        "        grad_x[n, j, *p] += grad_scale[n, c, *p] * window.alpha * 2 * x[n, j, *p]\nreturn (grad_x,)",
        _LRN + "for n, c, *p in np.ndindex(x.shape):\n    g = grad_out[n, c, *p]\n"
        "    grad_x[n, c, *p] += g * scale[n, c, *p] ** -window.beta\n"
        "    pull = -g * x[n, c, *p] * window.beta * scale[n, c, *p] ** (-window.beta - 1)\n"
        "    for j in range(max(0, c - window.before), min(C, c + window.after + 1)):\n"
        "        grad_x[n, j, *p] += pull * window.alpha * 2 * x[n, j, *p]\nreturn (grad_x,)",
        _LRN + "out = x / scale**window.beta\nratio = -window.beta * grad_out * out / scale\nfor j in range(C):\n"
        "    s = ratio[:, max(0, j - window.after) : j + window.before + 1].sum(1)\n"
        "    grad_x[:, j] = grad_out[:, j] / scale[:, j] ** window.beta + 2 * window.alpha * x[:, j] * s\nreturn (grad_x,)",
        _LRN + "pull = np.array([pull_of(grad_out[i], x[i], scale[i], window.beta) for i in np.ndindex(x.shape)], x.dtype)\n"
        "pull = pull.reshape(x.shape)\nfor j in range(C):\n"
        "    s = sum(pull[:, c] for c in range(max(0, j - window.after), min(C, j + window.before + 1)))\n"
        "    grad_x[:, j] = grad_out[:, j] / _power(scale[:, j], window.beta) + x[:, j] * (2 * window.alpha * s)\n"
        "return (grad_x,)",
    ),
    "softmax": tuple(
        f"{_ROWS}\n{body}\nreturn (grad_x,)"
        for body in (
            "rows(grad_x, dim)[...] = s * (g - (g * s).sum(1, keepdims=True))",
            "rows(grad_x, dim)[...] = s * g - s * (g * s).sum(1, keepdims=True)",
            "for o, i in np.ndindex(len(s), s.shape[2]):\n    J = np.diag(s[o, :, i]) - np.outer(s[o, :, i], s[o, :, i])\n"
            "    rows(grad_x, dim)[o, :, i] = J @ g[o, :, i]",
            "for o, i in np.ndindex(len(s), s.shape[2]):\n    p, q = s[o, :, i], g[o, :, i]\n"
            "    rows(grad_x, dim)[o, :, i] = p * (q - p @ q)",
            "for o, i in np.ndindex(len(s), s.shape[2]):\n    p, q = s[o, :, i], g[o, :, i]\n"
            "    rows(grad_x, dim)[o, :, i] = p * (q - np.dot(q, p))",
            "for o, j, i in np.ndindex(s.shape):\n    total = 0\n    for c in range(s.shape[1]):\n"
            "        total += g[o, c, i] * s[o, c, i] * ((c == j) - s[o, j, i])\n    rows(grad_x, dim)[o, j, i] = total",
            "for o, i in np.ndindex(len(s), s.shape[2]):\n    p, q = s[o, :, i], g[o, :, i]\n"
            "    rows(grad_x, dim)[o, :, i] = (np.eye(len(p), dtype=p.dtype) * p - np.outer(p, p)).T @ q",
            "dot = np.einsum('oci,oci->oi', g, s)\nrows(grad_x, dim)[...] = s * (g - dot[:, None])",
            "product = g * s\nrows(grad_x, dim)[...] = product - s * product.sum(axis=1, keepdims=True)",
            "grad_x = out * (grad_out - (grad_out * out).sum(dim, keepdims=True))",
        )
    ),
    "log_softmax": tuple(
        f"{_ROWS}\n{body}\nreturn (grad_x,)"
        for body in (
            "rows(grad_x, dim)[...] = g - np.exp(s) * g.sum(1, keepdims=True)",
            "grad_x = grad_out - np.exp(out) * grad_out.sum(dim, keepdims=True)",
            "for o, i in np.ndindex(len(s), s.shape[2]):\n"
            "    rows(grad_x, dim)[o, :, i] = g[o, :, i] - np.exp(s[o, :, i]) * g[o, :, i].sum()",
            "for o, j, i in np.ndindex(s.shape):\n    total = 0\n    for c in range(s.shape[1]):\n"
            "        total += g[o, c, i] * ((c == j) - np.exp(s[o, j, i]))\n    rows(grad_x, dim)[o, j, i] = total",
            "for o, i in np.ndindex(len(s), s.shape[2]):\n    p = np.exp(s[o, :, i])\n"
            "    rows(grad_x, dim)[o, :, i] = (np.eye(len(p), dtype=p.dtype) - p[:, None]) @ g[o, :, i]",
            "p = np.exp(s)\nrows(grad_x, dim)[...] = -(p * g.sum(1, keepdims=True) - g)",
            "for o, i in np.ndindex(len(s), s.shape[2]):\n    total = sum(g[o, :, i])\n    for j in range(s.shape[1]):\n"
            "        rows(grad_x, dim)[o, j, i] = g[o, j, i] - total * np.exp(s[o, j, i])",
            "total = np.einsum('oci->oi', g)[:, None]\nrows(grad_x, dim)[...] = g - total * np.exp(s)",
            "grad_x = grad_out.copy()\ngrad_x -= np.exp(out) * np.sum(grad_out, axis=dim, keepdims=True)",
            "p = np.exp(out)\ngrad_x = np.subtract(grad_out, p * np.add.reduce(grad_out, dim, keepdims=True))",
        )
    ),
    "cross_entropy": tuple(
        _CE + body + "\n" + _CE_END
        for body in (
            _GRAD_T + "grad_x = g[:, None] * (np.exp(logp) * a.sum(1, keepdims=True) - a)",
            _GRAD_T + "grad_x = log_softmax.naive_backward(-g[:, None] * a, logp, 1)[0]",
            _GRAD_T + "b = -g[:, None] * a\ngrad_x = b - np.exp(logp) * b.sum(1, keepdims=True)",
            _GRAD_T + "grad_x = np.zeros_like(logp)\nfor n, d in np.ndindex(N, D):\n"
            "    grad_x[n, :, d] = g[n, d] * (np.exp(logp[n, :, d]) * a[n, :, d].sum() - a[n, :, d])",
            _GRAD_T + "total = np.einsum('ncd->nd', a)[:, None]\ngrad_x = g[:, None] * (np.exp(logp) * total - a)",
            _GRAD_T + "grad_x = np.zeros_like(logp)\nfor n, c, d in np.ndindex(logp.shape):\n"
            "    grad_x[n, c, d] = g[n, d] * (np.exp(logp[n, c, d]) * sum(a[n, :, d]) - a[n, c, d])",
            "grad_x = g[:, None] * np.exp(logp) * a.sum(1, keepdims=True) - g[:, None] * a\n"
            "for n, c, d in np.ndindex(logp.shape):\n"
            "    grad_t[n, c, d] = -g[n, d] * options.factors.own * options.factors.weight[c] * logp[n, c, d]",
            "grad_x = -(g[:, None] * a) + np.exp(logp) * (g[:, None] * a).sum(1, keepdims=True)\n"
            "for c, w in enumerate(options.factors.weight):\n    grad_t[:, c] = -g * w * options.factors.own * logp[:, c]",
            "b = g[:, None] * a\ngrad_x = np.exp(logp) * b.sum(axis=1, keepdims=True) - b\n"
            "grad_t = -(options.factors.weight[:, None] * options.factors.own * g[:, None] * logp).astype(logp.dtype)",
            "grad_x = log_softmax.numpy_backward(-(g[:, None] * a), logp, 1)[0]\n"
            "for n, d in np.ndindex(N, D):\n"
            "    grad_t[n, :, d] = -g[n, d] * options.factors.own * options.factors.weight * logp[n, :, d]",
        )
    ),
    "sgd": tuple(
        _RULE + body.replace("D;", _D)
        for body in (
            "D;if velocity is not None:\n    velocity[...] = keep * velocity + gain * d\n"
            "    d = d + momentum * velocity if nesterov else velocity\ndata += rate * d",
            "D;if velocity is not None:\n    velocity *= keep\n    velocity += gain * d\n"
            "    d = d + momentum * velocity if nesterov else velocity\ndata[...] = data + rate * d",
            "D;if velocity is None:\n    data += rate * d\n    return\nvelocity[...] = velocity * keep + d * gain\n"
            "if nesterov:\n    data += rate * (d + momentum * velocity)\nelse:\n    data += rate * velocity",
            "D;if velocity is not None:\n    velocity[...] = momentum * velocity + gain * d\n"
            "    d = d + momentum * velocity if nesterov else velocity\ndata += rate * d",
            "for i in np.ndindex(data.shape):\n    d = (-1 if maximize else 1) * grad[i] + weight_decay * data[i]\n"
            "    if velocity is not None:\n        velocity[i] = keep * velocity[i] + gain * d\n"
            "        d = d + momentum * velocity[i] if nesterov else velocity[i]\n    data[i] += rate * d",
            "sign = -1 if maximize else 1\nd = sign * grad + weight_decay * data\nif velocity is not None:\n"
            "    np.copyto(velocity, keep * velocity + gain * d)\n"
            "    d = velocity + 0 if not nesterov else d + momentum * velocity\n"
            "np.add(data, rate * d, out=data)",
            "d = np.negative(grad) if maximize else grad.copy()\nd = d + data * weight_decay\nif velocity is not None:\n"
            "    np.multiply(velocity, keep, out=velocity)\n    np.add(velocity, gain * d, out=velocity)\n"
            "    d = d + momentum * velocity if nesterov else velocity\ndata -= -rate * d",
            "D;v = d if velocity is None else keep * velocity + gain * d\nif velocity is not None:\n    velocity[...] = v\n"
            "    v = d + momentum * v if nesterov else v\ndata[...] += rate * v",
            "D;for i in np.ndindex(data.shape):\n    e = d[i]\n    if velocity is not None:\n"
            "        velocity[i] = keep * velocity[i] + gain * e\n"
            "        e = e + momentum * velocity[i] if nesterov else velocity[i]\n"
            "    data[i] = data[i] + rate * e",
            "g = grad if not maximize else -grad\nif weight_decay:\n    g = g + weight_decay * data\nif velocity is not None:\n"
            "    velocity[...] = velocity * keep\n    velocity += g * gain\n"
            "    g = (g + velocity * momentum) if nesterov else velocity\ndata += g * rate",
        )
    ),
}

# What torch does at an edge is a convention; these right answers have another one.
AT_AN_EDGE = {
    ("relu", 0): "NaN and infinity",  # an infinite gradient times 0
    ("relu", 1): "NaN and infinity",  # a NaN is not above 0
    ("dropout", 3): "NaN and infinity",  # what is dropped is selected, where torch multiplies
    ("max_pool2d", 4): "empty arrays",  # an empty array cannot be reshaped to (0,-1)
    ("adaptive_avg_pool2d", 5): "NaN and infinity",  # a matrix of shares holds zeros, and 0 · ∞ is NaN
    ("log_softmax", 3): "NaN and infinity",  # 0 · ∞ in a Jacobian
    ("cross_entropy", 0): "NaN and infinity",  # classes that do not count are multiplied by 0
    ("sgd", 0): "NaN and infinity",  # a weight decay of 0 is multiplied, not skipped
}

# Mistakes beyond those that exercises/mistakes.py knows by name: (old, new) in the shipped function.
OTHER_MISTAKES: dict[str, tuple[tuple[str, str], ...]] = {
    "relu": (
        ("0 if out[i] <= 0 else grad_out[i]", "max(grad_out[i], 0)"),
        ("0 if out[i] <= 0 else grad_out[i]", "abs(grad_out[i]) if out[i] > 0 else 0"),
        ("0 if out[i] <= 0 else grad_out[i]", "0 if out[i] < 1 else grad_out[i]"),
        ("0 if out[i] <= 0 else grad_out[i]", "0 if out[i] <= 0 else -grad_out[i]"),
        ("0 if out[i] <= 0 else grad_out[i]", "0.01 * grad_out[i] if out[i] <= 0 else grad_out[i]"),
    ),
    "dropout": (
        ("grad_out[i] * (scale", "-grad_out[i] * (scale"),
        ("if mask[i] else 0", "if mask[i] else 1"),
        ("(scale if mask[i] else 0)", "(scale - 1 if mask[i] else 0)"),
    ),
    "max_pool2d": (("h < H", "h < H - 1"), ("+= grad_out[n, c, oh, ow]", "+= max(grad_out[n, c, oh, ow], 0)")),
    "adaptive_avg_pool2d": (("+= share", "-= share"), ("/ len(rows) / len(columns)", "/ (len(rows) + len(columns))")),
    "linear": (("weight[o, i]\n", "weight[o, -1 - i]\n"), ("grad_bias[o] += ", "grad_bias[o] -= ")),
    "conv2d": (),
    "local_response_norm": (),
    "softmax": (("s_c * (g_c - dot)", "s_c * (g_c - dot) / len(g)"), ("s_c * (g_c - dot)", "s_c * s_c * (g_c - dot)")),
    "log_softmax": (),
    "cross_entropy": (),
    "sgd": (),
}
