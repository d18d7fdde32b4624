import numpy as np
import pytest

from edge.core.errors import ModelError
from edge.core.types import FloatArray
from edge.face.build.fp32 import flip_steep_slopes, write_fp32
from edge.face.build.int8 import write_int8
from edge.face.build.quantized import Scale, equalise, quantize
from edge.face.build.tables import Statistics, read_statistics, write_statistics
from edge.face.manifest import Input, Output
from edge.face.session import Session, pattern
from edge.lab.weights.calibrate import calibrate
from tests.face.build.networks import small_network

INPUT = Input(name="data", size=(112, 112), colour="rgb")
OUTPUT = Output(names=("fc1",), dim=16)


def noise(seed: int) -> FloatArray:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (1, 3, 14, 14)).repeat(8, axis=2).repeat(8, axis=3)
    return np.asarray(np.clip(image + random.integers(-20, 20, image.shape), 0, 255), np.float32)


@pytest.fixture(scope="module")
def statistics() -> Statistics:
    """The small network calibrated for real, on noise."""
    return calibrate(small_network(), [noise(i) for i in range(8)], [noise(i) for i in range(8, 16)], "noise")


def test_a_calibrated_network_in_integers_is_close_to_the_exact_one(statistics: Statistics) -> None:
    network = small_network()
    exact = Session(
        write_fp32(flip_steep_slopes(network), input_name="data", output_name="fc1"),
        inputs=INPUT,
        outputs=OUTPUT,
        threads=1,
    )
    model = write_int8(
        quantize(equalise(network, statistics), statistics), input_name="data", output_name="fc1"
    )
    integer = Session(model, inputs=INPUT, outputs=OUTPUT, threads=1)
    for image in (noise(99), noise(100), pattern(112, 112)):
        a, b = exact.run(image)[0][0], integer.run(image)[0][0]
        assert a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) > 0.999


def test_the_integer_model_is_the_same_every_time(statistics: Statistics) -> None:
    models = {
        write_int8(
            quantize(equalise(small_network(), statistics), statistics), input_name="data", output_name="fc1"
        )
        for _ in range(2)
    }
    assert len(models) == 1


def test_statistics_survive_being_written(statistics: Statistics) -> None:
    assert read_statistics(write_statistics(statistics).encode(), Statistics) == statistics


@pytest.mark.parametrize(
    "text", [b"", b"{}", b'{"source": "x", "layers": [], "fc": {"clip_percent": [0], "correction": [0]}}']
)
def test_damaged_statistics_are_refused(text: bytes) -> None:
    with pytest.raises(ModelError, match=r"statistics: .*; install edge again"):
        read_statistics(text, Statistics)


def test_statistics_of_another_network_are_refused(statistics: Statistics) -> None:
    short = statistics.model_copy(update={"layers": statistics.layers[:-1]})
    with pytest.raises(ModelError, match="statistics: made for another network"):
        equalise(small_network(), short)


@pytest.mark.parametrize(
    ("low", "high", "zero_point"),
    [(-1.28, 1.27, 128), (-1e-6, 2.55, 0), (-2.55, 1e-6, 255), (-0.5, 2.05, 50)],
)
def test_zero_is_always_a_step_of_a_scale(low: float, high: float, zero_point: int) -> None:
    scale = Scale.over(low, high)
    assert scale.zero_point == zero_point
    assert scale.scale == pytest.approx((high - low) / 255)
