"""The detector's joined heads against the published twelve outputs, and graphs that must be refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge.core.errors import ModelError
from edge.core.types import FloatArray
from edge.face.build.fp32 import free_input_size
from edge.face.build.heads import HEADS, STRIDES, join_heads
from edge.face.manifest import Manifest, load_manifest
from edge.face.session import Session, pattern
from edge.face.weights import load_verified


@pytest.fixture(scope="module")
def published(models_dir: Path) -> bytes:
    return load_verified(load_manifest("yunet-2023mar"), models_dir)


def outputs_of(manifest: Manifest, model: bytes) -> dict[str, FloatArray]:
    outputs = Session.of(manifest, model, threads=1).run(pattern(640, 640))
    return dict(zip(manifest.output.names, outputs, strict=True))


def test_the_joined_heads_are_the_published_outputs(models_dir: Path, published: bytes) -> None:
    joined, parent = load_manifest("yunet"), load_manifest("yunet-2023mar")
    found = outputs_of(joined, load_verified(joined, models_dir))
    expected = outputs_of(parent, published)
    for stride in STRIDES:
        cells = found[f"head_{stride}"].reshape(16, -1).T
        ends = {"cls": (0, 1), "obj": (1, 2), "bbox": (2, 6), "kps": (6, 16)}
        for name in HEADS:
            values = cells[:, slice(*ends[name])]
            if name in ("cls", "obj"):
                values = 1 / (1 + np.exp(-values))
            assert np.allclose(values, expected[f"{name}_{stride}"][0], rtol=0, atol=2e-5)


def test_only_the_heads_change(published: bytes) -> None:
    before, after = (onnx.load_model_from_string(m).graph for m in (published, join_heads(published)))
    onnx.checker.check_model(onnx.load_model_from_string(join_heads(published)))
    kept = [node for node in before.node if node in list(after.node)]
    added = [node for node in after.node if node not in list(before.node)]
    assert [node.name for node in added] == [f"head_{s}{e}" for s in STRIDES for e in ("_pointwise", "")]
    assert len(kept) == len(after.node) - 6
    assert sum(node.op_type == "Conv" for node in before.node) == sum(
        node.op_type == "Conv" for node in after.node
    ) + 2 * 3 * (len(HEADS) - 1)
    used = {name for node in after.node for name in node.input}
    assert {constant.name for constant in after.initializer} <= used


def test_freeing_the_size_and_joining_may_be_done_in_either_order(published: bytes) -> None:
    one, other = join_heads(free_input_size(published)), free_input_size(join_heads(published))
    nodes = [list(onnx.load_model_from_string(model).graph.node) for model in (one, other)]
    assert nodes[0] == nodes[1]


def node_behind(graph: onnx.GraphProto, output: str, kind: str) -> onnx.NodeProto:
    """Return the nearest node of a kind above an output."""
    maker = {node.output[0]: node for node in graph.node}
    node = maker[output]
    while node.op_type != kind:
        node = maker[node.input[0]]
    return node


def without_an_output(graph: onnx.GraphProto) -> None:
    del graph.output[0]


def with_another_feature(graph: onnx.GraphProto) -> None:
    depthwise = node_behind(graph, "kps_16", "Conv")
    maker = {node.output[0]: node for node in graph.node}
    maker[depthwise.input[0]].input[0] = "256"


def with_a_stride(graph: onnx.GraphProto) -> None:
    conv = node_behind(graph, "bbox_8", "Conv")
    next(a for a in conv.attribute if a.name == "strides").ints[:] = [2, 2]


def with_another_activation(graph: onnx.GraphProto) -> None:
    node_behind(graph, "obj_32", "Sigmoid").op_type = "Tanh"


def with_a_dense_kernel(graph: onnx.GraphProto) -> None:
    conv = node_behind(graph, "bbox_16", "Conv")
    next(a for a in conv.attribute if a.name == "group").i = 1
    weight = next(c for c in graph.initializer if c.name == conv.input[1])
    weight.CopyFrom(numpy_helper.from_array(np.zeros((4, 4, 3, 3), np.float32), weight.name))


def with_a_computed_weight(graph: onnx.GraphProto) -> None:
    conv = node_behind(graph, "cls_8", "Conv")
    graph.node.insert(0, helper.make_node("Abs", [conv.input[1]], ["computed"]))
    conv.input[1] = "computed"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param(without_an_output, "has not the outputs of YuNet", id="an output less"),
        pytest.param(with_another_feature, "heads of stride 16 do not share", id="two feature maps"),
        pytest.param(with_a_stride, "output bbox_8 .* is not a head", id="a stride"),
        pytest.param(with_another_activation, "output obj_32 .* is not a head", id="another activation"),
        pytest.param(with_a_dense_kernel, "output bbox_16 .* is not a head", id="a dense kernel"),
        pytest.param(with_a_computed_weight, "output cls_8 .* is not a head", id="a computed weight"),
    ],
)
def test_what_does_not_end_in_those_heads_is_refused(
    published: bytes, change: Callable[[onnx.GraphProto], None], complaint: str
) -> None:
    proto = onnx.load_model_from_string(published)
    change(proto.graph)
    with pytest.raises(ModelError, match=complaint):
        join_heads(proto.SerializeToString())


def test_an_embedder_has_no_heads(models_dir: Path) -> None:
    with pytest.raises(ModelError, match="not the outputs of YuNet"):
        join_heads(load_verified(load_manifest("sface"), models_dir))
