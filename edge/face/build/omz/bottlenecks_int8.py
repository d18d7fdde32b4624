"""The bottleneck network in integers: rounded by committed statistics, and written as operators.

As in SFace's graph, values are uint8 in NHWC throughout. A gate costs no operator on the map: it scales the
weights' own scales of the projecting convolution, which onnxruntime reads anew each time. So its means are
taken before that, and its squeeze works on what goes in. Its two small layers stay float32. Measures nothing.

Source of the operators: onnxruntime's contributed QLinearConv and QLinearGlobalAveragePool with
channels_last, and QLinearAdd.
"""

from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from edge.core.errors import ModelError
from edge.face.build.graph import CONTRIB, GraphWriter, ValueInfo, byte_tensor, float_tensor
from edge.face.build.int8 import (
    write_convolution,
    write_fully_connected,
    write_packed_convolution,
    write_pixels,
    write_unpacked,
)
from edge.face.build.network import Layer, exact_sums
from edge.face.build.omz.bottlenecks import (
    HEAD,
    LAYERS_OF_BLOCK,
    SIDE_PX,
    Bottlenecks,
    Gate,
    turn_steep_slopes,
)
from edge.face.build.omz.bottlenecks_fp32 import small_layers
from edge.face.build.prelu import max_prelu, scale_constants
from edge.face.build.quantized import (
    QuantizedLayer,
    QuantizedNetwork,
    Scale,
    quantize_layer,
    with_fully_connected,
)
from edge.face.build.tables import Measured, Statistics


class Range(Measured):
    """The ends of a range for uint8; 0 lies in it."""

    low: float = Field(le=0)
    high: float = Field(gt=0)

    @property
    def scale(self) -> Scale:
        """The scale over this range."""
        return Scale.over(self.low, self.high)


class GateStatistics(Measured):
    """One bottleneck: the means that its gate is made of, and the sum with what went in."""

    means: Range
    summed: Range | None


class BottleneckStatistics(Statistics):
    """What the recipe needs beside the weights: as SFace's, and the ranges of the gates."""

    gates: tuple[GateStatistics, ...]


def _before_projection(gate: Gate, project: Layer) -> Gate:
    """Return the gate that sees the means of what goes into the projecting layer, not of what comes out."""
    weight = project.weight[:, :, 0, 0]
    squeeze = np.array([exact_sums(row[None, :] * weight.T) for row in gate.squeeze])
    bias = gate.squeeze_bias + exact_sums(gate.squeeze * project.bias[None, :])
    return replace(gate, squeeze=squeeze, squeeze_bias=bias)


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedBottlenecks:
    """The integer network: `chain`, and of each bottleneck its gate and the scales around it."""

    chain: QuantizedNetwork
    gates: tuple[Gate, ...]
    scales: tuple[GateStatistics, ...]

    def scale_before(self, index: int) -> Scale:
        """Return the scale of what the layer at `index` takes."""
        if index == 0:
            return self.chain.pixels
        block, place = divmod(index - HEAD, LAYERS_OF_BLOCK)
        summed = self.scales[block - 1].summed if place == 0 and 0 < block <= len(self.scales) else None
        return self.chain.layers[index - 1].out if summed is None else summed.scale


def equalise_bottlenecks(network: Bottlenecks, statistics: Statistics) -> Bottlenecks:
    """Turn steep slopes, then divide every channel by its committed factor. Exact; changes no output.

    Raises:
        ModelError: The statistics are those of another network.
    """
    network = turn_steep_slopes(network)
    chain = network.chain
    measured = [(layer.name, len(layer.equalise)) for layer in statistics.layers]
    if measured != [(layer.name, layer.channels) for layer in chain.layers]:
        raise ModelError("statistics: made for another network; install edge again")
    for index, layer in enumerate(statistics.layers):
        if network.block_of(index) is None:
            chain = chain.rescaled(index, np.array(layer.equalise))
    return replace(network, chain=chain)


def quantize_bottlenecks(network: Bottlenecks, statistics: BottleneckStatistics) -> QuantizedBottlenecks:
    """Round an equalised network with its committed ranges, clips and corrections.

    The pixels' zero point is the mean of the three channels' means: where the map ends, it stands for each.

    Raises:
        ModelError: The statistics are those of another network.
    """
    if len(statistics.gates) != len(network.gates):
        raise ModelError("statistics: made for another network; install edge again")
    pixels = before = Scale(1.0, round(float(network.pixel_mean.mean())))
    first = network.chain.layers[0]
    moved = first.weight * (pixels.zero_point - network.pixel_mean)[None, :, None, None]
    first = replace(first, bias=first.bias + exact_sums(moved))
    layers = []
    for index, (layer, measured) in enumerate(
        zip((first, *network.chain.layers[1:]), statistics.layers, strict=True)
    ):
        layers.append(quantize_layer(layer, measured, before, first=index == 0))
        before = layers[-1].out
        block = network.block_of(index)
        if block is not None:
            summed = statistics.gates[block].summed
            before = before if summed is None else summed.scale
    chain = with_fully_connected(network.chain, pixels, layers, statistics.fc)
    projecting = network.chain.layers[HEAD + LAYERS_OF_BLOCK - 1 :: LAYERS_OF_BLOCK]
    gates = map(_before_projection, network.gates, projecting)
    return QuantizedBottlenecks(chain, tuple(gates), statistics.gates)


def write_bottlenecks_int8(
    network: QuantizedBottlenecks, *, input_name: str, output_name: str, taps: bool = False
) -> bytes:
    """Return the ONNX file.

    With `taps` every layer's uint8 value before its PReLU is an output too, NHWC, named as the layer.
    """
    writer = _Writer(input_name, network.chain.pixels, taps=taps)
    first, *layers = network.chain.layers
    writer.first(first)
    blocks = zip(network.gates, network.scales, strict=True)
    ends = range(HEAD + LAYERS_OF_BLOCK - 2, HEAD + LAYERS_OF_BLOCK * len(network.gates), LAYERS_OF_BLOCK)
    for index, layer in enumerate(layers):
        if index in ends:
            writer.gated(layer, *next(blocks))
        elif index + 1 < len(layers):
            writer.layer(layer, pad=layer.weight.shape[2] // 2)
        else:
            writer.covering(layer)
        if index + 2 == HEAD:
            writer.keep()
    return writer.finish(network.chain, input_name, output_name)


class _Writer:
    """A graph that grows; `_x` is the value so far, uint8 (1, side, side, C) of the scale `_scale`."""

    def __init__(self, input_name: str, pixels: Scale, *, taps: bool) -> None:
        self._graph, self._taps = GraphWriter(), taps
        self._side, self._scale = SIDE_PX, pixels
        self._x = write_pixels(self._graph, input_name, SIDE_PX)
        self._kept = (self._x, self._scale)
        self._outputs: list[ValueInfo] = []

    def first(self, layer: QuantizedLayer) -> None:
        """Write the first layer. Its PReLU works on packs, which have more channels at once."""
        packs = write_packed_convolution(self._graph, layer, self._x, self._scale)
        wide = replace(layer, slope=np.tile(layer.slope, len(layer.weight) // len(layer.slope)))
        active = scalar_prelu(self._graph, wide, packs)
        self._side //= layer.stride
        self._x = write_unpacked(self._graph, layer, active, f"{layer.name}_unpacked", self._side)
        self._scale = layer.out
        if self._taps:
            self._tap(write_unpacked(self._graph, layer, packs, layer.name, self._side), layer)

    def layer(self, layer: QuantizedLayer, *, pad: int) -> None:
        """Write a convolution and its PReLU."""
        x = write_convolution(self._graph, layer, self._x, self._scale, pad=pad)
        self._side, self._scale = self._side // layer.stride, layer.out
        self._tap(x, layer)
        self._x = scalar_prelu(self._graph, layer, x)

    def gated(self, layer: QuantizedLayer, gate: Gate, scales: GateStatistics) -> None:
        """Write a projecting layer, whose weights its gate scales, and add what went into the bottleneck."""
        weight_scale = self._gate(layer, gate, scales.means.scale)
        x = write_convolution(self._graph, layer, self._x, self._scale, pad=0, weight_scale=weight_scale)
        self._x, self._scale = x, layer.out
        self._tap(x, layer)
        if scales.summed is not None:
            name, out = f"{layer.name}_sum", scales.summed.scale
            inputs = [self._kept[0], *scale_constants(self._graph, f"{name}_left", self._kept[1])]
            inputs += [x, *scale_constants(self._graph, f"{layer.name}_out", layer.out)]
            inputs += scale_constants(self._graph, name, out)
            self._x, self._scale = self._graph.node("QLinearAdd", inputs, name, domain=CONTRIB), out
        self.keep()

    def keep(self) -> None:
        """Remember the value so far: the next bottleneck may add it."""
        self._kept = (self._x, self._scale)

    def covering(self, layer: QuantizedLayer) -> None:
        """Write the layer whose kernel covers the map; it has no PReLU."""
        self._x = write_convolution(self._graph, layer, self._x, self._scale, pad=0)
        self._side, self._scale = 1, layer.out
        self._tap(self._x, layer)

    def finish(self, network: QuantizedNetwork, input_name: str, output_name: str) -> bytes:
        """Write the fully connected layer, and serialize."""
        write_fully_connected(self._graph, network, self._x, self._scale, output_name)
        pixels = float_tensor(input_name, [1, 3, SIDE_PX, SIDE_PX])
        embedding = float_tensor(output_name, [1, len(network.fc_bias)])
        outputs = [embedding, *(self._outputs if self._taps else [])]
        return self._graph.finish([pixels], outputs, name="omz-0095-int8", contrib=True)

    def _gate(self, layer: QuantizedLayer, gate: Gate, means_scale: Scale) -> str:
        """Write a gate; returns the name of the layer's weight scales times what the gate lets through."""
        graph, name = self._graph, f"{layer.name}_gate"
        means = scale_constants(graph, f"{name}_means", means_scale)
        inputs = [self._x, *scale_constants(graph, f"{layer.name}_in", self._scale), *means]
        x = graph.node("QLinearGlobalAveragePool", inputs, f"{name}_bytes", domain=CONTRIB, channels_last=1)
        x = graph.node("DequantizeLinear", [x, *means], f"{name}_float")
        x = graph.node("Flatten", [x], f"{name}_flat")
        x = small_layers(graph, gate, x, name)
        x = graph.node("Mul", [x, graph.constant(f"{layer.name}_ws", layer.weight_scale)], f"{name}_scales")
        shape = graph.constant(f"{name}_shape", np.array([len(gate.excite)], np.int64))
        return graph.node("Reshape", [x, shape], f"{name}_ws")

    def _tap(self, x: str, layer: QuantizedLayer) -> None:
        self._outputs.append(byte_tensor(x, [1, self._side, self._side, len(layer.slope)]))


def scalar_prelu(graph: GraphWriter, layer: QuantizedLayer, x: str) -> str:
    """Write max(x, a x) for one slope a: above 0, a x is the sum of x, whose scale is a times as fine, and 0.

    Measured on 64 x 64 x 64 values: 15 us instead of the 27 of a depthwise convolution. It needs a positive
    scale, and so a positive slope.
    """
    slope = float(layer.slope[0])
    if slope <= 0:
        return max_prelu(graph, layer, x)
    out = scale_constants(graph, f"{layer.name}_out", layer.out)
    less = scale_constants(graph, f"{layer.name}_less", replace(layer.out, scale=slope * layer.out.scale))
    nothing = graph.constant(f"{layer.name}_nothing", np.uint8(layer.out.zero_point))
    line = graph.node("QLinearAdd", [x, *less, nothing, *out, *out], f"{layer.name}_line", domain=CONTRIB)
    return graph.node("Max", [x, line], f"{layer.name}_prelu")
