from pathlib import Path

import numpy as np
import onnx
import pytest

from edge.core.errors import ModelError
from edge.core.types import FloatArray
from edge.face.build.fp32 import flip_steep_slopes, write_fp32
from edge.face.build.network import Network, exact_sums, parse
from edge.face.manifest import Input, Output, load_manifest
from edge.face.session import Session, pattern
from edge.face.weights import load_verified
from tests.face.build.networks import small_network

INPUT = Input(name="data", size=(112, 112), colour="rgb")


def run_fp32(network: Network) -> FloatArray:
    dim = len(network.fc_bias)
    model = write_fp32(network, input_name="data", output_name="fc1")
    return Session(model, inputs=INPUT, outputs=Output(names=("fc1",), dim=dim), threads=1).run(
        pattern(112, 112)
    )[0]


def test_folding_and_rewriting_change_no_output_of_the_published_model(models_dir: Path) -> None:
    manifest = load_manifest("sface")
    model = load_verified(manifest, models_dir)
    published = Session.of(manifest, model, threads=1).run(pattern(112, 112))[0]
    rewritten = run_fp32(flip_steep_slopes(parse(model)))
    assert np.allclose(rewritten, published, rtol=0, atol=2e-5 * np.abs(published).max())


def test_the_published_model_has_the_layers_the_recipe_expects(models_dir: Path) -> None:
    network = parse(load_verified(load_manifest("sface"), models_dir))
    assert len(network.layers) == 27
    assert [layer.depthwise for layer in network.layers] == [False] + [True, False] * 13
    assert network.fc_weight.shape == (128, 1024, 7, 7)
    assert sum(int((layer.slope > 1).sum()) for layer in network.layers) == 3


def test_another_model_is_refused(models_dir: Path) -> None:
    with pytest.raises(ModelError, match="not the SFace graph"):
        parse(load_verified(load_manifest("yunet"), models_dir))


def test_a_model_with_other_padding_is_refused(models_dir: Path) -> None:
    proto = onnx.load_model_from_string(load_verified(load_manifest("sface"), models_dir))
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    next(a for a in conv.attribute if a.name == "pads").ints[:] = [0, 0, 0, 0]
    with pytest.raises(ModelError, match="conv_1_conv2d: not a convolution of the SFace graph"):
        parse(proto.SerializeToString())


@pytest.mark.parametrize("index", range(5))
def test_rescaling_a_layer_changes_no_output(index: int) -> None:
    network = small_network(steep=False)
    factor = np.random.default_rng(index).uniform(0.2, 5, network.layers[index].channels)
    assert np.allclose(run_fp32(network.rescaled(index, factor)), run_fp32(network), atol=1e-3)


def reference(network: Network) -> FloatArray:
    """Run a network with slopes of any size, straight from the definitions."""
    x = (pattern(112, 112)[0].astype(np.float64) - network.mean) * network.scale
    for layer in network.layers:
        pad = layer.kernel // 2
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (layer.kernel,) * 2, axis=(1, 2))
        windows = windows[:, :: layer.stride, :: layer.stride]
        formula = "chwij,cij->chw" if layer.depthwise else "chwij,mcij->mhw"
        weight = layer.weight[:, 0] if layer.depthwise else layer.weight
        x = np.einsum(formula, windows, weight, optimize=True) + layer.bias[:, None, None]
        x = np.where(x < 0, x * layer.slope[:, None, None], x)
    return np.asarray(np.einsum("chw,dchw->d", x, network.fc_weight) + network.fc_bias, np.float32)


def test_turning_steep_slopes_changes_no_output() -> None:
    network = small_network(steep=True)
    flipped = flip_steep_slopes(network)
    assert max(layer.slope.max() for layer in network.layers) > 1
    assert max(layer.slope.max() for layer in flipped.layers) <= 1
    assert np.allclose(run_fp32(flipped)[0], reference(network), atol=1e-3)


def test_turning_is_done_once() -> None:
    flipped = flip_steep_slopes(small_network())
    again = flip_steep_slopes(flipped)
    assert all(np.array_equal(a.weight, b.weight) for a, b in zip(flipped.layers, again.layers, strict=True))


def test_sums_do_not_depend_on_the_order() -> None:
    values = np.array([[1e16, 1.0, -1e16, 1.0], [0.1] * 4])
    assert exact_sums(values).tolist() == [2.0, 0.4]
