"""Liveness networks: what they see, what their answers mean, and every way to get one of your own wrong."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edge.core.errors import ModelError, ModelIntegrityError, ModelMissingError, ModelShapeError
from edge.core.types import Image
from edge.face.build.graph import GraphWriter, float_tensor
from edge.face.liveness import Liveness, LivenessNetwork, load_liveness
from edge.face.manifest import load_manifest, read_manifest
from edge.face.session import Session, record_golden
from edge.face.weights import load_verified
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


def load_own(directory: Path) -> Liveness:
    """Load the operator's network, alone."""
    return load_liveness([directory], directory, threads=1)


@pytest.fixture
def liveness(tmp_path: Path) -> Liveness:
    return load_own(install(tmp_path))


def test_the_score_is_the_probability_of_the_live_class(liveness: Liveness) -> None:
    for brightness in (100, 127, 128, 131, 150):
        logit = (brightness - ALIVE_FROM) / 2
        expected = np.exp(logit) / (np.exp(logit) + 2)
        assert liveness.score(grey(brightness), BOX) == pytest.approx(expected, abs=1e-5)
    assert liveness.name == NAME
    assert liveness.model_id.startswith(f"{NAME}@")


def test_a_network_that_ends_in_a_softmax_gives_the_same_score(tmp_path: Path, liveness: Liveness) -> None:
    model = network(softmax=True)
    other = load_own(install(tmp_path / "other", model, manifest(model, gives="probabilities")))
    for brightness in (0, 120, 129, 140, 255):
        image = grey(brightness)
        assert other.score(image, BOX) == pytest.approx(liveness.score(image, BOX), abs=1e-5)
        assert 0 <= other.score(image, BOX) <= 1


@pytest.mark.parametrize(("colour", "channel"), [("bgr", 0), ("rgb", 2)])
def test_the_first_channel_is_blue_or_red_as_declared(tmp_path: Path, colour: str, channel: int) -> None:
    model = network(channels=(1, 0, 0))
    judge = load_own(install(tmp_path, model, manifest(model, colour=colour)))
    image = grey(0)
    image[..., channel] = 255
    assert judge.score(image, BOX) > 0.99
    image[..., channel], image[..., 2 - channel] = 0, 255
    assert judge.score(image, BOX) < 0.01


def test_mean_and_scale_are_applied(tmp_path: Path) -> None:
    model = network(alive_from=0.25, channels=(100 / 3, 100 / 3, 100 / 3))
    text = manifest(model).replace('colour = "bgr"', 'colour = "bgr"\nmean = 127.5\nscale = 0.0078125')
    judge = load_own(install(tmp_path, model, text))
    assert judge.score(grey(140), BOX) > 0.9
    assert judge.score(grey(120), BOX) < 0.1


def test_the_network_sees_the_box_enlarged_around_its_centre(liveness: Liveness) -> None:
    crop = liveness.networks[0].crop(ramp(240, 250), BOX)
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
    crop = liveness.networks[0].crop(ramp(240, 250), np.array(box, np.float32)).astype(int)
    assert (crop[0, 0, 0], crop[0, -1, 0]) == (pytest.approx(x[0], abs=3), pytest.approx(x[1] - 1, abs=3))
    assert (crop[0, 0, 1], crop[-1, 0, 1]) == (pytest.approx(y[0], abs=3), pytest.approx(y[1] - 1, abs=3))


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (2, 2)])
@pytest.mark.parametrize(
    "box", [(0, 0, 0, 0), (5, 5, 1, 1), (-1e30, -1e30, 1e30, 1e30), (1e9, 0, 1e9 + 64, 9)]
)
def test_odd_boxes_in_odd_frames_are_still_a_crop(
    liveness: Liveness, shape: tuple[int, int], box: tuple[float, ...]
) -> None:
    assert (
        liveness.networks[0].crop(grey(7, shape), np.array(box, np.float32)).tolist()
        == grey(7, (80, 80)).tolist()
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_box_that_is_not_finite_has_no_score(liveness: Liveness, value: float) -> None:
    with pytest.raises(ModelError, match="no finite box"):
        liveness.score(grey(200), np.array([10, 10, value, 60], np.float32))


def test_an_answer_that_is_not_a_number_is_no_score(tmp_path: Path) -> None:
    judge = load_own(install(tmp_path, network(blind_below=BLIND_BELOW)))
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
        load_own(install(tmp_path, model))
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
        load_own(install(tmp_path, text=text.replace(old, new, 1)))
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
        load_own(directory)


def test_an_embedder_cannot_be_taken_for_a_liveness_model() -> None:
    directory = ROOT / "models" / "sface-int8"
    with pytest.raises(ModelError, match=r"of kind embedder, not liveness; correct liveness\.model"):
        load_own(directory)


def test_a_golden_file_is_compared_where_the_manifest_names_one(tmp_path: Path) -> None:
    model = network()
    directory = install(
        tmp_path, model, manifest(model).replace("licence", 'golden = "golden.json"\nlicence')
    )
    described = read_manifest(directory / "manifest.toml")
    session = Session(model, inputs=described.input, outputs=described.output, threads=1)
    golden = record_golden(session, (80, 80), min_cosine=0.999)
    (directory / "golden.json").write_text(golden.model_dump_json())
    assert load_own(directory).name == NAME

    wrong = golden.model_copy(update={"outputs": {"output": (1.0, 1.0, 1.0)}})
    (directory / "golden.json").write_text(wrong.model_dump_json())
    with pytest.raises(ModelIntegrityError, match=r"self-test failed.*; correct the golden file"):
        load_own(directory)


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
    assert load_own(directory).name == "minifasnet-v2"


def test_a_relative_directory_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(install(tmp_path))
    assert load_own(Path()).name == NAME


# Several together.


def named(parent: Path, name: str, fusion: str = "", **options: float) -> Path:
    """Install a network of another name; `fusion` is what was measured of it with others."""
    model = network(**options)
    text = manifest(model).replace(f'name = "{NAME}"', f'name = "{name}"', 1) + fusion
    directory = install(parent, model, text)
    return directory.rename(parent / name)


FUSION = """
[[fusion]]
with = ["second"]
min_face_px = 30
face_px = [40, 80]
live_from = [4.0, 2.0]
source = "made up"
"""


def test_several_networks_say_the_mean_of_their_logits(tmp_path: Path) -> None:
    directories = [
        named(tmp_path, "first", alive_from=110.0),
        named(tmp_path, "second", alive_from=130.0),
    ]
    both = load_liveness(directories, tmp_path, threads=1)
    assert both.name == "first+second"
    logits = [each.logit(grey(128), BOX) for each in both.networks]
    assert logits == pytest.approx([9 - np.log(2), -1 - np.log(2)], abs=1e-4)
    assert both.score(grey(128), BOX) == pytest.approx(1 / (1 + np.exp(-np.mean(logits))), abs=1e-6)


def test_what_was_measured_moves_the_threshold_with_the_size_of_the_face(tmp_path: Path) -> None:
    directories = [named(tmp_path, "first", FUSION), named(tmp_path, "second")]
    both = load_liveness(directories, tmp_path, threads=1)
    assert [both.live_from(px) for px in (30, 40, 50, 60, 80, 500)] == [4, 4, 3.5, 3, 2, 2]
    logit = both.networks[0].logit(grey(116), BOX)
    for side, live_from in ((40, 4.0), (60, 3.0), (200, 2.0)):
        box = np.array([20, 20, 20 + side, 25 + side], np.float32)
        assert both.score(grey(116), box) == pytest.approx(1 / (1 + np.exp(live_from - logit)), abs=1e-5)


def test_a_face_too_small_has_no_score(tmp_path: Path) -> None:
    both = load_liveness([named(tmp_path, "first", FUSION), named(tmp_path, "second")], tmp_path, threads=1)
    small, large = (np.array([50, 50, 90, 50 + side], np.float32) for side in (29.5, 30))
    assert (both.says_something(small), both.says_something(large)) == (False, True)
    assert both.score(grey(200), small) is None
    assert both.score(grey(200), large) is not None
    assert both.score(grey(200), np.array([50, 50, np.nan, 90], np.float32)) is None


def test_what_was_measured_of_others_says_nothing_of_one_alone(tmp_path: Path) -> None:
    alone = load_liveness([named(tmp_path, "first", FUSION)], tmp_path, threads=1)
    assert (alone.min_face_px, alone.live_from(40)) == (0, 0)


def test_a_model_named_twice_is_refused(tmp_path: Path) -> None:
    directory = named(tmp_path, "first")
    with pytest.raises(ModelError, match="names a model twice"):
        load_liveness([directory, directory], tmp_path, threads=1)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        pytest.param("[40, 80]", "[80, 40]", "face_px must rise", id="falling sizes"),
        pytest.param("[40, 80]", "[40]", "equally long", id="a size too few"),
        pytest.param("[4.0, 2.0]", "[nan, 2.0]", "live_from", id="no number"),
        pytest.param("min_face_px = 30", "min_face_px = -1", "min_face_px", id="negative size"),
        pytest.param('["second"]', '["../second"]', "with", id="others elsewhere"),
    ],
)
def test_a_bad_measurement_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in FUSION
    directory = named(tmp_path, "first", FUSION.replace(old, new))
    with pytest.raises(ModelError, match=says):
        load_liveness([directory], tmp_path, threads=1)


# The square crop of the recommended second network.


def mirrored(tmp_path: Path) -> LivenessNetwork:
    model = network()
    text = manifest(model).replace("crop_scale = 2.7", 'crop_scale = 1.5\nborder = "reflect"')
    return load_own(install(tmp_path, model, text)).networks[0]


def test_a_square_around_the_box_is_cut_out(tmp_path: Path) -> None:
    crop = mirrored(tmp_path).crop(ramp(240, 250), BOX).astype(int)
    # The box is 40 x 50 around (120, 105); the square has 75 px: x from 82 to 157, y from 67 to 142.
    assert (crop[0, 0, 0], crop[0, -1, 0]) == (pytest.approx(82, abs=2), pytest.approx(157, abs=2))
    assert (crop[0, 0, 1], crop[-1, 0, 1]) == (pytest.approx(67, abs=2), pytest.approx(142, abs=2))


def test_what_is_outside_the_frame_is_mirrored(tmp_path: Path) -> None:
    crop = mirrored(tmp_path).crop(ramp(240, 250), np.array([0, 100, 40, 140], np.float32)).astype(int)
    # The square has 60 px: x from -10 to 50; x = -10 shows what is at 10.
    assert (crop[40, 0, 0], crop[40, 13, 0]) == (pytest.approx(10, abs=2), pytest.approx(0, abs=2))
    assert crop[40, -1, 0] == pytest.approx(49, abs=2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (2, 2), (240, 320)])
@pytest.mark.parametrize(
    "box", [(0, 0, 0, 0), (5, 5, 1, 1), (-1e30, -1e30, 1e30, 1e30), (1e9, 0, 1e9 + 64, 9), (-90, -90, -9, -9)]
)
def test_odd_boxes_in_odd_frames_are_still_a_square(
    tmp_path: Path, shape: tuple[int, int], box: tuple[float, ...]
) -> None:
    crop = mirrored(tmp_path).crop(grey(7, shape), np.array(box, np.float32))
    assert crop.tolist() == grey(7, (80, 80)).tolist()


# The recommended ones, where their files are.

PAIR = ("liveness-minifasnet-v1se", "liveness-minifas-128")


def recommended(models_dir: Path) -> Liveness:
    directories = [load_manifest(name).directory for name in PAIR]
    return load_liveness(directories, models_dir, threads=1)


def test_the_recommended_networks_are_measured_together(recommended_dir: Path, man: Image) -> None:
    pair = recommended(recommended_dir)
    assert pair.min_face_px >= 30
    pair.self_test()
    height, width = man.shape[:2]
    box = np.array([width * 0.4, height * 0.3, width * 0.6, height * 0.7], np.float32)
    score = pair.score(man, box)
    assert score is not None
    assert 0 <= score <= 1


def test_the_published_graph_and_what_is_built_of_it_agree(recommended_dir: Path) -> None:
    manifest = load_manifest(PAIR[1])
    published = (recommended_dir / "facenox-minifas-128.onnx").read_bytes()
    built = load_verified(manifest, recommended_dir)
    one, two = (
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]) for each in (published, built)
    )
    pixels = np.random.default_rng(3).uniform(0, 1, (1, 3, 128, 128)).astype(np.float32)
    expected, found = (each.run(None, {"input": pixels})[0] for each in (one, two))
    assert np.abs(expected - found).max() < 1e-4
    assert found.shape == (1, 2)
