"""Write a quantized network as integer operators, exactly as given: all rounding was decided before.

Activations are uint8 in NHWC from the first operator to the last, so that onnxruntime inserts neither a
layout change nor a conversion. How a PReLU is written is chosen by the caller (`prelu`).

Source of the operators: onnxruntime's contributed QLinearConv with channels_last, and ONNX MatMulInteger.
"""

import numpy as np

from edge.face.build.graph import CONTRIB, FLOAT, GraphWriter, byte_tensor, float_tensor
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
    x, before, side, outputs = write_pixels(graph, input_name, SIDE_PX), network.pixels, SIDE_PX, []
    for index, layer in enumerate(network.layers):
        if index == 0:
            x = write_packed_convolution(graph, layer, x, before)
            x = write_unpacked(graph, layer, x, layer.name, side // layer.stride)
        else:
            x = write_convolution(graph, layer, x, before, pad=layer.weight.shape[2] // 2)
        side //= layer.stride
        if taps:
            outputs.append(byte_tensor(x, [1, side, side, len(layer.slope)]))
        x = prelu(graph, layer, x)
        before = layer.out
    write_fully_connected(graph, network, x, before, output_name)
    outputs.insert(0, float_tensor(output_name, [1, len(network.fc_bias)]))
    pixels = [float_tensor(input_name, [1, 3, SIDE_PX, SIDE_PX])]
    return graph.finish(pixels, outputs, name="sface-int8", contrib=True)


def write_pixels(graph: GraphWriter, input_name: str, side: int) -> str:
    """Write what makes packs of bytes, NHWC, of float32 pixels (1, 3, side, side) in 0-255."""
    one = graph.constant("one", np.float32(1))
    x = graph.node("QuantizeLinear", [input_name, one, graph.constant("zero", np.uint8(0))], "bytes")
    x = graph.node("Transpose", [x], "bytes_nhwc", perm=[0, 2, 3, 1])
    shape = graph.constant("packed_shape", np.array([1, side, side // PACK, 3 * PACK], np.int64))
    return graph.node("Reshape", [x, shape], "packs")


def write_convolution(
    graph: GraphWriter,
    layer: QuantizedLayer,
    x: str,
    before: Scale,
    *,
    pad: int,
    weight_scale: str | None = None,
) -> str:
    """Write a layer on values of the scale `before`, without its PReLU; `pad` pixels on every side.

    `weight_scale` names a value (M,) that is computed; None: the layer's own scales.
    """
    pads, strides = [pad] * 4, [layer.stride] * 2
    return _integer_convolution(
        graph, layer, x, before, layer.name, pads=pads, strides=strides, weight_scale=weight_scale
    )


def write_packed_convolution(graph: GraphWriter, layer: QuantizedLayer, x: str, before: Scale) -> str:
    """Write the first layer on packs of pixels; it gives packs of its own pixels."""
    height, width = layer.weight.shape[2:]
    pads, strides = [height // 2, 1, height // 2, width - 2], [layer.stride, 1]
    return _integer_convolution(graph, layer, x, before, f"{layer.name}_packs", pads=pads, strides=strides)


def write_unpacked(graph: GraphWriter, layer: QuantizedLayer, x: str, output: str, side: int) -> str:
    """Write what makes (1, side, side, C) of packs of the first layer's channels."""
    shape = graph.constant("unpacked_shape", np.array([1, side, side, len(layer.slope)], np.int64))
    return graph.node("Reshape", [x, shape], output)


def _integer_convolution(
    graph: GraphWriter,
    layer: QuantizedLayer,
    x: str,
    before: Scale,
    output: str,
    *,
    pads: list[int],
    strides: list[int],
    weight_scale: str | None = None,
) -> str:
    channels = len(layer.weight)
    inputs = [
        x,
        *scale_constants(graph, f"{layer.name}_in", before),
        graph.constant(f"{layer.name}_w", layer.weight),
        weight_scale or graph.constant(f"{layer.name}_ws", layer.weight_scale),
        graph.constant(f"{layer.name}_wz", np.zeros(channels, np.int8)),
        *scale_constants(graph, f"{layer.name}_out", layer.out),
        graph.constant(f"{layer.name}_b", layer.bias),
    ]
    return graph.node(
        "QLinearConv",
        inputs,
        output,
        domain=CONTRIB,
        channels_last=1,
        group=channels if layer.depthwise else 1,
        kernel_shape=list(layer.weight.shape[2:]),
        pads=pads,
        strides=strides,
    )


def write_fully_connected(
    graph: GraphWriter, network: QuantizedNetwork, x: str, before: Scale, output_name: str
) -> None:
    """Write what makes the embedding, float32 (1, D), of the last layer's values of the scale `before`."""
    x = graph.node("Flatten", [x], "flat")
    zero = graph.constant("fc_zero", np.uint8(before.zero_point))
    x = graph.node("MatMulInteger", [x, graph.constant("fc_w", network.fc_weight), zero], "fc_steps")
    x = graph.node("Cast", [x], "fc_float", to=FLOAT)
    x = graph.node("Mul", [x, graph.constant("fc_s", network.fc_scale)], "fc_scaled")
    graph.node("Add", [x, graph.constant("fc_b", network.fc_bias)], output_name)
