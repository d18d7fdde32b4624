"""Write MiniFASNet as an ONNX graph: float32, with the output of its authors' network.

BatchNormalization is folded into the convolutions. PReLU is a * x + max((1 - a) * x, 0), which onnxruntime
runs in its blocked layout; no slope of these networks is above 1. All that follows the last PReLU is linear
and becomes one matrix.

Source: Silent-Face-Anti-Spoofing by Minivision (2020), src/model_lib/MiniFASNet.py.
"""

import numpy as np
from numpy.typing import NDArray

from edge.core.errors import ModelError
from edge.face.build.graph import GraphWriter, float_tensor
from edge.face.build.minifasnet.checkpoint import read_checkpoint
from edge.face.build.network import Floats, exact_sums

SIDE_PX = 80
CLASSES = 3
EPSILON = 1e-5
"""Of every BatchNormalization. Source: torch.nn.BatchNorm2d."""

STEM = (("conv1", 2), ("conv2_dw", 1))
"""Convolutions with their strides."""

STAGES = (("conv_23", "conv_3"), ("conv_34", "conv_4"), ("conv_45", "conv_5"))
"""A block that halves the sides, and the blocks with a shortcut that follow."""

LAST_SIDE = 5
"""Side of the last feature map, which is as large as its depthwise kernel."""


class _Network:
    """The tensors of the checkpoint that were not asked for yet, under their names in the authors' code."""

    def __init__(self, tensors: dict[str, NDArray[np.generic]]) -> None:
        self._left = {name.removeprefix("module."): value for name, value in tensors.items()}

    def take(self, name: str, shape: tuple[int | None, ...]) -> Floats:
        """Return a tensor as float64; None in `shape` is any side.

        Raises:
            ModelError: There is none of that name and shape, or it has values that are not finite.
        """
        value = self._left.pop(name, None)
        right = value is not None and value.ndim == len(shape)
        if (
            value is None
            or not right
            or any(b not in (None, a) for a, b in zip(value.shape, shape, strict=True))
        ):
            raise ModelError(f"the checkpoint is not that of a MiniFASNet: {name}")
        if not np.isfinite(value).all():
            raise ModelError(f"the checkpoint has values that are not finite: {name}")
        return value.astype(np.float64)

    def has(self, name: str) -> bool:
        """Say whether there is a tensor whose name begins so."""
        return any(each.startswith(name) for each in self._left)

    def normalisation(self, name: str, channels: int) -> tuple[Floats, Floats]:
        """Return gain and shift of a BatchNormalization: y = gain * x + shift."""
        gamma, beta, mean, variance = (
            self.take(f"{name}.{part}", (channels,))
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        self._left.pop(f"{name}.num_batches_tracked", None)
        if not (variance > 0).all():
            raise ModelError(f"the checkpoint has a variance that is none: {name}")
        gain = gamma / np.sqrt(variance + EPSILON)
        return gain, beta - mean * gain

    def convolution(self, conv: str, norm: str) -> tuple[Floats, Floats]:
        """Return weight and bias of a convolution with the normalisation that follows it."""
        weight = self.take(conv, (None, None, None, None))
        gain, shift = self.normalisation(norm, len(weight))
        return weight * gain[:, None, None, None], shift

    def finish(self) -> None:
        """Refuse what nobody asked for.

        Raises:
            ModelError: The checkpoint holds more than the network.
        """
        if self._left:
            raise ModelError(f"the checkpoint holds more than a MiniFASNet: {min(self._left)}")


def write_minifasnet(checkpoint: bytes, *, input_name: str, output_name: str) -> bytes:
    """Return the ONNX file of a MiniFASNet with 80x80 pixels, with or without its attention (SE) blocks.

    Takes float32 (1, 3, 80, 80) of BGR in 0-255 and gives the logits (1, 3), of which 1 is a live face.

    Raises:
        ModelError: The checkpoint cannot be read, or is that of another network.
    """
    network, graph = _Network(read_checkpoint(checkpoint)), GraphWriter()
    x = input_name
    for name, stride in STEM:
        x = _activated(graph, network, name, x, stride)
    for first, following in STAGES:
        x = _block(graph, network, first, x, stride=2)
        index = 0
        while network.has(f"{following}.model.{index}."):
            x = _shortcut_block(graph, network, f"{following}.model.{index}", x)
            index += 1
    x = _activated(graph, network, "conv_6_sep", x, 1)
    x = graph.node("Flatten", [x], "flat")
    weight, bias = _head(network)
    network.finish()
    names = [x, graph.constant("head_w", _single(weight)), graph.constant("head_b", _single(bias))]
    graph.node("Gemm", names, output_name, transB=1)
    pixels = [float_tensor(input_name, [1, 3, SIDE_PX, SIDE_PX])]
    return graph.finish(pixels, [float_tensor(output_name, [1, CLASSES])], name="minifasnet")


def _head(network: _Network) -> tuple[Floats, Floats]:
    """Return the matrix (3, C * 25) and bias of everything behind the last PReLU."""
    kernel, shift = network.convolution("conv_6_dw.conv.weight", "conv_6_dw.bn")
    channels = len(kernel)
    if kernel.shape[1:] != (1, LAST_SIDE, LAST_SIDE):
        raise ModelError("the checkpoint is not that of a MiniFASNet for 80x80 pixels")
    linear = network.take("linear.weight", (None, channels))
    gain, offset = network.normalisation("bn", len(linear))
    probabilities = network.take("prob.weight", (CLASSES, len(linear)))
    # Sums to the nearest float64, so that every machine writes the same bytes.
    products = probabilities[:, None, :] * (linear * gain[:, None]).T[None]
    matrix = exact_sums(products.reshape(CLASSES * channels, -1)).reshape(CLASSES, channels)
    bias = exact_sums(np.concatenate([matrix * shift, probabilities * offset], axis=1))
    return (matrix[:, :, None] * kernel.reshape(1, channels, -1)).reshape(CLASSES, -1), bias


def _shortcut_block(graph: GraphWriter, network: _Network, name: str, x: str) -> str:
    y = _block(graph, network, name, x, stride=1)
    if network.has(f"{name}.se_module."):
        y = _attention(graph, network, f"{name}.se_module", y)
    return graph.node("Add", [x, y], f"{name}.sum")


def _block(graph: GraphWriter, network: _Network, name: str, x: str, *, stride: int) -> str:
    x = _activated(graph, network, f"{name}.conv", x, 1)
    x = _activated(graph, network, f"{name}.conv_dw", x, stride)
    weight, bias = network.convolution(f"{name}.project.conv.weight", f"{name}.project.bn")
    return _convolution(graph, f"{name}.project", x, weight, bias)


def _attention(graph: GraphWriter, network: _Network, name: str, x: str) -> str:
    """Weigh the channels by what a small network makes of their means."""
    y = graph.node("GlobalAveragePool", [x], f"{name}.mean")
    weight, bias = network.convolution(f"{name}.fc1.weight", f"{name}.bn1")
    y = graph.node("Relu", [_convolution(graph, f"{name}.fc1", y, weight, bias)], f"{name}.relu")
    weight, bias = network.convolution(f"{name}.fc2.weight", f"{name}.bn2")
    y = graph.node("Sigmoid", [_convolution(graph, f"{name}.fc2", y, weight, bias)], f"{name}.gate")
    return graph.node("Mul", [x, y], f"{name}.out")


def _activated(graph: GraphWriter, network: _Network, name: str, x: str, stride: int) -> str:
    """Write a convolution with its PReLU."""
    weight, bias = network.convolution(f"{name}.conv.weight", f"{name}.bn")
    channels = len(weight)
    slope = network.take(f"{name}.prelu.weight", (channels,))
    if not (slope <= 1).all():
        raise ModelError(f"the checkpoint has a slope above 1, which this recipe does not write: {name}")
    x = _convolution(graph, name, x, weight, bias, stride)
    above = graph.constant(f"{name}.1-a", _single((1 - slope)[:, None, None, None]))
    below = graph.constant(f"{name}.a", _single(slope[:, None, None, None]))
    rest = graph.node("Conv", [x, above], f"{name}.rest", kernel_shape=[1, 1], group=channels)
    rest = graph.node("Relu", [rest], f"{name}.relu")
    line = graph.node("Conv", [x, below], f"{name}.line", kernel_shape=[1, 1], group=channels)
    return graph.node("Add", [rest, line], f"{name}.out")


def _convolution(graph: GraphWriter, name: str, x: str, weight: Floats, bias: Floats, stride: int = 1) -> str:
    channels, inputs, kernel = weight.shape[:3]
    names = [x, graph.constant(f"{name}.w", _single(weight)), graph.constant(f"{name}.b", _single(bias))]
    return graph.node(
        "Conv",
        names,
        name,
        kernel_shape=[kernel] * 2,
        strides=[stride] * 2,
        pads=[kernel // 2] * 4,
        group=channels if inputs == 1 else 1,
    )


def _single(values: Floats) -> NDArray[np.float32]:
    return values.astype(np.float32)
