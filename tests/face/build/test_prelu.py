"""PReLU on bytes: both forms against the definition, on every byte."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge.core.types import FloatArray
from edge.face.build.graph import GraphWriter, float_tensor
from edge.face.build.prelu import PreluForm, add_prelu, max_prelu, scale_constants
from edge.face.build.quantized import QuantizedLayer, Scale
from edge.face.manifest import Input, Output
from edge.face.session import Session

SLOPES = (-1.0, -0.4, 0.0, 0.25, 0.9, 1.0)
OUT = Scale.over(-1.5, 2.5)
SIDE = 16


def layer_of(slopes: tuple[float, ...]) -> QuantizedLayer:
    channels = len(slopes)
    return QuantizedLayer(
        name="layer",
        weight=np.ones((channels, 1, 1, 1), np.int8),
        weight_scale=np.ones(channels, np.float32),
        bias=np.zeros(channels, np.int32),
        slope=np.array(slopes),
        stride=1,
        depthwise=True,
        out=OUT,
    )


def run(form: PreluForm, slopes: tuple[float, ...]) -> FloatArray:
    """Feed every byte, as real numbers, through a PReLU of each slope; returns real numbers (256, C)."""
    graph, layer = GraphWriter(), layer_of(slopes)
    out = scale_constants(graph, "layer_out", OUT)
    first = graph.constant("first", np.array([0], np.int64))
    one = graph.node(
        "Slice",
        [
            "data",
            first,
            graph.constant("last", np.array([1], np.int64)),
            graph.constant("axis", np.array([1], np.int64)),
        ],
        "one",
    )
    x = graph.node("QuantizeLinear", [one, *out], "x")
    x = graph.node("Transpose", [x], "nhwc", perm=[0, 2, 3, 1])
    x = graph.node("Tile", [x, graph.constant("times", np.array([1, 1, 1, len(slopes)], np.int64))], "wide")
    y = graph.node("DequantizeLinear", [form(graph, layer, x), *out], "real")
    model = graph.finish(
        [float_tensor("data", [1, 3, SIDE, SIDE])],
        [float_tensor(y, [1, SIDE, SIDE, len(slopes)])],
        name="prelu",
        contrib=True,
    )
    session = Session(
        model,
        inputs=Input(name="data", size=(SIDE, SIDE), colour="rgb"),
        outputs=Output(names=("real",)),
        threads=1,
    )
    data = np.broadcast_to(every_byte().reshape(1, 1, SIDE, SIDE), (1, 3, SIDE, SIDE))
    return session.run(np.ascontiguousarray(data, np.float32))[0].reshape(256, -1)


def every_byte() -> FloatArray:
    return ((np.arange(256) - OUT.zero_point) * np.float32(OUT.scale)).astype(np.float32)


@pytest.mark.parametrize(
    ("form", "steps"), [pytest.param(max_prelu, 0.51, id="max"), pytest.param(add_prelu, 1.01, id="add")]
)
def test_every_byte_comes_out_as_the_definition_says(form: PreluForm, steps: float) -> None:
    """To half a step of the output; the other form rounds twice."""
    x = every_byte()
    lowest, highest = x.min(), x.max()
    for slope, got in zip(SLOPES, run(form, SLOPES).T, strict=True):
        wanted = np.clip(np.where(x < 0, x * slope, x), lowest, highest)
        assert np.abs(got - wanted).max() <= steps * OUT.scale, f"slope {slope}"


@pytest.mark.parametrize("form", [max_prelu, add_prelu])
def test_what_is_not_negative_passes_unchanged(form: PreluForm) -> None:
    x = every_byte()
    assert np.allclose(run(form, SLOPES)[x >= 0], x[x >= 0, None], atol=OUT.scale / 100)


@pytest.mark.parametrize("form", [max_prelu, add_prelu])
def test_slopes_of_one_are_the_identity(form: PreluForm) -> None:
    assert np.allclose(run(form, (1.0, 1.0)), every_byte()[:, None], atol=OUT.scale / 100)


def operators(form: PreluForm) -> set[str]:
    graph = GraphWriter()
    y = form(graph, layer_of(SLOPES), "x")
    tensor = [helper.make_tensor_value_info(n, TensorProto.UINT8, [1, 1, 1, len(SLOPES)]) for n in ("x", y)]
    model = onnx.load_model_from_string(graph.finish(tensor[:1], tensor[1:], name="prelu", contrib=True))
    return {node.op_type for node in model.graph.node}


def test_the_fall_back_takes_no_max() -> None:
    assert operators(max_prelu) == {"QLinearConv", "Max"}
    assert operators(add_prelu) == {"QLinearConv", "QLinearAdd"}
