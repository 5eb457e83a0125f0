"""One pass in scratch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from itertools import cycle
from time import perf_counter
from typing import Any

import scratch
from benchmarks.subjects.cases import Case, Layer, Network, Update
from benchmarks.subjects.sides import SGD, Arrays, Side, Subject, shift, slowdown
from scratch import alexnet, modules, sgd
from scratch.compiled import memory


def prepare(side: Side, case: Case, arrays: Arrays, copies: int) -> Subject:
    """The case in scratch; the side's rung is set for this whole process."""
    if side.mode:
        scratch.set_rung(side.mode, process=True)
    if isinstance(case, Layer):
        return LayerInScratch(case, arrays, copies, slowdown(side, case))
    if isinstance(case, Update):
        return UpdateInScratch(arrays, slowdown(side, case))
    return NetworkInScratch(case, arrays)


class LayerInScratch(Subject):
    """``forward``, then ``backward`` with forward's cache, as in training."""

    def __init__(self, case: Layer, arrays: Arrays, copies: int, factor: float) -> None:
        operation = import_module(f"scratch.{case.operation}")
        self.forward, self.backward = slowed(operation.forward, factor), slowed(operation.backward, factor)
        self.params = dict(case.params)
        self.backward_params = {} if case.needs_grad_x else {"need_grad_x": False}
        self.names = [name for name in ("x", "weight", "bias", "target") if name in arrays]
        self.arrays, self.copies = arrays, copies
        self.move()

    def move(self) -> None:
        memory.clear()
        self.buffers = cycle([self.arrays])  # frees the copies first
        self.shifted_by = shift()
        copies = [{name: self.arrays[name].copy() for name in ("x", "grad_out")} for _ in range(self.copies)]
        self.buffers = cycle([self.arrays | moved for moved in copies])

    def run(self) -> list[float]:
        return self._pass()[0]

    def results(self) -> Arrays:
        _, out, cache, gradients = self._pass()
        self.note = cache.rung.name
        named = zip(self.names, gradients, strict=False)  # an integer target has no gradient
        return {"out": out, **{f"grad_{name}": gradient for name, gradient in named if gradient is not None}}

    def _pass(self) -> tuple[list[float], Any, Any, tuple[Any, ...]]:
        arrays = next(self.buffers)
        arguments = [arrays[name] for name in self.names]
        start = perf_counter()
        out, cache = self.forward(*arguments, **self.params)
        middle = perf_counter()
        gradients = self.backward(arrays["grad_out"], cache, **self.backward_params)
        return [middle - start, perf_counter() - middle], out, cache, gradients


def slowed(function: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """``function``, made to take ``factor`` times as long by waiting."""
    if factor == 1:
        return function

    def slow(*arguments: Any, **params: Any) -> Any:
        start = perf_counter()
        result = function(*arguments, **params)
        end = start + factor * (perf_counter() - start)
        while perf_counter() < end:
            pass
        return result

    return slow


class NetworkInScratch(Subject):
    """Inference in eval mode, or a training step with dropout drawn anew each time."""

    def __init__(self, case: Network, arrays: Arrays) -> None:
        self.model = alexnet.AlexNet(case.variant)
        self.model.load_state_dict({name: arrays[name] for name in self.model.state_dict()})
        self.x, self.target = arrays["x"], arrays["target"]
        self.training = case.phase == "step"
        self.model.train(self.training)
        self.criterion = modules.CrossEntropyLoss()
        self.optimizer = sgd.SGD(self.model.parameters(), **SGD)

    def run(self) -> list[float]:
        start = perf_counter()
        if self.training:
            self._gradients()
            self.optimizer.step()
        else:
            self.model(self.x)
        return [perf_counter() - start]

    def results(self) -> Arrays:
        if not self.training:
            return {"logits": self.model(self.x)}
        dropouts = [module for _, module in self.model.named_modules() if isinstance(module, modules.Dropout)]
        rates = [module.p for module in dropouts]
        for module in dropouts:
            module.p = 0.0  # the libraries draw different masks
        loss = self._gradients()
        for module, rate in zip(dropouts, rates, strict=True):
            module.p = rate
        gradients = {f"grad_{name}": parameter.grad for name, parameter in self.model.named_parameters()}
        return {"loss": loss, **{name: gradient for name, gradient in gradients.items() if gradient is not None}}

    def _gradients(self) -> Any:
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(self.x), self.target)
        self.model.backward(self.criterion.backward())
        return loss


class UpdateInScratch(Subject):
    """The optimizer alone, over parameters and gradients of a network's shapes."""

    def __init__(self, arrays: Arrays, factor: float) -> None:
        self.parameters = {}
        for name in arrays:
            if not name.startswith("grad_"):
                # Copied into memory that scratch allocates, as torch's side does with torch's memory: no kernel leaves arrays
                # laid out like those that come from the pipe.
                self.parameters[name] = modules.Parameter(memory.copy(arrays[name]))
                self.parameters[name].grad = memory.copy(arrays[f"grad_{name}"])
        self.step = slowed(sgd.SGD(self.parameters.values(), **SGD).step, factor)

    def run(self) -> list[float]:
        start = perf_counter()
        self.step()
        return [perf_counter() - start]

    def results(self) -> Arrays:
        for _ in range(2):  # only the second step has a velocity to keep
            self.step()
        return {name: parameter.data for name, parameter in self.parameters.items()}
