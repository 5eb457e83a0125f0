"""one_tower as an ONNX model, with the weights that every side gets: for the libraries that only read models."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.subjects.cases import ONE_TOWER
from benchmarks.subjects.sides import Arrays, parameters


def one_tower(arrays: Arrays) -> bytes:
    """The serialized model for the batch in ``arrays``: input x, output logits, no dropout."""
    weights = iter(parameters(arrays))
    nodes: list[Any] = []
    constants: list[Any] = []
    flow = "x"

    def add(operation: str, *inputs: str, **attributes: Any) -> None:
        nonlocal flow
        out = f"out{len(nodes)}"
        nodes.append(helper.make_node(operation, [flow, *inputs], [out], **attributes))
        flow = out

    def named() -> tuple[str, str]:
        pair = next(weights), next(weights)
        constants.extend(numpy_helper.from_array(arrays[name], name) for name in pair)
        return pair

    for layer in ONE_TOWER:
        if layer.operation == "conv2d":
            padding, stride = (layer.params[name] for name in ("padding", "stride"))
            add("Conv", *named(), pads=[padding] * 4, strides=[stride] * 2)
        elif layer.operation == "linear":
            if nodes[-1].op_type == "MaxPool":
                add("Flatten")
            add("Gemm", *named(), transB=1)
        elif layer.operation == "max_pool2d":
            add("MaxPool", kernel_shape=[layer.params["kernel_size"]] * 2, strides=[layer.params["stride"]] * 2)
        elif layer.operation == "local_response_norm":
            size, alpha, beta, k = (layer.params[name] for name in ("size", "alpha", "beta", "k"))
            add("LRN", size=size, alpha=alpha, beta=beta, bias=k)
        else:
            add("Relu")
    nodes[-1].output[0] = "logits"
    batch = len(arrays["x"])
    graph = helper.make_graph(
        nodes,
        "one_tower",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, arrays["x"].shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, *ONE_TOWER[-1].out])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
