"""Inference in ONNX Runtime, on its CPU provider."""

from __future__ import annotations

import os
from time import perf_counter

import onnxruntime

from benchmarks.subjects.cases import Case
from benchmarks.subjects.onnx_model import one_tower
from benchmarks.subjects.sides import Arrays, Side, Subject


def prepare(side: Side, case: Case, arrays: Arrays, copies: int) -> Subject:
    """The network in ONNX Runtime."""
    return NetworkInOnnxRuntime(arrays)


class NetworkInOnnxRuntime(Subject):
    """Inference, with all of ONNX Runtime's graph optimizations."""

    def __init__(self, arrays: Arrays) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])  # it does not read the variable itself
        self.session = onnxruntime.InferenceSession(one_tower(arrays), options, providers=["CPUExecutionProvider"])
        self.x = arrays["x"]

    def run(self) -> list[float]:
        start = perf_counter()
        self.session.run(None, {"x": self.x})
        return [perf_counter() - start]

    def results(self) -> Arrays:
        return {"logits": self.session.run(None, {"x": self.x})[0]}

    def pools(self) -> dict[str, int]:
        return {"onnxruntime": self.session.get_session_options().intra_op_num_threads}
