"""The flags of a training run, the same on both sides."""

from __future__ import annotations

import argparse
import math
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from alexnet_from_scratch.data.datasets import NAMES
from alexnet_from_scratch.paths import ABSENT, FOLDER, kind
from alexnet_from_scratch.runs import schedule
from alexnet_from_scratch.runs.checkpoints import Checkpoint, Checkpoints
from alexnet_from_scratch.runs.screen import reason
from alexnet_from_scratch.runs.state import require_fields
from alexnet_from_scratch.text import CommandLine
from alexnet_from_scratch.variants import VARIANTS

# What may change when a run is resumed: how long and where it runs, not what it computes.
MAY_CHANGE = {
    "data_dir",
    "epochs",
    "max_steps",
    "threads",
    "workers",
    "device",
    "out",
    "checkpoint_every",
    "keep",
    "no_pictures",
    "resume",
}
# What a flag needs in order to have an effect: another flag, with one of these values.
NEEDS = {
    "data_dir": ("data", ("fashion-mnist", "imagefolder")),
    "skip_broken": ("data", ("imagefolder",)),
    "patience": ("schedule", ("plateau",)),
    "lr_every": ("schedule", ("steps",)),
}
KINDS = {"str": str, "int": int, "float": float, "bool": bool, "None": type(None)}
MOST_THREADS = 1024


def flag(default: Any, text: str, **argparse_arguments: Any) -> Any:
    """A field of ``Options``, with what argparse must know about it."""
    return field(default=default, metadata={"help": text, **argparse_arguments})


@dataclass(frozen=True)
class Options:
    """A field for each flag, whose help text says what it means.

    Raises:
        ValueError: a value is out of its range; the message names the flag.
    """

    data: str = flag("digits", "what to learn", choices=NAMES)
    data_dir: str | None = flag(None, "the folder with fashion-mnist's four files, or with your images", metavar="DIR")
    skip_broken: bool = flag(False, "leave out files that cannot be read, and count them; otherwise they are an error")
    variant: str = flag("mini", "the network; mini sees 28×28 in grey, the others 224×224 in colour", choices=tuple(VARIANTS))
    init: str = flag("torch", "starting weights: torch's default, or the paper's N(0, 0.01)", choices=("torch", "paper"))
    dropout: float = flag(0.5, "share of hidden values that are dropped", type=float, metavar="P")
    batch: int = flag(32, "images per step", type=int, metavar="N")
    epochs: int = flag(25, "how often the run goes through all images", type=int, metavar="N")
    max_steps: int | None = flag(None, "stop after this many steps", type=int, metavar="N")
    lr: float = flag(0.004, "learning rate at the start", type=float)
    schedule: str = flag(
        "steps", "when the learning rate falls to a tenth: by epochs, or when accuracy stops rising", choices=schedule.KINDS
    )
    patience: int = flag(5, "with plateau: epochs without a better accuracy before the rate falls", type=int, metavar="EPOCHS")
    lr_every: int = flag(20, "with steps: epochs between two falls of the rate", type=int, metavar="EPOCHS")
    momentum: float = flag(0.9, "the part of the velocity that a step keeps", type=float)
    weight_decay: float = flag(5e-4, "how much of a weight is added to its gradient", type=float)
    update: str = flag("torch", "torch's form of the update, or the paper's (see sgd.py)", choices=("torch", "paper"))
    ten_crops: bool = flag(False, "test with ten crops of each image, as the paper does")
    seed: int = flag(0, "seed of the starting weights, dropout, order and augmentation", type=int)
    threads: int | None = flag(None, "threads that compute; default: all cores", type=int, metavar="N")
    workers: int = flag(2, "threads that read images", type=int, metavar="N")
    device: str = flag("cpu", "where torch runs: cpu or cuda; scratch runs on cpu only")
    out: str | None = flag(None, "the run's folder; default: runs/SIDE-VARIANT-DATA", metavar="DIR")
    checkpoint_every: int = flag(100, "steps between two checkpoints", type=int, metavar="STEPS")
    keep: int = flag(3, "how many checkpoints to keep", type=int, metavar="N")
    no_pictures: bool = flag(False, "draw no pictures at the end of the run")
    resume: bool = flag(False, "continue from the run's last checkpoint; a flag that is not given keeps its value")

    def __post_init__(self) -> None:
        for option in fields(self):
            self._require_kind(option)
        low = {"batch": 1, "epochs": 1, "max_steps": 1, "patience": 1, "lr_every": 1, "seed": 0, "threads": 1, "workers": 1}
        low |= {"checkpoint_every": 1, "keep": 1, "lr": 0, "momentum": 0, "weight_decay": 0, "dropout": 0}
        for name, least in low.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise ValueError(f"{spelled(name)} must be {least} or more, got {value}")
        if self.dropout > 1:
            raise ValueError(f"--dropout must be a probability, got {self.dropout}")
        for name in ("threads", "workers"):
            if (getattr(self, name) or 0) > MOST_THREADS:
                raise ValueError(f"{spelled(name)} must be {MOST_THREADS} or less, got {getattr(self, name)}")
        if self.data == "imagefolder" and self.data_dir is None:
            raise ValueError("--data imagefolder needs the folder that its images are in: --data-dir DIR")
        self.require_effect(option.name for option in fields(self) if getattr(self, option.name) != option.default)

    def require_effect(self, names: Iterable[str]) -> None:
        """Raise ValueError if one of these flags has no effect with the values of the other flags."""
        for name in names:
            other, values = NEEDS.get(name, ("data", NAMES))
            if (value := getattr(self, other)) not in values:
                needed = " or ".join(f"{spelled(other)} {value}" for value in values)
                raise ValueError(f"{spelled(name)} must come with {needed}: with {spelled(other)} {value} it does nothing")

    def _require_kind(self, option: Field[Any]) -> None:
        """Raise ValueError if the value has the wrong type for the option, or is not one of its choices."""
        value, kinds = getattr(self, option.name), [KINDS[kind] for kind in str(option.type).split(" | ")]
        if type(value) not in kinds and not (type(value) is int and float in kinds and abs(value) < 2**1000):
            raise ValueError(f"{spelled(option.name)} must be {option.type}, got {reprlib.repr(value)}")
        choices = option.metadata.get("choices")
        if choices and value not in choices:
            raise ValueError(f"{spelled(option.name)} must be one of {', '.join(choices)}, got {reprlib.repr(value)}")
        if value == "":
            raise ValueError(f"{spelled(option.name)} must name a folder, got nothing")

    @property
    def channels(self) -> int:
        """The number of channels of the network's images."""
        return VARIANTS[self.variant].in_channels

    @property
    def size(self) -> int:
        """The height and width of the images."""
        return VARIANTS[self.variant].size

    def folder(self, side: str) -> Path:
        """The folder of this side's run."""
        return Path(self.out or f"runs/{side}-{self.variant}-{self.data}")

    def checkpoints(self, side: str) -> Checkpoints:
        """The checkpoints in that folder."""
        return Checkpoints(self.folder(side) / "checkpoints", side, self.keep)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """The options of the run that saved the checkpoint.

        Raises:
            ValueError: it holds unknown options or impossible values; the message names file and option.
        """
        require_fields(checkpoint.path, "its state", checkpoint.state, ("options", "data", "position"))
        saved = checkpoint.state["options"]
        require_fields(checkpoint.path, "options", saved, [option.name for option in fields(cls)])
        try:
            return cls(**saved)
        except ValueError as error:
            raise ValueError(f"{checkpoint.path}: options: {error}") from error

    def require_same_run(self, path: Path, other: Options) -> None:
        """Raise ValueError if the run of the checkpoint ``path``, whose options are ``other``, computes something else than this
        one.
        """
        # With a plateau schedule, how a run is tested affects what it learns: the test decides when the learning rate drops.
        may_change = MAY_CHANGE if self.schedule == "plateau" else MAY_CHANGE | {"ten_crops"}
        changed = [name for name in self.differences(other) if name not in may_change]
        if changed:
            differences = ", ".join(f"{spelled(name)} {getattr(other, name)}, not {getattr(self, name)}" for name in changed)
            raise ValueError(f"{path}: belongs to a run with {differences}. This cannot change in the middle of a run")

    def differences(self, other: Options) -> list[str]:
        """The names of the options that differ."""
        return [option.name for option in fields(self) if getattr(self, option.name) != getattr(other, option.name)]

    @classmethod
    def parse(cls, side: str, arguments: Sequence[str] | None = None) -> Self:
        """The options on the command line of ``python -m SIDE.train``; exits with a message if they are wrong."""
        parser = CommandLine(f"python -m {side}.train", "Train AlexNet, stop it, resume it.")
        for option in fields(cls):
            details: dict[str, Any] = dict(option.metadata)
            details["help"] += f" (default: {option.default})" if option.default not in (None, False) else ""
            if option.default is False:
                details["action"] = "store_true"
            parser.add_argument(spelled(option.name), default=argparse.SUPPRESS, **details)
        given = vars(parser.parse_args(arguments))
        try:
            options = cls(**given)
            if options.out is not None and kind(Path(options.out)) not in (FOLDER, ABSENT):
                raise ValueError(f"--out must name a folder, and {options.out} is {kind(Path(options.out))}")
            if options.resume and (saved := options.checkpoints(side).newest(report=lambda _: None)):
                # The run's folder is the one in which it was found, even if the run began in another.
                options = cls(**{**asdict(cls.of(saved)), "out": options.out, **given})
            options.require_effect(given)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            parser.refuse(reason(error))
        return options


def spelled(name: str) -> str:
    """The flag of an option."""
    return "--" + name.replace("_", "-")
