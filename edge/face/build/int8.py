"""Write a quantized network as integer operators, exactly as given: all rounding was decided before.

Activations are uint8 in NHWC from the first operator to the last, so that onnxruntime inserts neither a
layout change nor a conversion. How a PReLU is written is chosen by the caller (`prelu`).

Source of the operators: onnxruntime's contributed QLinearConv with channels_last, and ONNX MatMulInteger.
"""

import numpy as np
from onnx import TensorProto, helper

from edge.face.build.graph import CONTRIB, GraphWriter, float_tensor
from edge.face.build.prelu import PreluForm, max_prelu, scale_constants
from edge.face.build.quantized import QuantizedLayer, QuantizedNetwork, Scale
from edge.face.build.tables import PACK

SIDE_PX = 112


def write_int8(
    network: QuantizedNetwork,
    *,
    input_name: str,
    output_name: str,
    prelu: PreluForm = max_prelu,
    taps: bool = False,
) -> bytes:
    """Return the ONNX file.

    With `taps` every layer's uint8 value before its PReLU is an output too, NHWC, named as the layer.
    """
    graph = GraphWriter()
    x, before, side, outputs = _pixels(graph, input_name), network.pixels, SIDE_PX, []
    for index, layer in enumerate(network.layers):
        x = _convolution(graph, layer, x, before, packed=index == 0)
        side //= layer.stride
        if taps:
            shape = [1, side, side, len(layer.slope)]
            outputs.append(helper.make_tensor_value_info(x, TensorProto.UINT8, shape))
        x = prelu(graph, layer, x)
        before = layer.out
    _fully_connected(graph, network, x, before, output_name)
    outputs.insert(0, float_tensor(output_name, [1, len(network.fc_bias)]))
    pixels = [float_tensor(input_name, [1, 3, SIDE_PX, SIDE_PX])]
    return graph.finish(pixels, outputs, name="sface-int8", contrib=True)


def _pixels(graph: GraphWriter, input_name: str) -> str:
    one = graph.constant("one", np.float32(1))
    x = graph.node("QuantizeLinear", [input_name, one, graph.constant("zero", np.uint8(0))], "bytes")
    x = graph.node("Transpose", [x], "bytes_nhwc", perm=[0, 2, 3, 1])
    shape = graph.constant("packed_shape", np.array([1, SIDE_PX, SIDE_PX // PACK, 3 * PACK], np.int64))
    return graph.node("Reshape", [x, shape], "packs")


def _convolution(graph: GraphWriter, layer: QuantizedLayer, x: str, before: Scale, *, packed: bool) -> str:
    output = f"{layer.name}_packs" if packed else layer.name
    channels, _, kernel, _ = layer.weight.shape
    inputs = [
        x,
        *scale_constants(graph, f"{layer.name}_in", before),
        graph.constant(f"{layer.name}_w", layer.weight),
        graph.constant(f"{layer.name}_ws", layer.weight_scale),
        graph.constant(f"{layer.name}_wz", np.zeros(channels, np.int8)),
        *scale_constants(graph, f"{layer.name}_out", layer.out),
        graph.constant(f"{layer.name}_b", layer.bias),
    ]
    x = graph.node(
        "QLinearConv",
        inputs,
        output,
        domain=CONTRIB,
        channels_last=1,
        group=channels if layer.depthwise else 1,
        kernel_shape=[kernel, kernel],
        pads=[kernel // 2] * 4,
        strides=[layer.stride] * 2,
    )
    if not packed:
        return x
    shape = graph.constant("unpacked_shape", np.array([1, SIDE_PX, SIDE_PX, len(layer.slope)], np.int64))
    return graph.node("Reshape", [x, shape], layer.name)


def _fully_connected(
    graph: GraphWriter, network: QuantizedNetwork, x: str, before: Scale, output_name: str
) -> None:
    x = graph.node("Flatten", [x], "flat")
    zero = graph.constant("fc_zero", np.uint8(before.zero_point))
    x = graph.node("MatMulInteger", [x, graph.constant("fc_w", network.fc_weight), zero], "fc_steps")
    x = graph.node("Cast", [x], "fc_float", to=TensorProto.FLOAT)
    x = graph.node("Mul", [x, graph.constant("fc_s", network.fc_scale)], "fc_scaled")
    graph.node("Add", [x, graph.constant("fc_b", network.fc_bias)], output_name)
