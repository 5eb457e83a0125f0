"""Kill a training run again and again, resume it every time, and check that nothing is lost.

``python -m tests.kills --side scratch --kills 50`` does it fifty times at random moments. A run that is killed at any moment,
even while it writes a file, and then resumed must end with the same bits as an undisturbed run: weights, velocities, and all
lines of metrics except their times.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from alexnet_from_scratch.runs import files
from alexnet_from_scratch.runs.options import Options

# Tiny, and with a checkpoint after every other step, so that kills hit the writing of files as often as anything else.
OPTIONS = Options(batch=2, max_steps=24, checkpoint_every=2, keep=2, threads=1, workers=1, no_pictures=True)


def options_of(side: str) -> Options:
    """``OPTIONS`` as that side's own."""
    kind = {"scratch": Options, "torch_impl": importlib.import_module("torch_impl.train").TorchOptions}[side]
    return kind(**vars(OPTIONS))


def child(side: str, options: Options) -> None:
    """Train, in a forked process, with nothing on the screen."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        importlib.import_module(f"{side}.train").train(options)


def start(side: str, options: Options) -> Any:
    """A process that trains; it is forked, so that it need not import everything again."""
    process = multiprocessing.get_context("fork").Process(target=child, args=(side, options))
    process.start()
    return process


def whole(side: str, options: Options) -> None:
    """Train to the end.

    Raises:
        RuntimeError: the run failed.
    """
    process = start(side, options)
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{options.out}: the run ended with exit code {process.exitcode}")


def outcome(folder: Path) -> tuple[list[dict[str, Any]], dict[str, bytes], dict[str, bytes]]:
    """Metrics without times, and the arrays of the weights and of the last checkpoint."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    last = max((folder / "checkpoints").glob("step-*"))

    def content(path: Path, kind: str) -> dict[str, bytes]:
        return {name: array.tobytes() for name, array in files.read_header(path, kind).read().items()}

    return lines, content(folder / "weights.safetensors", "weights"), content(last, "checkpoint")


def kill(side: str, folder: Path, kills: int, rng: random.Random, longest: float) -> int:
    """Train in ``folder``; kill the run ``kills`` times, resume it each time, let it finish; return how often it was hit.

    Kills come at random moments up to ``longest`` seconds after a start. A run that finishes earlier is started again in another
    folder.
    """
    options = replace(options_of(side), out=str(folder))
    hits = 0
    for _ in range(kills):
        process = start(side, resumed(side, options))
        process.join(rng.uniform(0, longest))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            hits += 1
        process.join()
        if process.exitcode == 0:
            break
    whole(side, resumed(side, options))
    return hits


def resumed(side: str, options: Options) -> Options:
    """With ``resume``, if the run got as far as its first checkpoint."""
    return replace(options, resume=bool(options.checkpoints(side).paths()))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m tests.kills", description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=("scratch", "torch_impl"), default="scratch")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    importlib.import_module("sklearn.datasets")  # once, for all forks
    with tempfile.TemporaryDirectory() as folder:
        # Once, to compile the kernels: kills should hit training, not always the compiler.
        whole(arguments.side, replace(options_of(arguments.side), out=f"{folder}/compiled", max_steps=1))
        began = time.monotonic()
        whole(arguments.side, replace(options_of(arguments.side), out=f"{folder}/undisturbed"))
        longest = time.monotonic() - began
        expected = outcome(Path(folder, "undisturbed"))
        hits = runs = 0
        while hits < arguments.kills:
            runs += 1
            out = Path(folder, f"killed-{runs}")
            hits += kill(arguments.side, out, min(10, arguments.kills - hits), rng, longest)
            if outcome(out) != expected:
                sys.exit(f"run {runs}, after {hits} kills in all: it did not end like the undisturbed one")
    print(f"{arguments.side}: killed {hits} times in {runs} runs; every one ended with the bits of the undisturbed run")


if __name__ == "__main__":
    main()
