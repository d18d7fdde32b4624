"""The operator's liveness network: what it sees, what its answer means, every way to get it wrong."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.core.errors import ModelError, ModelIntegrityError, ModelMissingError, ModelShapeError
from edge.core.types import Image
from edge.face.build.graph import GraphWriter, float_tensor
from edge.face.liveness import Liveness, load_liveness
from edge.face.manifest import read_manifest
from edge.face.session import Session, record_golden
from tests.support.liveness import ALIVE_FROM, BLIND_BELOW, NAME, install, manifest, network
from tests.support.places import ROOT

BOX = np.array([100, 80, 140, 130], np.float32)


def grey(value: float, shape: tuple[int, int] = (240, 320)) -> Image:
    return np.full((*shape, 3), value, np.uint8)


def ramp(height: int, width: int) -> Image:
    """A picture whose pixels say where they are: blue = x, green = y."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width)[None], np.arange(height)[:, None]
    return image


@pytest.fixture
def liveness(tmp_path: Path) -> Liveness:
    return load_liveness(install(tmp_path), threads=1)


def test_the_score_is_the_probability_of_the_live_class(liveness: Liveness) -> None:
    for brightness in (100, 127, 128, 131, 150):
        logit = (brightness - ALIVE_FROM) / 2
        expected = np.exp(logit) / (np.exp(logit) + 2)
        assert liveness.score(grey(brightness), BOX) == pytest.approx(expected, abs=1e-5)
    assert liveness.name == NAME
    assert liveness.model_id.startswith(f"{NAME}@")


def test_a_network_that_ends_in_a_softmax_gives_the_same_score(tmp_path: Path, liveness: Liveness) -> None:
    model = network(softmax=True)
    other = load_liveness(
        install(tmp_path / "other", model, manifest(model, gives="probabilities")), threads=1
    )
    for brightness in (0, 120, 129, 140, 255):
        image = grey(brightness)
        assert other.score(image, BOX) == pytest.approx(liveness.score(image, BOX), abs=1e-5)
        assert 0 <= other.score(image, BOX) <= 1


@pytest.mark.parametrize(("colour", "channel"), [("bgr", 0), ("rgb", 2)])
def test_the_first_channel_is_blue_or_red_as_declared(tmp_path: Path, colour: str, channel: int) -> None:
    model = network(channels=(1, 0, 0))
    judge = load_liveness(install(tmp_path, model, manifest(model, colour=colour)), threads=1)
    image = grey(0)
    image[..., channel] = 255
    assert judge.score(image, BOX) > 0.99
    image[..., channel], image[..., 2 - channel] = 0, 255
    assert judge.score(image, BOX) < 0.01


def test_mean_and_scale_are_applied(tmp_path: Path) -> None:
    model = network(alive_from=0.25, channels=(100 / 3, 100 / 3, 100 / 3))
    text = manifest(model).replace('colour = "bgr"', 'colour = "bgr"\nmean = 127.5\nscale = 0.0078125')
    judge = load_liveness(install(tmp_path, model, text), threads=1)
    assert judge.score(grey(140), BOX) > 0.9
    assert judge.score(grey(120), BOX) < 0.1


def test_the_network_sees_the_box_enlarged_around_its_centre(liveness: Liveness) -> None:
    crop = liveness.crop(ramp(240, 250), BOX)
    # The box is 40 x 50 around (120, 105); 2.7 times: x from 66 to 174, y from 37.5 to 172.5.
    assert crop.shape == (80, 80, 3)
    assert crop[40, 40, 0] == pytest.approx(120, abs=2)
    assert (int(crop[0, 0, 0]), int(crop[0, -1, 0])) == (pytest.approx(66, abs=2), pytest.approx(173, abs=2))
    assert (int(crop[0, 0, 1]), int(crop[-1, 0, 1])) == (pytest.approx(38, abs=2), pytest.approx(172, abs=2))


@pytest.mark.parametrize(
    ("box", "x", "y"),
    [
        pytest.param((0, 0, 40, 40), (0, 108), (0, 108), id="top left corner"),
        pytest.param((210, 200, 250, 240), (142, 250), (132, 240), id="bottom right corner"),
        pytest.param((-20, 100, 20, 140), (0, 108), (66, 174), id="half outside"),
        pytest.param((1000, 1000, 1040, 1040), (142, 250), (132, 240), id="wholly outside"),
        pytest.param((45, 20, 205, 220), (29, 221), (0, 240), id="too large: smaller, same shape"),
        pytest.param((-1000, -1000, 2000, 2000), (10, 250), (0, 240), id="larger than the frame"),
    ],
)
def test_a_crop_that_would_leave_the_frame_is_moved_inside(
    liveness: Liveness, box: tuple[float, ...], x: tuple[int, int], y: tuple[int, int]
) -> None:
    crop = liveness.crop(ramp(240, 250), np.array(box, np.float32)).astype(int)
    assert (crop[0, 0, 0], crop[0, -1, 0]) == (pytest.approx(x[0], abs=3), pytest.approx(x[1] - 1, abs=3))
    assert (crop[0, 0, 1], crop[-1, 0, 1]) == (pytest.approx(y[0], abs=3), pytest.approx(y[1] - 1, abs=3))


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (2, 2)])
@pytest.mark.parametrize(
    "box", [(0, 0, 0, 0), (5, 5, 1, 1), (-1e30, -1e30, 1e30, 1e30), (1e9, 0, 1e9 + 64, 9)]
)
def test_odd_boxes_in_odd_frames_are_still_a_crop(
    liveness: Liveness, shape: tuple[int, int], box: tuple[float, ...]
) -> None:
    assert liveness.crop(grey(7, shape), np.array(box, np.float32)).tolist() == grey(7, (80, 80)).tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_box_that_is_not_finite_has_no_score(liveness: Liveness, value: float) -> None:
    with pytest.raises(ModelError, match="no finite box"):
        liveness.score(grey(200), np.array([10, 10, value, 60], np.float32))


def test_an_answer_that_is_not_a_number_is_no_score(tmp_path: Path) -> None:
    judge = load_liveness(install(tmp_path, network(blind_below=BLIND_BELOW)), threads=1)
    assert judge.score(grey(BLIND_BELOW + 3), BOX) > 0.5
    with pytest.raises(ModelError, match="not finite"):
        judge.score(grey(BLIND_BELOW - 2), BOX)


# What an operator can get wrong: one clear error each.


def fails_at_run_time() -> bytes:
    """A network whose shapes only turn out to be a lie when it runs."""
    graph = GraphWriter()
    flat = graph.node("Reshape", ["input", graph.constant("odd", np.array([7, -1], np.int64))], "flat")
    graph.node("Relu", [flat], "output")
    return graph.finish(
        [float_tensor("input", [1, 3, 80, 80])], [float_tensor("output", [1, 3])], name="liar"
    )


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        pytest.param(
            network(size=112), ModelShapeError, r"is not \(1, 3, 80, 80\); export it", id="input size"
        ),
        pytest.param(
            network(classes=2), ModelShapeError, r"output \[1, 2\] is not \[1, 3\]", id="two classes"
        ),
        pytest.param(network(batch="n"), ModelShapeError, "fixed sizes, a batch of 1", id="free batch"),
        pytest.param(network(blind_below=200.0), ModelError, "values that are not finite", id="NaN"),
        pytest.param(b"", ModelError, "bytes: ", id="empty file"),
        pytest.param(
            b"GIF89a" + bytes(500), ModelError, "onnxruntime cannot load the model", id="foreign file"
        ),
        pytest.param(network()[:-30], ModelError, "onnxruntime cannot load the model", id="truncated"),
        pytest.param(fails_at_run_time(), ModelError, "onnxruntime", id="fails when it runs"),
    ],
)
def test_a_bad_network_is_refused_at_start(
    tmp_path: Path, model: bytes, error: type[ModelError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        load_liveness(install(tmp_path, model), threads=1)
    assert NAME in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        pytest.param('kind = "liveness"', 'kind = "embedder"', "an embedder needs", id="other kind"),
        pytest.param("[liveness]", "[alive]", "alive: Extra inputs", id="misspelt table"),
        pytest.param(
            "live_class = 1", "live_class = 3", r"live_class must lie in 0\.\.2", id="class outside"
        ),
        pytest.param("live_class = 1", "live_class = -1", "liveness.live_class: ", id="negative class"),
        pytest.param("live_class = 1", "", "liveness.live_class: Field required", id="no live class"),
        pytest.param(
            "crop_scale = 2.7", "crop_scale = 0.5", "liveness.crop_scale: ", id="crop inside the face"
        ),
        pytest.param("crop_scale = 2.7", "crop_scale = nan", "liveness.crop_scale: ", id="NaN crop"),
        pytest.param('gives = "logits"', 'gives = "score"', "liveness.gives: ", id="unknown output"),
        pytest.param("dim = 3", "", "one output and output.dim", id="no number of classes"),
        pytest.param("dim = 3", "dim = 1", "output.dim: ", id="one class"),
        pytest.param('["output"]', '["output", "more"]', "one output", id="two outputs"),
        pytest.param('["output"]', '["probs"]', "has no output probs", id="output of another name"),
        pytest.param(
            'name = "input"', 'name = "data"', r"\[input\], the manifest declares \[data\]", id="input"
        ),
        pytest.param("size = [80, 80]", "multiple_of_px = 32", "input.size", id="free size"),
        pytest.param("size = [80, 80]", "size = [80, 9999]", "size must lie in", id="absurd size"),
        pytest.param("bytes = ", "bytes = 99999999999\n#", "bytes: ", id="absurd file"),
        pytest.param('name = "brightness"', 'name = "none"', "nor the name none", id="called none"),
        pytest.param(
            "[input]", '[build]\nfrom = "sface"\nrecipe = "x"\n[input]', "has no sources", id="recipe"
        ),
        pytest.param('file = "bright', 'file = "../bright', "file: ", id="file elsewhere"),
        pytest.param('file = "bright', 'file = "other', "put the file there", id="file missing"),
        pytest.param('sha256 = "', 'sha256 = "' + "0" * 64 + '"\n#', "not the pinned file", id="hash"),
        pytest.param(
            "licence =", 'golden = "g.json"\nlicence =', "cannot read the golden", id="golden missing"
        ),
        pytest.param(
            'gives = "logits"', 'gives = "probabilities"', "these are no probabilities", id="logits"
        ),
    ],
)
def test_a_bad_manifest_is_refused_in_one_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = manifest(network())
    assert old in text
    with pytest.raises(ModelError, match=says) as caught:
        load_liveness(install(tmp_path, text=text.replace(old, new, 1)), threads=1)
    assert "\n" not in str(caught.value)
    assert "edge models fetch" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        pytest.param(
            lambda d: (d / "manifest.toml").unlink(), ModelError, "cannot read the manifest", id="none"
        ),
        pytest.param(
            lambda d: (d / f"{NAME}.onnx").unlink(), ModelMissingError, "put the file there", id="file"
        ),
        pytest.param(
            lambda d: (d / f"{NAME}.onnx").write_bytes(network(alive_from=0)),
            ModelIntegrityError,
            "correct file, sha256 and bytes in its manifest.toml",
            id="another network",
        ),
        pytest.param(lambda d: d.rename(d.parent / "other"), ModelError, "cannot read", id="directory gone"),
    ],
)
def test_what_is_missing_or_swapped_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], error: type[ModelError], says: str
) -> None:
    directory = install(tmp_path)
    spoil(directory)
    with pytest.raises(error, match=says):
        load_liveness(directory, threads=1)


def test_an_embedder_cannot_be_taken_for_a_liveness_model() -> None:
    directory = ROOT / "models" / "sface-int8"
    with pytest.raises(ModelError, match=r"of kind embedder, not liveness; correct liveness\.model"):
        load_liveness(directory, threads=1)


def test_a_golden_file_is_compared_where_the_manifest_names_one(tmp_path: Path) -> None:
    model = network()
    directory = install(
        tmp_path, model, manifest(model).replace("licence", 'golden = "golden.json"\nlicence')
    )
    described = read_manifest(directory / "manifest.toml")
    session = Session(model, inputs=described.input, outputs=described.output, threads=1)
    golden = record_golden(session, (80, 80), min_cosine=0.999)
    (directory / "golden.json").write_text(golden.model_dump_json())
    assert load_liveness(directory, threads=1).name == NAME

    wrong = golden.model_copy(update={"outputs": {"output": (1.0, 1.0, 1.0)}})
    (directory / "golden.json").write_text(wrong.model_dump_json())
    with pytest.raises(ModelIntegrityError, match=r"self-test failed.*; correct the golden file"):
        load_liveness(directory, threads=1)


def test_the_manifest_in_the_documentation_is_one(tmp_path: Path) -> None:
    text = (ROOT / "models" / "README.md").read_text()
    example = text.split("## Liveness: bring your own")[1].split("```toml\n")[1].split("```")[0]
    model = network()
    example = example.replace('"..."', f'"{hashlib.sha256(model).hexdigest()}"').replace(
        "1234567", str(len(model))
    )
    directory = tmp_path / "minifasnet-v2"
    directory.mkdir()
    (directory / "manifest.toml").write_text(example)
    (directory / "2.7_80x80_MiniFASNetV2.onnx").write_bytes(model)
    assert load_liveness(directory, threads=1).name == "minifasnet-v2"


def test_a_relative_directory_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(install(tmp_path))
    assert load_liveness(Path(), threads=1).name == NAME
