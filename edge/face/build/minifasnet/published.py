"""Make a published MiniFASNet graph fit for a door: one face at a time, and PReLU in a form that is fast.

The published graph leaves the batch open, and PReLU takes half of its time. No weight changes. PReLU becomes
a * x + max((1 - a) * x, 0), as in `writer`.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge.core.errors import ModelError
from edge.face.build.graph import IR_VERSION

SHAPE_CHAIN = ("Shape", "Gather", "Unsqueeze", "Concat", "Reshape")
"""How its exporter wrote a flattening for an open batch."""


def fit_published(model: bytes) -> bytes:
    """Return the model for a batch of one, with equal answers up to rounding.

    Raises:
        ModelError: It is no graph of this kind.
    """
    try:
        proto = onnx.load_model_from_string(model)
    except Exception as error:  # protobuf's own error, whose class moves between its versions
        raise ModelError(f"the published file is no ONNX model: {str(error)[:100]}") from None
    graph = proto.graph
    values = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += _split_prelu(graph, node, values) if node.op_type == "PRelu" else [node]
    nodes = _flattened(nodes)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if not dims:
            raise ModelError(f"the published model's {value.name} has no shape")
        dims[0].dim_value = 1
    used = {name for node in nodes for name in node.input}
    for constant in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(constant)
    proto.ir_version = IR_VERSION
    return bytes(proto.SerializeToString(deterministic=True))


def _split_prelu(
    graph: onnx.GraphProto, node: onnx.NodeProto, values: dict[str, NDArray[np.float32]]
) -> list[onnx.NodeProto]:
    """Return the nodes that stand for a PReLU with one slope of at most 1 for each channel."""
    slope = values.get(node.input[1])
    if slope is None or slope.ndim != 3 or slope.shape[1:] != (1, 1) or not (slope <= 1).all():
        raise ModelError("the published model has a PReLU that this recipe does not write")
    x, name, channels = node.input[0], node.output[0], len(slope)
    below = slope.reshape(channels, 1, 1, 1)
    graph.initializer.append(numpy_helper.from_array(np.float32(1) - below, f"{name}.1-a"))
    graph.initializer.append(numpy_helper.from_array(below, f"{name}.a"))
    return [
        _weigh(x, f"{name}.1-a", f"{name}.rest", channels),
        helper.make_node("Relu", [f"{name}.rest"], [f"{name}.relu"], name=f"{name}.relu"),
        _weigh(x, f"{name}.a", f"{name}.line", channels),
        helper.make_node("Add", [f"{name}.relu", f"{name}.line"], [name], name=name),
    ]


def _weigh(x: str, weight: str, output: str, channels: int) -> onnx.NodeProto:
    """Return the node that multiplies each channel by a number."""
    return helper.make_node("Conv", [x, weight], [output], name=output, kernel_shape=[1, 1], group=channels)


def _flattened(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes with the one chain that computes a shape replaced by a flattening."""
    kinds = [node.op_type for node in nodes]
    starts = [at for at in range(len(kinds)) if tuple(kinds[at : at + len(SHAPE_CHAIN)]) == SHAPE_CHAIN]
    if len(starts) != 1 or sum(kind in SHAPE_CHAIN for kind in kinds) != len(SHAPE_CHAIN):
        raise ModelError("the published model is not the graph that this recipe was written for")
    first, last = starts[0], starts[0] + len(SHAPE_CHAIN) - 1
    flatten = helper.make_node(
        "Flatten", [nodes[last].input[0]], [nodes[last].output[0]], name="flat", axis=1
    )
    return [*nodes[:first], flatten, *nodes[last + 1 :]]
