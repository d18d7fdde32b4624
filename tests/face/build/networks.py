"""A small network of SFace's kind, for tests that need no published weights."""

import numpy as np

from edge.face.build.network import Layer, Network


def small_network(*, steep: bool = True) -> Network:
    """Five layers: dense 3x3, depthwise, pointwise, depthwise with stride, pointwise; 112 -> 56 pixels."""
    random = np.random.default_rng(7)

    def layer(name: str, shape: tuple[int, int, int, int], stride: int = 1) -> Layer:
        channels = shape[0]
        weight = random.normal(size=shape) / np.sqrt(shape[1] * shape[2] * shape[3])
        slope = random.uniform(-0.6, 0.9, channels)
        if steep:
            slope[1] = 1.25
        return Layer(name, weight, random.normal(size=channels) * 0.1, slope, stride)

    last = layer("e", (8, 16, 1, 1))
    layers = (
        layer("a", (8, 3, 3, 3)),
        layer("b", (8, 1, 3, 3)),
        layer("c", (16, 8, 1, 1)),
        layer("d", (16, 1, 3, 3), stride=2),
        Layer(last.name, last.weight, last.bias, np.minimum(last.slope, 0.9), 1),
    )
    fc = random.normal(size=(16, 8, 56, 56)) / 100
    return Network(layers, fc, random.normal(size=16), mean=127.5, scale=1 / 128)
