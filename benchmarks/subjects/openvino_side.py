"""Inference in OpenVINO, on the CPU, in float32."""

from __future__ import annotations

import os
from time import perf_counter

import numpy as np
import openvino

from benchmarks.subjects.cases import Case
from benchmarks.subjects.onnx_model import one_tower
from benchmarks.subjects.sides import Arrays, Side, Subject


def prepare(side: Side, case: Case, arrays: Arrays, copies: int) -> Subject:
    """The network in OpenVINO."""
    return NetworkInOpenvino(arrays)


class NetworkInOpenvino(Subject):
    """Inference of one request at a time."""

    def __init__(self, arrays: Arrays) -> None:
        core = openvino.Core()
        self.model = core.compile_model(
            core.read_model(one_tower(arrays)),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": int(os.environ["OMP_NUM_THREADS"]),  # it does not read the variable itself
                "INFERENCE_PRECISION_HINT": "f32",  # otherwise it would use bfloat16 where the processor has it
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
        self.request = self.model.create_infer_request()
        self.x = arrays["x"]

    def run(self) -> list[float]:
        start = perf_counter()
        self.request.infer({"x": self.x}, share_inputs=True, share_outputs=True)
        return [perf_counter() - start]

    def results(self) -> Arrays:
        return {"logits": np.array(self.request.infer({"x": self.x})["logits"])}

    def pools(self) -> dict[str, int]:
        return {"openvino": int(self.model.get_property("INFERENCE_NUM_THREADS"))}
