"""PReLU on uint8 in NHWC, in two forms of the same arithmetic. Rounds no weight but the slopes' own.

Both take a value and its layer, and give the name of a value with the layer's output scale.
`max_prelu` is exact to half a step and the faster one; `add_prelu` is for runtimes without Max on uint8.

Source of the operators: onnxruntime's contributed QLinearConv with channels_last and QLinearAdd, ONNX Max;
of the releases tried, 1.23 and older cannot run Max on uint8, 1.24 can.
"""

from collections.abc import Callable

import numpy as np

from edge.face.build.graph import CONTRIB, GraphWriter
from edge.face.build.network import Floats
from edge.face.build.quantized import QuantizedLayer, Scale

SLOPE_STEPS = 127
"""A slope is this many steps of its own scale, so that it is stored exactly."""

PreluForm = Callable[[GraphWriter, QuantizedLayer, str], str]


def max_prelu(graph: GraphWriter, layer: QuantizedLayer, x: str) -> str:
    """Write max(x, a x): a x is a 1x1 depthwise convolution whose output has x's scale and zero point."""
    out = scale_constants(graph, f"{layer.name}_out", layer.out)
    inputs = [x, *out, *_factor(graph, f"{layer.name}_a", layer.slope), *out]
    line = _depthwise(graph, inputs, f"{layer.name}_line", layer)
    return graph.node("Max", [x, line], f"{layer.name}_prelu")


def add_prelu(graph: GraphWriter, layer: QuantizedLayer, x: str) -> str:
    """Write x + relu((a - 1) x): with a zero point of 0, rounding to uint8 is the relu itself."""
    lift = layer.slope - 1
    lowest = -layer.out.scale * layer.out.zero_point
    lifted = Scale.over(0.0, max(float(lift.min()) * lowest, layer.out.scale))
    out = scale_constants(graph, f"{layer.name}_out", layer.out)
    between = scale_constants(graph, f"{layer.name}_lifted", lifted)
    inputs = [x, *out, *_factor(graph, f"{layer.name}_lift", lift), *between]
    rest = _depthwise(graph, inputs, f"{layer.name}_rest", layer)
    return graph.node("QLinearAdd", [x, *out, rest, *between, *out], f"{layer.name}_prelu", domain=CONTRIB)


def _factor(graph: GraphWriter, name: str, factor: Floats) -> list[str]:
    """Add what multiplies each channel by `factor` (C,), as a depthwise kernel, its scale and zero point."""
    weight = (np.sign(factor) * SLOPE_STEPS).astype(np.int8).reshape(-1, 1, 1, 1)
    scale = np.where(factor == 0, 1.0, np.abs(factor) / SLOPE_STEPS).astype(np.float32)
    return [
        graph.constant(name, weight),
        graph.constant(f"{name}s", scale),
        graph.constant(f"{name}z", np.zeros(len(factor), np.int8)),
    ]


def _depthwise(graph: GraphWriter, inputs: list[str], output: str, layer: QuantizedLayer) -> str:
    group = len(layer.slope)
    return graph.node(
        "QLinearConv", inputs, output, domain=CONTRIB, channels_last=1, group=group, kernel_shape=[1, 1]
    )


def scale_constants(graph: GraphWriter, name: str, scale: Scale) -> list[str]:
    """Add a scale and its zero point as the two constants that an operator takes."""
    return [
        graph.constant(f"{name}_scale", np.float32(scale.scale)),
        graph.constant(f"{name}_zero", np.uint8(scale.zero_point)),
    ]
