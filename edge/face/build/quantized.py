"""A network in integers: what every weight, scale, zero point and bias of the int8 model will be.

`quantize` applies committed statistics to the parent's weights. It measures nothing (that is `calibrate`)
and writes no graph (that is `int8`). All arithmetic is exact or element by element, so that every machine
gets the same bytes.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.core.errors import ModelError
from edge.face.build.fp32 import flip_steep_slopes
from edge.face.build.network import Floats, Layer, Network, exact_sums
from edge.face.build.tables import (
    FcStatistics,
    LayerStatistics,
    Statistics,
    gather_matrix,
    pack_first_layer,
    round_weights,
    spread_matrix,
)

PIXEL_ZERO_POINT = 128
"""The integer pixel nearest to the network's centre of 127.5; the first bias makes up for the half."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How a uint8 tensor stands for real numbers: real = scale * (q - zero_point); `scale` is a float32."""

    scale: float
    zero_point: int

    @classmethod
    def over(cls, low: float, high: float) -> "Scale":
        """Return the scale whose 256 steps span [low, high]; 0 is always one of them."""
        scale = float(np.float32((high - low) / 255.0))
        return cls(scale, int(np.clip(np.rint(-low / scale), 0, 255)))


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedLayer:
    """A convolution and its PReLU in integers.

    `weight` int8 (M, C / group, k, k) times `weight_scale` (M,) float32; `bias` int32 (M,) in steps of
    input scale * weight scale; `slope` (C,) per channel of the output, float64, <= 1; `out` is the scale of
    the value before and behind the PReLU.
    """

    name: str
    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.int32]
    slope: Floats
    stride: int
    depthwise: bool
    out: Scale


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedNetwork:
    """The integer embedder. `fc_weight` is int8 (K, D) over the NHWC-flattened last output."""

    pixels: Scale
    layers: tuple[QuantizedLayer, ...]
    fc_weight: NDArray[np.int8]
    fc_scale: NDArray[np.float32]
    fc_bias: NDArray[np.float32]


def equalise(network: Network, statistics: Statistics) -> Network:
    """Turn steep slopes, then divide every channel by its committed factor. Exact; changes no output.

    Raises:
        ModelError: The statistics are those of another network.
    """
    network = flip_steep_slopes(network)
    measured = [(layer.name, len(layer.equalise)) for layer in statistics.layers]
    if measured != [(layer.name, layer.channels) for layer in network.layers]:
        raise ModelError("statistics: made for another network; install edge again")
    for index, layer in enumerate(statistics.layers):
        network = network.rescaled(index, np.array(layer.equalise))
    return network


def quantize(network: Network, statistics: Statistics) -> QuantizedNetwork:
    """Round an equalised network with its committed ranges, clips and corrections."""
    before = Scale(float(np.float32(network.scale)), PIXEL_ZERO_POINT)
    pixels, layers = before, []
    offset = (PIXEL_ZERO_POINT - network.mean) * network.scale
    first = network.layers[0]
    first = replace(first, bias=first.bias + offset * exact_sums(first.weight))
    for index, (layer, measured) in enumerate(
        zip((first, *network.layers[1:]), statistics.layers, strict=True)
    ):
        layers.append(quantize_layer(layer, measured, before, first=index == 0))
        before = layers[-1].out
    return with_fully_connected(network, pixels, layers, statistics.fc)


def with_fully_connected(
    network: Network, pixels: Scale, layers: list[QuantizedLayer], fc: FcStatistics
) -> QuantizedNetwork:
    """Round the fully connected layer of a network behind its quantized `layers`, and return the whole."""
    fc_weight, fc_scale = round_weights(
        spread_matrix(network.fc_weight), np.array(fc.clip_percent), pair_safe=True
    )
    fc_scale = (fc_scale.astype(np.float64) * layers[-1].out.scale).astype(np.float32)
    return QuantizedNetwork(
        pixels=pixels,
        layers=tuple(layers),
        fc_weight=np.ascontiguousarray(fc_weight.T),
        fc_scale=fc_scale,
        fc_bias=(network.fc_bias + np.array(fc.correction)).astype(np.float32),
    )


def quantize_layer(layer: Layer, measured: LayerStatistics, before: Scale, *, first: bool) -> QuantizedLayer:
    """Round one layer that is fed by values of the scale `before`; the `first` one takes packed pixels."""
    weight = pack_first_layer(layer.weight, layer.stride) if first else layer.weight
    repeat = len(weight) // layer.channels
    clip = np.tile(np.array(measured.clip_percent), repeat)
    rounded, scale = round_weights(spread_matrix(weight), clip, pair_safe=not layer.depthwise)
    step = np.float64(before.scale) * scale.astype(np.float64)
    bias = np.rint(np.tile(layer.bias, repeat) / step) + np.tile(np.array(measured.correction), repeat)
    return QuantizedLayer(
        name=layer.name,
        weight=gather_matrix(rounded, weight.shape),
        weight_scale=scale,
        bias=bias.astype(np.int32),
        slope=layer.slope,
        stride=layer.stride,
        depthwise=layer.depthwise,
        out=Scale.over(measured.low, measured.high),
    )
