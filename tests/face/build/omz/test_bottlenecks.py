"""face-reidentification-retail-0095: its graphs give what the operators of the published files give."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from edge.core.errors import ModelError
from edge.core.types import FloatArray
from edge.face.build.network import Floats
from edge.face.build.omz.bottlenecks import Bottlenecks, parse, turn_steep_slopes
from edge.face.build.omz.bottlenecks_fp32 import write_bottlenecks_fp32
from edge.face.build.omz.bottlenecks_int8 import (
    BottleneckStatistics,
    equalise_bottlenecks,
    quantize_bottlenecks,
)
from edge.face.build.omz.ir import Ir, Operator, read_ir
from edge.face.build.tables import read_statistics
from edge.face.manifest import Input, Output, load_manifest
from edge.face.session import Session, pattern
from edge.face.weights import build_data, build_parts, load_verified

INPUT, OUTPUT = Input(name="0", size=(128, 128), colour="bgr"), Output(names=("658",), dim=256)


@pytest.fixture(scope="module")
def ir(recommended_dir: Path) -> Ir:
    return read_ir(*build_parts(load_manifest("omz-0095"), recommended_dir))


@pytest.fixture(scope="module")
def network(ir: Ir) -> Bottlenecks:
    return parse(ir)


@pytest.fixture(scope="module")
def statistics() -> BottleneckStatistics:
    return read_statistics(build_data(load_manifest("omz-0095-int8")), BottleneckStatistics)


def cosine(a: FloatArray | Floats, b: FloatArray | Floats) -> float:
    a, b = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def answer(network: Bottlenecks, pixels: FloatArray) -> FloatArray:
    model = write_bottlenecks_fp32(network, input_name="0", output_name="658")
    return Session(model, inputs=INPUT, outputs=OUTPUT, threads=1).run(pixels)[0]


def step(operator: Operator, values: list[Floats]) -> Floats:
    """Return what one operator of an IR gives, by its definition, in float64."""
    x = values[0]
    match operator.kind:
        case "Multiply":
            return x * values[1]
        case "Add":
            return x + values[1]
        case "PReLU":
            return np.where(x > 0, x, x * values[1])
        case "Sigmoid":
            return 1 / (1 + np.exp(-x))
        case "AvgPool":
            return x.mean(axis=(2, 3), keepdims=True)
        case "Result":
            return x
    stride, pad = (int(operator.attributes[name].split(",")[0]) for name in ("strides", "pads_begin"))
    kernel = values[1]
    padded = np.pad(x[0], ((0, 0), (pad, pad), (pad, pad)))
    seen = sliding_window_view(padded, kernel.shape[-2:], axis=(1, 2))[:, ::stride, ::stride]
    if operator.kind == "GroupConvolution":
        return np.einsum("cyxhw,chw->cyx", seen, kernel[:, 0, 0])[None]
    assert operator.kind == "Convolution"
    return np.tensordot(kernel, seen, axes=((1, 2, 3), (0, 3, 4)))[None]


def interpreted(ir: Ir, pixels: FloatArray) -> Floats:
    values: dict[str, Floats] = dict(ir.constants)
    for name, operator in ir.operators.items():
        given = [values[source] for source in operator.inputs]
        values[name] = step(operator, given) if given else pixels.astype(np.float64)
    return values[name]


def test_the_float_graph_gives_what_the_published_operators_give(ir: Ir, network: Bottlenecks) -> None:
    pixels = pattern(128, 128)
    assert cosine(answer(network, pixels), interpreted(ir, pixels)) > 0.99999


def test_turning_steep_slopes_changes_no_answer(network: Bottlenecks) -> None:
    turned = turn_steep_slopes(network)
    assert any((abs(layer.slope) > 1).any() for layer in network.chain.layers)
    assert all((abs(layer.slope) <= 1).all() for layer in turned.chain.layers)
    pixels = pattern(128, 128)
    assert cosine(answer(turned, pixels), answer(network, pixels)) > 0.99999


def test_equalising_changes_no_answer(network: Bottlenecks, statistics: BottleneckStatistics) -> None:
    pixels = pattern(128, 128)
    equal = equalise_bottlenecks(network, statistics)
    assert cosine(answer(equal, pixels), answer(network, pixels)) > 0.99999


def test_integers_answer_like_floats_and_do_not_overflow(
    network: Bottlenecks, statistics: BottleneckStatistics, recommended_dir: Path
) -> None:
    quantized = quantize_bottlenecks(equalise_bottlenecks(network, statistics), statistics)
    for layer in quantized.chain.layers:
        if not layer.depthwise:
            rows = layer.weight.transpose(0, 2, 3, 1).reshape(len(layer.weight), -1).astype(int)
            even = rows.shape[1] // 2 * 2
            assert abs(rows[:, 0:even:2] + rows[:, 1:even:2]).max() <= 128, layer.name
    manifest = load_manifest("omz-0095-int8")
    session = Session.of(manifest, load_verified(manifest, recommended_dir), threads=1)
    pixels = pattern(128, 128)
    assert cosine(session.run(pixels)[0], answer(network, pixels)) > 0.97, "a pattern is no face"


def test_another_network_is_refused(ir: Ir) -> None:
    for name, kind in (("3", "Add"), ("9", "MatMul"), ("65", "Relu"), ("66", "Add")):
        operators = {**ir.operators, name: replace(ir.operators[name], kind=kind)}
        with pytest.raises(ModelError, match="not the face-reidentification-retail-0095"):
            parse(Ir(operators, ir.constants))
    for last in ("0", "65", "684", "685"):
        operators = dict(list(ir.operators.items())[: list(ir.operators).index(last)])
        with pytest.raises(ModelError, match="not the face-reidentification-retail-0095"):
            parse(Ir(operators, ir.constants))


def test_statistics_of_another_network_are_refused(
    network: Bottlenecks, statistics: BottleneckStatistics
) -> None:
    fewer = statistics.model_copy(update={"layers": statistics.layers[:-1]})
    with pytest.raises(ModelError, match="made for another network"):
        equalise_bottlenecks(network, fewer)
    equal = equalise_bottlenecks(network, statistics)
    with pytest.raises(ModelError, match="made for another network"):
        quantize_bottlenecks(equal, statistics.model_copy(update={"gates": statistics.gates[1:]}))
