"""A small network with MiniFASNet's interface: bright faces are alive. And the manifest that goes with it."""

import hashlib
from pathlib import Path

import numpy as np

from edge.face.build.graph import GraphWriter, float_tensor

NAME = "brightness"

ALIVE_FROM = 110.0
"""Mean pixel value at which the network wavers. The clip has 119 to 134, the golden pattern 122."""

BLIND_BELOW = 110.0
"""Mean pixel value below which the network that fails answers NaN: not on the pattern."""


def network(
    *,
    alive_from: float = ALIVE_FROM,
    blind_below: float | None = None,
    channels: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3),
    size: int = 80,
    classes: int = 3,
    live_class: int = 1,
    softmax: bool = False,
    batch: int | str = 1,
) -> bytes:
    """float32 (1, 3, size, size) of BGR 0-255 -> (1, classes); `channels` weigh the mean of each channel.

    The logit of the live class is half the difference between the picture's brightness and `alive_from`.
    """
    graph = GraphWriter()
    weights, bias = np.zeros((3, classes), np.float32), np.zeros(classes, np.float32)
    weights[:, live_class] = np.array(channels) / 2
    bias[live_class] = -alive_from / 2
    means = graph.node("Flatten", [graph.node("GlobalAveragePool", ["input"], "pool")], "means")
    last = "logits" if softmax or blind_below is not None else "output"
    graph.node("Gemm", [means, graph.constant("w", weights), graph.constant("b", bias)], last)
    if blind_below is not None:
        mean = graph.node("ReduceMean", [means], "mean", axes=[1], keepdims=1)
        left = graph.node("Sub", [mean, graph.constant("limit", np.float32(blind_below))], "left")
        root = graph.node("Sqrt", [left], "root")
        nothing = graph.node("Sub", [root, root], "nothing")
        graph.node("Add", [last, nothing], "output")
    elif softmax:
        graph.node("Softmax", [last], "output", axis=1)
    return graph.finish(
        [float_tensor("input", [batch, 3, size, size])], [float_tensor("output", [batch, classes])], name=NAME
    )


def manifest(model: bytes, *, classes: int = 3, gives: str = "logits", colour: str = "bgr") -> str:
    return f"""
name = "{NAME}"
kind = "liveness"
file = "{NAME}.onnx"
sha256 = "{hashlib.sha256(model).hexdigest()}"
bytes = {len(model)}
licence = "Apache-2.0"
description = "bright faces are alive"
provenance = "made by a test"

[input]
name = "input"
size = [80, 80]
colour = "{colour}"

[output]
names = ["output"]
dim = {classes}

[liveness]
crop_scale = 2.7
live_class = 1
gives = "{gives}"
"""


def install(parent: Path, model: bytes | None = None, text: str | None = None) -> Path:
    """Write what an operator would: a directory with the network and its manifest. Returns the directory."""
    model = network() if model is None else model
    directory = parent / NAME
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{NAME}.onnx").write_bytes(model)
    (directory / "manifest.toml").write_text(manifest(model) if text is None else text)
    return directory
