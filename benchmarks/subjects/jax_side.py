"""one_tower in JAX, compiled by XLA as a whole: inference, or a training step."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.subjects.cases import ONE_TOWER, Case, Network
from benchmarks.subjects.sides import SGD, Arrays, Side, Subject, parameters

DROPOUT = 0.5
Weights = list[jax.Array]  # in the order of the layers; a dict's order would be lost


def prepare(side: Side, case: Case, arrays: Arrays, copies: int) -> Subject:
    """The network in JAX."""
    assert isinstance(case, Network)
    return NetworkInJax(case, arrays)


def logits_of(weights: Weights, x: jax.Array, key: jax.Array | None) -> jax.Array:
    """The network; with a key, hidden values of the linears are dropped."""
    arrays = iter(weights)
    for layer in ONE_TOWER:
        params = layer.params
        if layer.operation == "conv2d":
            padding = [(params["padding"],) * 2] * 2
            dims = ("NCHW", "OIHW", "NCHW")
            x = lax.conv_general_dilated(x, next(arrays), (params["stride"],) * 2, padding, dimension_numbers=dims)
            x = x + next(arrays)[:, None, None]
        elif layer.operation == "linear":
            x = x.reshape(len(x), -1) @ next(arrays).T + next(arrays)
        elif layer.operation == "max_pool2d":
            window, strides = ((1, 1, params[name], params[name]) for name in ("kernel_size", "stride"))
            x = lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID")
        elif layer.operation == "local_response_norm":
            size = params["size"]
            sums = lax.reduce_window(x * x, 0.0, lax.add, (1, size, 1, 1), (1, 1, 1, 1), "SAME")
            x = x / (params["k"] + params["alpha"] / size * sums) ** params["beta"]
        else:
            x = jax.nn.relu(x)
            if key is not None and x.ndim == 2:
                key, drawn = jax.random.split(key)
                x = jnp.where(jax.random.bernoulli(drawn, 1 - DROPOUT, x.shape), x / (1 - DROPOUT), 0.0)
    return x


def loss_of(weights: Weights, x: jax.Array, target: jax.Array, key: jax.Array | None) -> jax.Array:
    """The mean cross entropy."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits_of(weights, x, key)), target[:, None], axis=1)
    return -chosen.mean()


@partial(jax.jit, donate_argnums=(0, 1))
def step(
    weights: Weights, velocity: Weights, x: jax.Array, target: jax.Array, key: jax.Array
) -> tuple[Weights, Weights, jax.Array]:
    """One step of SGD, as in torch. The velocities begin as zeros."""
    loss, gradients = jax.value_and_grad(loss_of)(weights, x, target, key)
    moved = [
        SGD["momentum"] * moving + gradient + SGD["weight_decay"] * weight
        for weight, moving, gradient in zip(weights, velocity, gradients, strict=True)
    ]
    return [weight - SGD["lr"] * moving for weight, moving in zip(weights, moved, strict=True)], moved, loss


class NetworkInJax(Subject):
    """Inference without dropout, or a training step with dropout drawn anew each time."""

    def __init__(self, case: Network, arrays: Arrays) -> None:
        self.training = case.phase == "step"
        self.names = parameters(arrays)
        self.weights = [jnp.asarray(arrays[name]) for name in self.names]
        self.velocity = [jnp.zeros_like(weight) for weight in self.weights]
        self.x, self.target = jnp.asarray(arrays["x"]), jnp.asarray(arrays["target"].astype(np.int32))
        self.infer = jax.jit(partial(logits_of, key=None))
        self.steps = 0

    def run(self) -> list[float]:
        start = perf_counter()
        if self.training:
            self.steps += 1
            key = jax.random.key(self.steps)
            self.weights, self.velocity, done = step(self.weights, self.velocity, self.x, self.target, key)
            jax.block_until_ready((self.weights, self.velocity, done))
        else:
            self.infer(self.weights, self.x).block_until_ready()
        return [perf_counter() - start]

    def results(self) -> Arrays:
        if not self.training:
            return {"logits": np.asarray(self.infer(self.weights, self.x))}
        loss, gradients = jax.jit(jax.value_and_grad(partial(loss_of, key=None)))(self.weights, self.x, self.target)
        self.run()  # compiles the training step: another function computed these gradients
        named = zip(self.names, gradients, strict=True)
        return {"loss": np.asarray(loss), **{f"grad_{name}": np.asarray(gradient) for name, gradient in named}}

    def pools(self) -> dict[str, int]:
        """XLA does not say how many threads it has, so they are counted by their name."""
        names = [file.read_text(encoding="utf-8").strip() for file in Path("/proc/self/task").glob("*/comm")]
        return {"jax": names.count("tf_XLAEigen")} if names else {}
