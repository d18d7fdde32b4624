"""The bottleneck network as a float32 graph, fused as onnxruntime runs it fastest.

A slope that is one number for a whole layer is a LeakyRelu, which onnxruntime joins to the convolution before
it. Measures nothing.
"""

import numpy as np

from edge.face.build.graph import GraphWriter, float_tensor
from edge.face.build.network import Layer
from edge.face.build.omz.bottlenecks import HEAD, SIDE_PX, Bottlenecks, Gate


def write_bottlenecks_fp32(
    network: Bottlenecks, *, input_name: str, output_name: str, taps: bool = False
) -> bytes:
    """Return the ONNX file.

    With `taps` every layer's value before its PReLU is an output too, named as the layer, behind its gate if
    it has one; so are what each gate multiplies by (`gate_1_open`) and the sums, where there are (`sum_1`).
    """
    graph = GraphWriter()
    mean = graph.constant("mean", network.pixel_mean.astype(np.float32).reshape(1, 3, 1, 1))
    x = graph.node("Sub", [input_name, mean], "centred")
    before, side, outputs = x, SIDE_PX, []
    for index, layer in enumerate(network.chain.layers):
        covers = layer.kernel == side
        pad = 0 if covers else layer.kernel // 2
        side = 1 if covers else side // layer.stride
        shape: list[int | str] = [1, layer.channels, side, side]
        block = network.block_of(index)
        if block is None:
            x = _convolution(graph, layer, x, layer.name, pad=pad)
            if (layer.slope != 1).any():
                x = graph.node("LeakyRelu", [x], f"{layer.name}_prelu", alpha=float(layer.slope[0]))
        else:
            x = _convolution(graph, layer, x, f"{layer.name}_before", pad=pad)
            opened = _opened(graph, network.gates[block], x, f"gate_{block + 1}")
            outputs.append(float_tensor(f"gate_{block + 1}_open", [1, layer.channels]))
            x = graph.node("Mul", [x, opened], layer.name)
            if network.adds[block]:
                x = graph.node("Add", [before, x], f"sum_{block + 1}")
                outputs.append(float_tensor(x, shape))
        outputs.append(float_tensor(layer.name, shape))
        if block is not None or index == HEAD - 1:
            before = x
    x = graph.node("Flatten", [x], "flat")
    weight = network.chain.fc_weight.reshape(len(network.chain.fc_bias), -1)
    inputs = [x, graph.constant("fc_w", weight.astype(np.float32))]
    graph.node("Gemm", inputs, output_name, transB=1)
    embedding = float_tensor(output_name, [1, len(weight)])
    pixels = float_tensor(input_name, [1, 3, SIDE_PX, SIDE_PX])
    return graph.finish([pixels], [embedding, *(outputs if taps else [])], name="omz-0095")


def _convolution(graph: GraphWriter, layer: Layer, x: str, output: str, *, pad: int) -> str:
    weight = graph.constant(f"{layer.name}_w", layer.weight.astype(np.float32))
    bias = graph.constant(f"{layer.name}_b", layer.bias.astype(np.float32))
    return graph.node(
        "Conv",
        [x, weight, bias],
        output,
        kernel_shape=[layer.kernel] * 2,
        strides=[layer.stride] * 2,
        pads=[pad] * 4,
        group=layer.channels if layer.depthwise else 1,
    )


def _opened(graph: GraphWriter, gate: Gate, x: str, name: str) -> str:
    """Write what a gate multiplies each channel of the map x by, (1, C, 1, 1)."""
    pooled = graph.node("GlobalAveragePool", [x], f"{name}_pooled")
    factors = small_layers(graph, gate, graph.node("Flatten", [pooled], f"{name}_means"), name)
    shape = graph.constant(f"{name}_shape", np.array([1, len(gate.excite), 1, 1], np.int64))
    return graph.node("Reshape", [factors, shape], f"{name}_map")


def small_layers(graph: GraphWriter, gate: Gate, means: str, name: str) -> str:
    """Write squeeze and excitation of a gate in float32: means (1, C) to factors (1, C) in (0, 1)."""
    inputs = [means, graph.constant(f"{name}_squeeze_w", gate.squeeze.astype(np.float32))]
    inputs += [graph.constant(f"{name}_squeeze_b", gate.squeeze_bias.astype(np.float32))]
    x = graph.node("Gemm", inputs, f"{name}_squeeze", transB=1)
    x = graph.node("LeakyRelu", [x], f"{name}_prelu", alpha=gate.slope)
    inputs = [x, graph.constant(f"{name}_excite_w", gate.excite.astype(np.float32))]
    inputs += [graph.constant(f"{name}_excite_b", gate.excite_bias.astype(np.float32))]
    x = graph.node("Gemm", inputs, f"{name}_excite", transB=1)
    return graph.node("Sigmoid", [x], f"{name}_open")
