"""What happens to a photograph in each network, found by sending one through; all as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from alexnet_from_scratch.variants import VARIANTS
from scratch import use_rung
from scratch.alexnet import AlexNet
from scratch.core.module import Module
from scratch.modules import Conv2d, Flatten, Linear, Sequential

CLASSES = {"mini": 10}
MIB = 2**20


class Stage(NamedTuple):
    """One layer, for one image."""

    name: str
    what: str
    shape: tuple[int, ...]
    parameters: int
    macs: int  # multiply-adds, of layers that consist of them
    column_cells: int  # numbers in im2col's matrix

    @property
    def cells(self) -> int:
        return math.prod(self.shape)


@cache
def stages(variant: str) -> tuple[Stage, ...]:
    """Every layer of a network in order, found by running it."""
    table = VARIANTS[variant]
    x = np.zeros((1, table.in_channels, table.size, table.size), np.float32)
    found = []
    # Rungs that need no compiler: the shapes are the same on every rung.
    with use_rung("numpy"), use_rung(conv2d="im2col"):
        for name, layer in _layers(AlexNet(variant, CLASSES.get(variant, 1000)).eval()):
            x = layer(x)
            found.append(_stage(name, layer, x.shape[1:]))
    return tuple(found)


def _layers(model: Module) -> Iterator[tuple[str, Module]]:
    return ((name, module) for name, module in model.named_modules() if not isinstance(module, Sequential))


def _stage(name: str, layer: Module, shape: tuple[int, ...]) -> Stage:
    macs = column_cells = 0
    if isinstance(layer, Conv2d):
        _, C_group, KH, KW = layer.weight.data.shape
        macs = math.prod(shape) * C_group * KH * KW
        column_cells = layer.in_channels * KH * KW * math.prod(shape[1:])
    if isinstance(layer, Linear):
        macs = layer.weight.data.size
    parameters = sum(parameter.data.size for parameter in layer.parameters())
    return Stage(name, repr(layer), shape, parameters, macs, column_cells)


def layer_table(variant: str) -> str:
    """Layer by layer: shapes, parameters, multiply-adds and memory for one image."""
    lines = [
        "| layer | what it is | output | parameters | multiply-adds | output, MiB | weights, MiB | column matrix, MiB |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    all_stages = [stage for stage in stages(variant) if not stage.what.startswith(Flatten.__name__)]
    for stage in all_stages:
        lines.append(
            f"| {stage.name} | `{stage.what}` | {'×'.join(map(str, stage.shape))} | {_count(stage.parameters)} | "
            f"{_count(stage.macs)} | {_mib(stage.cells)} | {_mib(stage.parameters)} | {_mib(stage.column_cells)} |"
        )
    totals = [sum(getattr(stage, name) for stage in all_stages) for name in ("parameters", "macs", "cells")]
    lines.append(f"| **all** | | | **{totals[0]:,}** | **{totals[1]:,}** | **{_mib(totals[2])}** | **{_mib(totals[0])}** | |")
    return "\n".join(lines)


def variant_table() -> str:
    """The networks side by side."""
    lines = ["| variant | image | parameters | multiply-adds an image | of them in conv layers |", "|---|---|---:|---:|---:|"]
    for variant, table in VARIANTS.items():
        all_stages = stages(variant)
        macs = sum(stage.macs for stage in all_stages)
        convs = sum(stage.macs for stage in all_stages if stage.column_cells)
        parameters = sum(stage.parameters for stage in all_stages)
        lines.append(
            f"| {variant} | {table.in_channels}×{table.size}×{table.size} | {parameters:,} | {macs:,} | {convs / macs:.0%} |"
        )
    return "\n".join(lines)


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _mib(cells: int) -> str:
    return f"{cells * np.dtype(np.float32).itemsize / MIB:,.2f}" if cells else ""
