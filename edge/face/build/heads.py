"""Join YuNet's heads: one pair of convolutions per stride instead of four. Exact; no weight changes.

The published graph asks each feature map four times (face or not, object or not, box, landmarks), with 1, 1,
4 and 10 channels, and onnxruntime computes 16 channels each time, because that is how wide its blocks are.
Side by side the four are 16 channels. What followed them (sigmoids, other layouts) is left to the reader of
the map, who needs it for a few cells only.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge.core.errors import ModelError
from edge.face.build.graph import float_tensor

STRIDES = (8, 16, 32)
"""Of the feature maps, in pixels of the input."""

HEADS = ("cls", "obj", "bbox", "kps")
"""In the order of the joined map's channels."""

CHANNELS = 16
"""1 + 1 + 4 + 10."""

TAILS = (("Sigmoid", "Reshape", "Transpose"), ("Reshape", "Transpose"))
"""What stands between an output and its convolutions in the published graph, from the output upwards."""


@dataclass(frozen=True, slots=True)
class Head:
    """The two convolutions of one head, in the order they run, and what lies behind them."""

    pointwise: onnx.NodeProto
    depthwise: onnx.NodeProto
    tail: tuple[onnx.NodeProto, ...]


def join_heads(model: bytes) -> bytes:
    """Return the model with the outputs head_8, head_16 and head_32 instead of the published twelve.

    Each is (1, 16, H / stride, W / stride): the logits of cls and obj, four numbers of the box, ten of the
    landmarks.

    Raises:
        ModelError: The graph does not end in YuNet's heads.
    """
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    maker = {node.output[0]: node for node in graph.node}
    values = {constant.name: constant for constant in graph.initializer}
    if sorted(output.name for output in graph.output) != sorted(f"{h}_{s}" for h in HEADS for s in STRIDES):
        raise ModelError("the parent model has not the outputs of YuNet")
    del graph.output[:]
    for stride in STRIDES:
        heads = [_head(f"{name}_{stride}", maker, values) for name in HEADS]
        features = {head.pointwise.input[0] for head in heads}
        if len(features) != 1:
            raise ModelError(f"the parent model's heads of stride {stride} do not share one feature map")
        for head in heads:
            for node in (head.pointwise, head.depthwise, *head.tail):
                graph.node.remove(node)
        between, name = f"head_{stride}_pointwise", f"head_{stride}"
        graph.node.append(_joined(graph, values, [h.pointwise for h in heads], features.pop(), between))
        graph.node.append(_joined(graph, values, [h.depthwise for h in heads], between, name))
        graph.output.append(float_tensor(name, [1, CHANNELS, f"rows_{stride}", f"columns_{stride}"]))
    _drop_unused(graph)
    return bytes(proto.SerializeToString(deterministic=True))


def _head(output: str, maker: dict[str, onnx.NodeProto], values: dict[str, onnx.TensorProto]) -> Head:
    """Follow an output upwards to the two convolutions that make it."""
    tail: list[onnx.NodeProto] = []
    node = maker[output]
    while node.op_type != "Conv" and len(tail) < len(TAILS[0]):
        tail.append(node)
        node = maker.get(node.input[0], node)
    pointwise = maker.get(node.input[0])
    whole = tuple(part.op_type for part in tail) in TAILS and _convolves(node, 3, values)
    if not whole or pointwise is None or not _convolves(pointwise, 1, values):
        raise ModelError(f"output {output} of the parent model is not a head of YuNet")
    return Head(pointwise, node, tuple(tail))


def _convolves(node: onnx.NodeProto, kernel: int, values: dict[str, onnx.TensorProto]) -> bool:
    """Say whether a node is a biased convolution that keeps the size: depthwise, or pointwise if 1x1."""
    if node.op_type != "Conv" or len(node.input) != 3 or not set(node.input[1:]) <= values.keys():
        return False
    channels, inputs = values[node.input[1]].dims[:2]
    expected = {
        "dilations": [1, 1],
        "group": channels if kernel > 1 else 1,
        "kernel_shape": [kernel] * 2,
        "pads": [kernel // 2] * 4,
        "strides": [1, 1],
    }
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return found == expected and (kernel == 1 or inputs == 1)


def _joined(
    graph: onnx.GraphProto,
    values: dict[str, onnx.TensorProto],
    nodes: list[onnx.NodeProto],
    feature: str,
    output: str,
) -> onnx.NodeProto:
    """Return one convolution that gives the channels of all `nodes`, which all or none are depthwise."""
    kernel = numpy_helper.to_array(values[nodes[0].input[1]]).shape[-1]
    inputs = [feature]
    for place, suffix in ((1, "weight"), (2, "bias")):
        parts = [numpy_helper.to_array(values[node.input[place]]) for node in nodes]
        joined = np.concatenate(parts)
        inputs.append(f"{output}_{suffix}")
        graph.initializer.append(numpy_helper.from_array(joined, inputs[-1]))
    group = len(joined) if kernel > 1 else 1
    return helper.make_node(
        "Conv",
        inputs,
        [output],
        name=output,
        group=group,
        kernel_shape=[kernel] * 2,
        pads=[kernel // 2] * 4,
        strides=[1, 1],
    )


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the constants that no node takes any more."""
    used = {name for node in graph.node for name in node.input}
    for constant in [c for c in graph.initializer if c.name not in used]:
        graph.initializer.remove(constant)
    for declared in [value for value in graph.input if value.name not in used]:
        graph.input.remove(declared)
