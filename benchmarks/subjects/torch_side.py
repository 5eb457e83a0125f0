"""One pass in torch: eager, channels_last or compiled, on the CPU or a GPU.

Each operation's name and parameters are those of ``torch.nn.functional``, so a case can be called directly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.subjects.cases import Case, Layer, Network
from benchmarks.subjects.sides import SGD, Arrays, Side, Subject, shift
from torch_impl.alexnet import AlexNet


def prepare(side: Side, case: Case, arrays: Arrays, copies: int) -> Subject:
    """The case in torch."""
    # What is verified in float32 is timed in float32: a GPU must not round factors to TF32's 10 bits.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if isinstance(case, Layer):
        return LayerInTorch(side, case, arrays, copies)
    if isinstance(case, Network):
        return NetworkInTorch(side, case, arrays)
    return UpdateInTorch(side, arrays)


class Stopwatch:
    """Seconds between marks: by the clock on the CPU, by events in the queue on a GPU."""

    def __init__(self, device: str) -> None:
        self.cuda = torch.device(device).type == "cuda"
        self.marks: list[Any] = []

    def mark(self) -> None:
        """Record this moment."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(perf_counter())

    def laps(self) -> list[float]:
        """The seconds from each mark to the next."""
        marks = list(zip(self.marks, self.marks[1:], strict=False))
        if not self.cuda:
            return [end - start for start, end in marks]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in marks]


def _place(side: Side, array: Any) -> torch.Tensor:
    """A copy of ``array`` on the side's device and, for images and filters, in its memory format."""
    tensor = torch.from_numpy(array).to(side.device, copy=True)
    if side.mode == "channels_last" and tensor.ndim == 4:
        tensor = tensor.to(memory_format=torch.channels_last)
    return tensor


def _compiled(side: Side, function: Callable[..., Any]) -> Callable[..., Any]:
    # With this pass on, torch 2.13 on the CPU reads the gradient of one_tower's last pool before it is written (batch 32), and
    # every convolution's gradient is 0. The side would then be left out as wrong.
    return torch.compile(function, options={"reorder_for_peak_memory": False}) if side.mode == "compile" else function


class LayerInTorch(Subject):
    """``F.operation``, then autograd's backward through its graph."""

    def __init__(self, side: Side, case: Layer, arrays: Arrays, copies: int) -> None:
        self.side = side
        self.function = _compiled(side, partial(getattr(F, case.operation), **case.params))
        self.names = [name for name in ("x", "weight", "bias", "target") if name in arrays]
        self.wanted = [name for name in self.names if name != "target" and (name != "x" or case.needs_grad_x)]
        self.leaves = {name: _place(side, arrays[name]).requires_grad_(name in self.wanted) for name in self.names}
        self.grad_out, self.copies = _place(side, arrays["grad_out"]), copies
        self.move()

    def move(self) -> None:
        x = self.leaves["x"]
        self.buffers = cycle([(self.leaves, self.grad_out)])  # frees the copies first
        self.shifted_by = shift()
        leaves = [self.leaves | {"x": x.detach().clone().requires_grad_(x.requires_grad)} for _ in range(self.copies)]
        self.buffers = cycle([(one, self.grad_out.clone()) for one in leaves])

    def run(self) -> list[float]:
        return self._pass()[0]

    def results(self) -> Arrays:
        _, out, gradients = self._pass()
        named = zip(self.wanted, gradients, strict=True)
        return {"out": _numpy(out), **{f"grad_{name}": _numpy(gradient) for name, gradient in named}}

    def _pass(self) -> tuple[list[float], torch.Tensor, tuple[torch.Tensor, ...]]:
        leaves, grad_out = next(self.buffers)
        arguments, wanted = [leaves[name] for name in self.names], [leaves[name] for name in self.wanted]
        watch = Stopwatch(self.side.device)
        watch.mark()
        out = self.function(*arguments)
        watch.mark()
        gradients = torch.autograd.grad(out, wanted, grad_out)
        watch.mark()
        return watch.laps(), out, gradients


class NetworkInTorch(Subject):
    """Inference in eval mode, or a training step with dropout drawn anew each time."""

    def __init__(self, side: Side, case: Network, arrays: Arrays) -> None:
        self.side = side
        self.model = AlexNet(case.variant)
        self.model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in self.model.state_dict()})
        self.model.to(side.device)
        if side.mode == "channels_last":
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
        self.training = case.phase == "step"
        self.model.train(self.training)
        self.x, self.target = _place(side, arrays["x"]), _place(side, arrays["target"])
        self.optimizer = torch.optim.SGD(self.model.parameters(), **SGD)
        self.loss = _compiled(side, lambda: F.cross_entropy(self.model(self.x), self.target))
        self.logits = _compiled(side, lambda: self.model(self.x))
        self.update = _compiled(side, self.optimizer.step)

    def run(self) -> list[float]:
        watch = Stopwatch(self.side.device)
        watch.mark()
        if self.training:
            self._gradients(self.loss)
            self.update()
        else:
            self._infer()
        watch.mark()
        return watch.laps()

    def results(self) -> Arrays:
        if not self.training:
            return {"logits": _numpy(self._infer())}
        dropouts = [module for module in self.model.modules() if isinstance(module, torch.nn.Dropout)]
        rates = [module.p for module in dropouts]
        for module in dropouts:
            module.p = 0.0  # the libraries draw different masks
        loss = self._gradients(_compiled(self.side, lambda: F.cross_entropy(self.model(self.x), self.target)))
        for module, rate in zip(dropouts, rates, strict=True):
            module.p = rate
        gradients = {f"grad_{name}": parameter.grad for name, parameter in self.model.named_parameters()}
        named = {name: _numpy(gradient) for name, gradient in gradients.items() if gradient is not None}
        return {"loss": _numpy(loss), **named}

    def _gradients(self, function: Callable[[], torch.Tensor]) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = function()
        loss.backward()
        return loss

    @torch.inference_mode()
    def _infer(self) -> torch.Tensor:
        return self.logits()


class UpdateInTorch(Subject):
    """The optimizer alone, over parameters and gradients of a network's shapes."""

    def __init__(self, side: Side, arrays: Arrays) -> None:
        self.side = side
        self.parameters = {name: _place(side, arrays[name]) for name in arrays if not name.startswith("grad_")}
        for name, parameter in self.parameters.items():
            parameter.requires_grad_().grad = _place(side, arrays[f"grad_{name}"])
        self.step = _compiled(side, torch.optim.SGD(self.parameters.values(), **SGD).step)

    def run(self) -> list[float]:
        watch = Stopwatch(self.side.device)
        watch.mark()
        self.step()
        watch.mark()
        return watch.laps()

    def results(self) -> Arrays:
        for _ in range(2):  # only the second step has a velocity to keep
            self.step()
        return {name: _numpy(parameter) for name, parameter in self.parameters.items()}


def _numpy(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().contiguous().numpy()
