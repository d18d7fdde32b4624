"""MiniFASNet as a graph against its authors' own arithmetic, in float64 and without ONNX."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.core.errors import ModelError
from edge.face.build.minifasnet import writer
from edge.face.build.minifasnet.checkpoint import read_checkpoint
from edge.face.build.minifasnet.published import fit_published
from edge.face.build.minifasnet.writer import write_minifasnet
from edge.face.manifest import Input, Output
from edge.face.session import Session

Tensors = dict[str, NDArray[Any]]
Values = NDArray[np.float64]

CHECKPOINT = "4_0_0_80x80_MiniFASNetV1SE.pth"


class Authors:
    """What the authors' code computes. Source: src/model_lib/MiniFASNet.py."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = {name.removeprefix("module."): value.astype(float) for name, value in tensors.items()}

    def conv(self, x: Values, name: str, stride: int, pad: int) -> Values:
        weight = self.tensors[name]
        kernel = weight.shape[2]
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
        seen = seen[:, :, ::stride, ::stride]
        if weight.shape[1] == 1:
            return np.einsum("nchwij,cij->nchw", seen, weight[:, 0])
        return np.einsum("nchwij,ocij->nohw", seen, weight)

    def norm(self, x: Values, name: str) -> Values:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        mean, variance, weight, bias = (
            self.tensors[f"{name}.{part}"].reshape(shape)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias

    def block(self, x: Values, name: str, stride: int = 1, pad: int | None = None) -> Values:
        kernel = self.tensors[f"{name}.conv.weight"].shape[2]
        y = self.norm(
            self.conv(x, f"{name}.conv.weight", stride, kernel // 2 if pad is None else pad), f"{name}.bn"
        )
        slope = self.tensors.get(f"{name}.prelu.weight")
        return y if slope is None else np.where(y > 0, y, slope.reshape(1, -1, 1, 1) * y)

    def deep(self, x: Values, name: str, stride: int) -> Values:
        y = self.block(self.block(x, f"{name}.conv"), f"{name}.conv_dw", stride)
        y = self.block(y, f"{name}.project")
        if f"{name}.se_module.fc1.weight" in self.tensors:
            gate = y.mean((2, 3), keepdims=True)
            gate = self.norm(self.conv(gate, f"{name}.se_module.fc1.weight", 1, 0), f"{name}.se_module.bn1")
            gate = self.conv(np.maximum(gate, 0), f"{name}.se_module.fc2.weight", 1, 0)
            y = y / (1 + np.exp(-self.norm(gate, f"{name}.se_module.bn2")))
        return y

    def __call__(self, pixels: Values) -> Values:
        x = self.block(self.block(pixels, "conv1", 2), "conv2_dw")
        for first, following, count in (
            ("conv_23", "conv_3", 4),
            ("conv_34", "conv_4", 6),
            ("conv_45", "conv_5", 2),
        ):
            x = self.deep(x, first, 2)
            for index in range(count):
                x = x + self.deep(x, f"{following}.model.{index}", 1)
        x = self.block(self.block(x, "conv_6_sep"), "conv_6_dw", pad=0).reshape(1, -1)
        x = self.norm(x @ self.tensors["linear.weight"].T, "bn")
        return np.asarray(x @ self.tensors["prob.weight"].T)


@pytest.fixture(scope="module")
def checkpoint(recommended_dir: Path) -> bytes:
    return (recommended_dir / CHECKPOINT).read_bytes()


def test_the_graph_computes_what_its_authors_code_computes(checkpoint: bytes) -> None:
    authors = Authors(read_checkpoint(checkpoint))
    inputs = Input(name="input", size=(80, 80), colour="bgr")
    model = write_minifasnet(checkpoint, input_name="input", output_name="logits")
    session = Session(model, inputs=inputs, outputs=Output(names=("logits",), dim=3), threads=1)
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (1, 3, 80, 80)).astype(np.float32)
        [found] = session.run(pixels)
        assert np.abs(found - authors(pixels.astype(float))).max() < 1e-4


def without(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.__delitem__(name)


def changed(name: str, value: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: value(tensors[name])})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(without("module.conv1.conv.weight"), "not that of a MiniFASNet: conv1", id="no stem"),
        pytest.param(without("module.prob.weight"), "not that of a MiniFASNet: prob", id="no head"),
        pytest.param(
            without("module.conv_4.model.5.se_module.fc2.weight"),
            "not that of a MiniFASNet: conv_4",
            id="half",
        ),
        pytest.param(
            changed("module.prob.weight", lambda each: each[:2]), "MiniFASNet: prob", id="two classes"
        ),
        pytest.param(
            changed("module.conv_6_dw.conv.weight", lambda each: each[..., 1:, 1:]),
            "80x80",
            id="other pixels",
        ),
        pytest.param(
            changed("module.conv1.conv.weight", lambda each: each * np.nan), "not finite: conv1", id="NaN"
        ),
        pytest.param(
            changed("module.bn.running_var", lambda each: each * -1),
            "variance that is none: bn",
            id="variance",
        ),
        pytest.param(
            changed("module.conv1.prelu.weight", lambda each: each + 1), "slope above 1", id="steep slope"
        ),
        pytest.param(
            lambda tensors: tensors.update({"module.conv_9.bias": tensors["module.bn.bias"]}),
            "holds more than a MiniFASNet: conv_9",
            id="more",
        ),
    ],
)
def test_the_checkpoint_of_another_network_is_refused(
    checkpoint: bytes, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensors], None], says: str
) -> None:
    tensors = read_checkpoint(checkpoint)
    spoil(tensors)
    monkeypatch.setattr(writer, "read_checkpoint", lambda content: tensors)
    with pytest.raises(ModelError, match=says):
        write_minifasnet(checkpoint, input_name="input", output_name="logits")


@pytest.mark.parametrize("model", [pytest.param(b"", id="empty"), pytest.param(b"GIF89a" * 50, id="foreign")])
def test_a_published_file_that_is_no_such_graph_is_refused(model: bytes) -> None:
    with pytest.raises(ModelError, match=r"the published (file|model) is (no ONNX|not the graph)"):
        fit_published(model)
