"""face-reidentification-retail-0095 as arrays: 15 bottlenecks with gates, two layers before, two behind.

A bottleneck is a pointwise, a depthwise and a pointwise convolution. Its *gate* multiplies each channel of
what comes out by a number in (0, 1) that two small layers make of the channels' means (squeeze and
excitation). Most bottlenecks then add what went in. Reads what `ir` found; writes no graph.
"""

from dataclasses import dataclass, replace

import numpy as np

from edge.core.errors import ModelError
from edge.face.build.network import Floats, Layer, Network
from edge.face.build.omz.ir import Ir, Operator

SIDE_PX = 128
"""Side of the input."""

BLOCKS = 15
HEAD = 2
"""Layers before the first bottleneck."""

LAYERS_OF_BLOCK = 3
"""Expanding, depthwise, projecting; the last has no PReLU."""

DISAGREES = "the parent model is not the face-reidentification-retail-0095 this recipe was written for"


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """Squeeze (R, C) with a PReLU of one `slope`, and excitation (C, R), which ends in a sigmoid."""

    squeeze: Floats
    squeeze_bias: Floats
    slope: float
    excite: Floats
    excite_bias: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Bottlenecks:
    """The whole network: BGR pixels in 0-255 minus `pixel_mean` (3,), through the layers of `chain`.

    `chain.layers` are head, three for each bottleneck, and tail, in the order they run. The last one's kernel
    covers the whole map. `gates` and `adds` (whether what went in is added) are those of the bottlenecks.
    """

    chain: Network
    pixel_mean: Floats
    gates: tuple[Gate, ...]
    adds: tuple[bool, ...]

    def block_of(self, index: int) -> int | None:
        """Return the number of the bottleneck that the layer at `index` ends, None where it ends none."""
        block, place = divmod(index - HEAD, LAYERS_OF_BLOCK)
        return block if place == LAYERS_OF_BLOCK - 1 and 0 <= block < len(self.gates) else None


def parse(ir: Ir) -> Bottlenecks:
    """Recognise the network in the operators of its IR.

    Raises:
        ModelError: It is another network.
    """
    reader = _Reader(ir)
    gain = reader.elementwise("Multiply").reshape(-1)
    offset = reader.elementwise("Add").reshape(-1)
    layers = [reader.layer("conv_0"), reader.layer("conv_0_dw")]
    layers[0] = layers[0].fed_by(gain)
    gates, adds = [], []
    for number in range(1, BLOCKS + 1):
        before = reader.value
        layers += [reader.layer(f"block_{number}_{part}") for part in ("expand", "dw", "project")]
        gates.append(reader.gate())
        adds.append(reader.added(before))
    layers += [reader.layer("last"), reader.layer("last_dw")]
    fc = reader.taken("Convolution")
    reader.end()
    weight = reader.constant(fc, 1)
    chain = Network(tuple(layers), weight, np.zeros(len(weight)), mean=0.0, scale=1.0)
    return Bottlenecks(chain, -offset / gain, tuple(gates), tuple(adds))


class _Reader:
    """Takes one operator after the other, each of which has to work on the value so far."""

    def __init__(self, ir: Ir) -> None:
        self._constants = ir.constants
        self._left = list(ir.operators.items())
        self.value, operator = self._next()
        if operator.kind != "Parameter" or operator.attributes.get("shape") != f"1,3,{SIDE_PX},{SIDE_PX}":
            raise ModelError(DISAGREES)

    def taken(self, kind: str) -> Operator:
        """Take the next operator, which works on the value so far and gives the next one."""
        name, operator = self._next()
        if operator.kind != kind or operator.inputs[:1] != (self.value,):
            raise ModelError(DISAGREES)
        self.value = name
        return operator

    def constant(self, operator: Operator, place: int) -> Floats:
        """Return the constant that an operator takes as its input at `place`."""
        if len(operator.inputs) <= place or operator.inputs[place] not in self._constants:
            raise ModelError(DISAGREES)
        return self._constants[operator.inputs[place]]

    def elementwise(self, kind: str) -> Floats:
        """Take an addition or a multiplication with a constant, and return that."""
        return self.constant(self.taken(kind), 1)

    def slope(self) -> float:
        """Take a PReLU, and return its slope, which is one number."""
        values = self.elementwise("PReLU").reshape(-1)
        if len(values) != 1:
            raise ModelError(DISAGREES)
        return float(values[0])

    def layer(self, name: str) -> Layer:
        """Take a convolution, its bias, and its PReLU if it has one."""
        convolution = self.taken(
            "GroupConvolution" if self._upcoming == "GroupConvolution" else "Convolution"
        )
        weight = self.constant(convolution, 1)
        if weight.ndim == 5:
            weight = weight[:, 0]
        bias = self.elementwise("Add").reshape(-1)
        slope = self.slope() if self._upcoming == "PReLU" else 1.0
        found = [convolution.attributes.get(key) for key in ("pads_begin", "strides", "dilations")]
        stride = 2 if found[1] == "2, 2" else 1
        pad = 0 if name == "last_dw" else weight.shape[-1] // 2
        if found != [f"{pad}, {pad}", f"{stride}, {stride}", "1, 1"] or len(bias) != len(weight):
            raise ModelError(DISAGREES)
        return Layer(name, weight, bias, np.full(len(bias), slope), stride)

    def gate(self) -> Gate:
        """Take a gate on the value so far, which it multiplies."""
        features = self.value
        self.taken("AvgPool")
        squeeze = self.constant(self.taken("Convolution"), 1)[:, :, 0, 0]
        squeeze_bias = self.elementwise("Add").reshape(-1)
        slope = self.slope()
        excite = self.constant(self.taken("Convolution"), 1)[:, :, 0, 0]
        excite_bias = self.elementwise("Add").reshape(-1)
        self.taken("Sigmoid")
        self._joined("Multiply", features)
        return Gate(squeeze, squeeze_bias, slope, excite, excite_bias)

    def added(self, before: str) -> bool:
        """Take the addition of an earlier value, if that comes next, and say whether it did."""
        if self._upcoming != "Add":
            return False
        self._joined("Add", before)
        return True

    def end(self) -> None:
        """Check that only the network's result is left."""
        self.taken("Result")
        if self._left:
            raise ModelError(DISAGREES)

    def _joined(self, kind: str, other: str) -> None:
        name, operator = self._next()
        if operator.kind != kind or operator.inputs != (other, self.value):
            raise ModelError(DISAGREES)
        self.value = name

    @property
    def _upcoming(self) -> str:
        """The kind of the next operator; empty at the end."""
        return self._left[0][1].kind if self._left else ""

    def _next(self) -> tuple[str, Operator]:
        if not self._left:
            raise ModelError(DISAGREES)
        return self._left.pop(0)


def turn_steep_slopes(network: Bottlenecks) -> Bottlenecks:
    """Return an equal network whose slopes all lie in [-1, 1], so that PReLU(x) = max(x, slope * x).

    PReLU_a(x) = -a * PReLU_{1/a}(-x): a layer of slope a changes sign, and what follows is fed -a times the
    new value. Unlike SFace, slopes below -1 are turned too: then slope * x never leaves the range of x.
    """
    layers = list(network.chain.layers)
    for index, layer in enumerate(layers):
        slope = float(layer.slope[0])
        if abs(slope) > 1:
            ones = np.ones(layer.channels)
            layers[index] = replace(layer.scaled(-ones), slope=ones / slope)
            layers[index + 1] = layers[index + 1].fed_by(-slope * ones)
    return replace(network, chain=replace(network.chain, layers=tuple(layers)))
