"""Float32 graphs that give the same output as the published files, and faster or for more input sizes.

PReLU made the published embedder slow. With slopes a <= 1, which turning signs brings about, PReLU(x) =
a * x + max((1 - a) * x, 0). Both products are 1x1 depthwise convolutions, which onnxruntime runs in its
blocked layout and fuses with what follows. This is the fastest of the seven forms that were timed. Of the
detector only the input size is freed.
"""

from dataclasses import replace

import numpy as np
import onnx

from edge.core.errors import ModelError
from edge.face.build.graph import GraphWriter, float_tensor
from edge.face.build.network import Floats, Layer, Network


def flip_steep_slopes(network: Network) -> Network:
    """Return an equal network whose slopes are all <= 1, so that PReLU(x) = max(x, slope * x).

    For a slope a > 1, PReLU_a(x) = -a * PReLU_{1/a}(-x): the channel's weights change sign, what follows
    is fed -a times the new value.
    """
    layers = list(network.layers)
    for index, layer in enumerate(layers):
        steep = layer.slope > 1
        if not steep.any():
            continue
        if index + 1 == len(layers):
            raise ValueError(f"{layer.name}: a steep slope in the last layer is not handled")
        sign = np.where(steep, -1.0, 1.0)
        back = np.where(steep, -layer.slope, 1.0)
        slope = np.where(steep, 1.0 / np.where(steep, layer.slope, 1.0), layer.slope)
        layers[index] = replace(layer.scaled(sign), slope=slope)
        layers[index + 1] = layers[index + 1].fed_by(back)
    return replace(network, layers=tuple(layers))


def free_input_size(model: bytes) -> bytes:
    """Return the model with height and width of its only input, and all output sizes, left open.

    Raises:
        ModelError: The model has not exactly one image input.
    """
    proto = onnx.load_model_from_string(model)
    constants = {constant.name for constant in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise ModelError("the parent model has not exactly one image input")
    dims = inputs[0].type.tensor_type.shape.dim
    dims[2].dim_param, dims[3].dim_param = "height", "width"
    for output in proto.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"{output.name}_cells"
    # Sizes of what lies between were inferred for the old input.
    del proto.graph.value_info[:]
    return bytes(proto.SerializeToString(deterministic=True))


def write_fp32(network: Network, *, input_name: str, output_name: str, taps: bool = False) -> bytes:
    """Return the ONNX file of a network with slopes <= 1.

    With `taps` every layer's value before its PReLU is an output too, named as the layer.
    """
    graph = GraphWriter()
    side = 112
    x = graph.node("Sub", [input_name, graph.constant("mean", np.float32(network.mean))], "centred")
    x = graph.node("Mul", [x, graph.constant("scale", np.float32(network.scale))], "pixels")
    outputs = []
    for layer in network.layers:
        x = _convolution(graph, layer, x)
        side //= layer.stride
        if taps:
            outputs.append(float_tensor(layer.name, [1, layer.channels, side, side]))
        x = _prelu(graph, layer, x)
    x = graph.node("Flatten", [x], "flat")
    weight = graph.constant("fc_w", _single(network.fc_weight.reshape(len(network.fc_bias), -1)))
    graph.node("Gemm", [x, weight, graph.constant("fc_b", _single(network.fc_bias))], output_name, transB=1)
    outputs.insert(0, float_tensor(output_name, [1, len(network.fc_bias)]))
    return graph.finish([float_tensor(input_name, [1, 3, 112, 112])], outputs, name="sface-fp32")


def _convolution(graph: GraphWriter, layer: Layer, x: str) -> str:
    inputs = [
        x,
        graph.constant(f"{layer.name}_w", _single(layer.weight)),
        graph.constant(f"{layer.name}_b", _single(layer.bias)),
    ]
    return graph.node(
        "Conv",
        inputs,
        layer.name,
        kernel_shape=[layer.kernel] * 2,
        strides=[layer.stride] * 2,
        pads=[layer.kernel // 2] * 4,
        group=layer.channels if layer.depthwise else 1,
    )


def _prelu(graph: GraphWriter, layer: Layer, x: str) -> str:
    name, slope = layer.name, layer.slope[:, None, None, None]
    above = graph.constant(f"{name}_1-a", _single(1.0 - slope))
    below = graph.constant(f"{name}_a", _single(slope))
    rest = graph.node("Conv", [x, above], f"{name}_rest", kernel_shape=[1, 1], group=layer.channels)
    rest = graph.node("Relu", [rest], f"{name}_relu")
    line = graph.node("Conv", [x, below], f"{name}_line", kernel_shape=[1, 1], group=layer.channels)
    return graph.node("Add", [rest, line], f"{name}_out")


def _single(values: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return values.astype(np.float32)
