"""Train AlexNet with torch: ``python -m torch_impl.train``; line by line what ``scratch/train.py`` does by hand.

Several processes share the batches under ``torchrun --nproc-per-node=2 -m torch_impl.train``, and arrive at the same weights as
one process, up to rounding.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from alexnet_from_scratch.data.datasets import open_dataset
from alexnet_from_scratch.data.loader import Loader, sample
from alexnet_from_scratch.runs import session
from alexnet_from_scratch.runs.checkpoints import Purpose, seeds
from alexnet_from_scratch.runs.evaluation import Evaluation
from alexnet_from_scratch.runs.options import Options, flag
from torch_impl.alexnet import AlexNet
from torch_impl.data import Preprocessing, mean_probabilities, scaled
from torch_impl.modules import CrossEntropyLoss, Dropout, Linear, Module
from torch_impl.pictures import stages
from torch_impl.sgd import SGD


@dataclass(frozen=True)
class TorchOptions(Options):
    """The flags that torch has in addition to scratch's."""

    amp: bool = flag(False, "mixed precision: layers compute in bfloat16 where that is safe")
    channels_last: bool = flag(False, "keep images and weights in the channels_last memory format")
    compile: bool = flag(False, "torch.compile")


def train(options: TorchOptions) -> dict[str, Any]:
    """Train a network as the options say, and return the summary of the run; raises the same as scratch's."""
    with Workers.joined(options) as workers:
        torch.set_num_threads(options.threads or torch.get_num_threads())
        dataset = open_dataset(
            options.data,
            options.data_dir,
            skip_broken=options.skip_broken,
            seed=options.seed,
            workers=options.workers,
            for_size=scaled(options.size),
        )
        preprocessing = Preprocessing.fit(
            sample(dataset.train, workers=options.workers), size=options.size, channels=options.channels, mirror=dataset.mirror
        )
        share = (options.batch, options.seed, options.workers, workers.rank, workers.world)
        loader = Loader(dataset.train, preprocessing, *share)
        held_out = Loader(dataset.test, preprocessing, *share)

        torch.manual_seed(int(seeds(options.seed, Purpose.WEIGHTS).generate_state(1)[0]))
        model = AlexNet(options.variant, len(dataset.classes), dropout=options.dropout, init=options.init)
        model.to(workers.device)
        if options.channels_last:
            for parameter in model.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.to(memory_format=torch.channels_last)
        criterion = CrossEntropyLoss(reduction="sum")
        optimizer = SGD(
            model.parameters(), options.lr, options.momentum, weight_decay=options.weight_decay, update=options.update
        )
        run = session.Run(
            options,
            "torch_impl",
            dataset,
            preprocessing.state_dict(),
            Learner(model, optimizer),
            total=workers.total,
            main=workers.rank == 0,
        )
        with run:
            network = workers.together(model, compiled=options.compile)
            for epoch in run.epochs():
                for images, labels in workers.moved(run.batches(loader.training(epoch, first=run.position.batch))):
                    draw_masks(model, options.seed, run.position.step, run.batch_size, workers)
                    optimizer.param_groups[0]["lr"] = run.schedule.rate
                    optimizer.zero_grad()
                    with torch.autocast(workers.device.type, torch.bfloat16, enabled=options.amp):
                        logits = network(images)
                        loss = criterion(logits, labels)
                    # The mean over the whole batch: DistributedDataParallel averages over processes, whose shares may differ in
                    # size.
                    (loss * (workers.world / run.batch_size)).backward()
                    optimizer.step()
                    run.after_step(loss.item(), int((logits.argmax(dim=1) == labels).sum()))
                run.after_epoch(evaluate(model, held_out, len(dataset.classes), workers, ten_crops=options.ten_crops))
            return run.finish(stages)


@torch.no_grad()
def evaluate(
    model: AlexNet, loader: Loader[torch.Tensor], classes: int, workers: Workers, *, ten_crops: bool = False
) -> Evaluation:
    """Evaluate the network on this process's share of held-out images; the network is in training mode afterwards."""
    model.eval()
    evaluation = Evaluation.of(classes)
    for images, labels in workers.moved(loader.evaluation(ten_crops=ten_crops)):
        crops = images.shape[1] if images.ndim == 5 else 1
        logits = model(images.reshape(-1, *images.shape[-3:]))  # (N,C,H,W) or (N,10,C,H,W) -> (N or N·10,classes)
        probabilities = mean_probabilities(logits.reshape(len(labels), crops, classes))
        evaluation.add(probabilities.cpu().numpy(), labels.cpu().numpy())
    model.train()
    return evaluation


def draw_masks(model: AlexNet, seed: int, step: int, batch_size: int, workers: Workers) -> None:
    """Make what a step drops depend only on seed and step, not on earlier steps or the number of processes.

    The masks are drawn for the whole batch; this process takes the rows of its images.
    """
    start = int(seeds(seed, Purpose.DROPOUT, step).generate_state(1, np.uint64)[0])
    rng = torch.Generator(workers.device).manual_seed(start)
    rows = workers.share(batch_size)
    # In every variant a dropout layer is followed by a linear layer, which knows the width.
    for dropout, linear in itertools.pairwise(model.get_submodule("classifier").children()):
        if isinstance(dropout, Dropout) and isinstance(linear, Linear):
            drawn = torch.rand(batch_size, linear.in_features, generator=rng, device=workers.device)
            dropout.mask = drawn[rows] >= dropout.p


@dataclass(frozen=True)
class Learner:
    """What a checkpoint keeps: the network's parameters and the optimizer's velocities."""

    model: AlexNet
    optimizer: SGD

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays, by name."""
        parameters = self.model.state_dict()
        velocities = self.optimizer.state_dict()["state"]
        tensors = {f"network.{name}": tensor for name, tensor in parameters.items()}
        for i, name in enumerate(parameters):
            if (velocity := velocities.get(i, {}).get("momentum_buffer")) is not None:
                tensors[f"velocity.{name}"] = velocity
        return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from these arrays."""
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        names = list(self.model.state_dict())
        self.model.load_state_dict({name: tensors[f"network.{name}"] for name in names if f"network.{name}" in tensors})
        velocities = {
            i: {"momentum_buffer": tensors[f"velocity.{name}"]} for i, name in enumerate(names) if f"velocity.{name}" in tensors
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": velocities})


@dataclass(frozen=True)
class Workers:
    """The processes that train together: this one is number ``rank`` of ``world``, and trains on ``device``."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    @contextlib.contextmanager
    def joined(cls, options: Options) -> Iterator[Workers]:
        """The processes that torchrun has started, or this one alone.

        Raises:
            ValueError: there is no such device; or the environment describes the processes wrongly.
            ConnectionError: another process was lost on the way.
        """
        if options.device not in ("cpu", "cuda") or (options.device == "cuda" and not torch.cuda.is_available()):
            raise ValueError(f"--device must be cpu, or cuda where torch finds a GPU, got {options.device!r}")
        rank, local_rank, world = (_from_torchrun(*entry) for entry in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1)))
        if rank >= world:
            raise ValueError(f"RANK must be below WORLD_SIZE, as torchrun sets them, got {rank} and {world}")
        device = torch.device(options.device)
        if options.device == "cuda":
            # The same bits every time where CUDA has deterministic kernels; where it has none, torch warns.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            device = torch.device("cuda", local_rank)
            torch.cuda.set_device(device)
        if world == 1:
            yield cls(rank, world, device)
            return
        dist.init_process_group("nccl" if options.device == "cuda" else "gloo")
        # When a process is lost, torchrun asks the others to stop: that must not keep this process from reporting the loss. A
        # run still obeys the request, and half a minute later torchrun kills any process that has not ended.
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            yield cls(rank, world, device)
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise ConnectionError(
                f"process {rank} of {world} lost another one. Continue from the last checkpoint with --resume; "
                "the number of processes may differ"
            ) from error
        dist.destroy_process_group()
        signal.signal(signal.SIGTERM, before)

    def share(self, batch_size: int) -> slice:
        """The rows of a batch that belong to this process, as ``Loader`` distributes them."""
        return slice(*(batch_size * rank // self.world for rank in (self.rank, self.rank + 1)))

    def total(self, numbers: np.ndarray) -> np.ndarray:
        """The sum over all processes."""
        if self.world == 1:
            return numbers
        tensor = torch.from_numpy(numbers).to(self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    def together(self, model: AlexNet, *, compiled: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        """The network, with gradients averaged over all processes."""
        network: Module = model if self.world == 1 else DistributedDataParallel(model)
        # With this pass on, torch 2.13 gets AlexNet's gradients wrong on the CPU (see DECISIONS.md).
        return torch.compile(network, options={"reorder_for_peak_memory": False}) if compiled else network

    def moved(self, batches: Iterator[tuple[torch.Tensor, np.ndarray]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches on this process's device."""
        return ((images.to(self.device), torch.from_numpy(labels).to(self.device)) for images, labels in batches)


def _from_torchrun(name: str, least: int) -> int:
    """What torchrun has put into the environment; without torchrun there is one process, number 0."""
    text = os.environ.get(name, str(least))
    if not text.isdecimal() or len(text) > 9 or int(text) < least:
        raise ValueError(f"{name} must be an int of {least} or more, as torchrun sets it, got {text!r}")
    return int(text)


if __name__ == "__main__":
    session.command(train, TorchOptions.parse("torch_impl"))
