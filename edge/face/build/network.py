"""SFace as plain arrays: 27 convolutions, each with its PReLU, and one fully connected layer.

Reads the published graph and folds what an inference does not need apart (the normalisations, the
scaling of the input). The arithmetic is float64, element by element, with exactly rounded sums, so that
it gives the same bits on every machine. Writes no graph.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edge.core.errors import ModelError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A convolution and the PReLU behind it.

    `weight` is (M, C / group, kernel, kernel), `bias` (M,), `slope` (M,) per channel; a depthwise layer
    has C / group = 1. Input and output are padded to keep the size, divided by `stride`.
    """

    name: str
    weight: Floats
    bias: Floats
    slope: Floats
    stride: int

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return int(self.weight.shape[0])

    @property
    def kernel(self) -> int:
        """Side of the kernel in pixels."""
        return int(self.weight.shape[2])

    @property
    def depthwise(self) -> bool:
        """Whether every channel is filtered on its own."""
        return bool(self.weight.shape[1] == 1)

    def scaled(self, factor: Floats) -> "Layer":
        """Return the layer whose output is multiplied per channel by `factor` (M,) > 0.

        Exact because PReLU is positively homogeneous.
        """
        return replace(self, weight=self.weight * factor[:, None, None, None], bias=self.bias * factor)

    def fed_by(self, factor: Floats) -> "Layer":
        """Return the layer that gives the same output when its input was divided per channel by `factor`."""
        if self.depthwise:
            return replace(self, weight=self.weight * factor[:, None, None, None])
        return replace(self, weight=self.weight * factor[None, :, None, None])


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """The whole embedder: RGB pixels in 0-255, centred by `mean` and multiplied by `scale`, through `layers`.

    `fc_weight` is (D, C, 7, 7) over the last layer's output, `fc_bias` (D,).
    """

    layers: tuple[Layer, ...]
    fc_weight: Floats
    fc_bias: Floats
    mean: float
    scale: float

    def rescaled(self, index: int, factor: Floats) -> "Network":
        """Divide the output of layer `index` per channel by `factor` and undo it in what follows."""
        layers = list(self.layers)
        layers[index] = layers[index].scaled(1.0 / factor)
        if index + 1 < len(layers):
            layers[index + 1] = layers[index + 1].fed_by(factor)
            return replace(self, layers=tuple(layers))
        return replace(self, layers=tuple(layers), fc_weight=self.fc_weight * factor[None, :, None, None])


def parse(model: bytes) -> Network:
    """Read the published SFace graph and fold its 29 normalisations.

    Raises:
        ModelError: The graph is not a chain of Conv, BatchNormalization and PRelu that ends in one Gemm.
    """
    graph = onnx.load_model_from_string(model).graph
    values = {i.name: numpy_helper.to_array(i).astype(np.float64) for i in graph.initializer}
    nodes = [node for node in graph.node if node.op_type not in ("Dropout", "Flatten")]
    kinds = [node.op_type for node in nodes]
    blocks = (len(nodes) - 5) // 3
    expected = ["Sub", "Mul"] + ["Conv", "BatchNormalization", "PRelu"] * blocks
    expected += ["BatchNormalization", "Gemm", "BatchNormalization"]
    if kinds != expected:
        raise ModelError("the parent model is not the SFace graph this recipe was written for")
    chain = [nodes[2 + 3 * i : 5 + 3 * i] for i in range(blocks)]
    layers = tuple(_layer(conv, norm, prelu, values) for conv, norm, prelu in chain)
    gain_in, shift_in = _normalisation(nodes[-3], values)
    gain_out, shift_out = _normalisation(nodes[-1], values)
    weight = values[nodes[-2].input[1]].reshape(len(gain_out), len(gain_in), -1)
    bias = values[nodes[-2].input[2]] + exact_sums(weight * shift_in[None, :, None])
    side = math.isqrt(weight.shape[2])
    folded = weight * gain_in[None, :, None] * gain_out[:, None, None]
    return Network(
        layers=layers,
        fc_weight=folded.reshape(*folded.shape[:2], side, side),
        fc_bias=bias * gain_out + shift_out,
        mean=float(values[nodes[0].input[1]].item()),
        scale=float(values[nodes[1].input[1]].item()),
    )


def _layer(
    conv: onnx.NodeProto, norm: onnx.NodeProto, prelu: onnx.NodeProto, values: dict[str, Floats]
) -> Layer:
    gain, shift = _normalisation(norm, values)
    weight = values[conv.input[1]]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in conv.attribute}
    stride, kernel = attributes["strides"][0], weight.shape[2]
    group_fits = attributes["group"] in (1, weight.shape[0]) and (attributes["group"] == 1) == (
        weight.shape[1] > 1
    )
    if len(conv.input) != 2 or attributes["pads"] != [kernel // 2] * 4 or not group_fits:
        raise ModelError(f"{conv.output[0]}: not a convolution of the SFace graph")
    return Layer(
        name=conv.output[0].removesuffix("_conv2d"),
        weight=weight * gain[:, None, None, None],
        bias=shift,
        slope=values[prelu.input[1]].reshape(-1),
        stride=stride,
    )


def _normalisation(node: onnx.NodeProto, values: dict[str, Floats]) -> tuple[Floats, Floats]:
    """Return gain and shift of a BatchNormalization: y = gain * x + shift."""
    gamma, beta, mean, variance = (values[name] for name in node.input[1:])
    epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
    gain = gamma / np.sqrt(variance + epsilon)
    return gain, beta - mean * gain


def exact_sums(values: Floats) -> Floats:
    """Sum over all axes but the first, to the nearest float64: numpy's own sum depends on the machine."""
    return np.array([math.fsum(row) for row in values.reshape(len(values), -1).tolist()])
