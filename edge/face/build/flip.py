"""Bring every PReLU slope to at most 1 by turning signs. Exact; changes no output."""

from dataclasses import replace

import numpy as np

from edge.face.build.network import Network


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
