"""The data: photographs that went through the network's earlier layers, so that zeros, ties and sizes are realistic.

The data are never zeros or constants. Processors may multiply and add those faster or slower than other numbers; branches on them
are always predicted; and a kernel that forgets to read its input would go unnoticed.
"""

from __future__ import annotations

import math
import zlib
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from alexnet_from_scratch.data import datasets
from benchmarks.subjects.cases import LAYERS, MINI, Case, Layer, Network
from scratch import data
from torch_impl.alexnet import AlexNet

Arrays = dict[str, np.ndarray]


def photographs(batch: int, size: int, seed: int) -> Arrays:
    """``x``, crops like those that the networks are trained on (scaled for other sizes; digits for mini), and ``target``."""
    if size == MINI.size:
        images, labels = datasets.digits()
        preprocessing = data.Preprocessing.fit(images, size=size, channels=1, mirror=False)
        return {"x": preprocessing.evaluation(list(images[:batch])), "target": labels[:batch]}
    x, target = data.batch(batch, seed=seed)
    return {"x": x if size == x.shape[-1] else data.resize(x, (size, size)), "target": target}


class Inputs:
    """The arrays of every case, for one batch size and seed."""

    def __init__(self, batch: int, seed: int) -> None:
        self.batch, self.seed = batch, seed
        self._output = cache(self._compute)  # a layer's output is computed once and kept

    def arrays(self, case: Case) -> Arrays:
        """A layer's x, weight, bias, target and grad_out, or a network's images and target."""
        batch = case.batch or self.batch
        if isinstance(case, Layer):
            return self._layer(case, batch)
        state = self._state(case.variant)
        if isinstance(case, Network):
            return {**photographs(batch, case.size, self.seed), **state}
        rng = self._rng(case.name, "grad")
        gradients = {f"grad_{name}": rng.standard_normal(value.shape, dtype=np.float32) for name, value in state.items()}
        return {**state, **gradients}

    def _layer(self, case: Layer, batch: int) -> Arrays:
        x = self._output(case.source)[:batch]
        if len(case.shape) == 1:
            x = x.reshape(batch, -1)  # as the network flattens the last pool's output
        for axis, size in enumerate(case.shape, start=1):
            x = x.take(np.arange(size), axis=axis)
        arrays = {"x": x, **self._parameters(case)}
        if case.operation == "cross_entropy":
            return {**arrays, "target": photographs(batch, 224, self.seed)["target"], "grad_out": np.array(1, np.float32)}
        return {**arrays, "grad_out": self._rng(case.name, "grad").standard_normal((batch, *case.out), dtype=np.float32)}

    def _parameters(self, case: Layer) -> Arrays:
        """The starting weights of torch's layers, U(-1/√n, 1/√n) for n inputs: outputs are never denormal or infinite."""
        if case.weight is None:
            return {}
        rng, bound = self._rng(case.name, "weight"), 1 / math.sqrt(math.prod(case.weight[1:]))
        shapes = {"weight": case.weight, "bias": case.weight[:1]}
        return {name: rng.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()}

    def _compute(self, name: str) -> np.ndarray:
        if not name:
            return photographs(self.batch, 224, self.seed)["x"]
        layer = next(layer for layer in LAYERS if layer.name == name)
        x = self._output(layer.source).reshape(self.batch, *layer.shape)
        tensors = [torch.from_numpy(array) for array in (x, *self._parameters(layer).values())]
        with torch.inference_mode():
            return getattr(F, layer.operation)(*tensors, **layer.params).numpy()

    def _state(self, variant: str) -> Arrays:
        """A network's starting weights, the same for all sides."""
        torch.manual_seed(self.seed)
        return {name: tensor.numpy() for name, tensor in AlexNet(variant).state_dict().items()}

    def _rng(self, *name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(" ".join(name).encode())])
