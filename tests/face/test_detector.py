"""The detector against OpenCV's own YuNet on real photos and clips, and on frames of any size."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.photo import read_photo
from edge.core.errors import ModelShapeError
from edge.core.types import Detection, FloatArray
from edge.face.build.graph import GraphWriter, float_tensor
from edge.face.detector import STRIDES, UPRIGHT_WITHIN_DEG, Canvas, Detector
from edge.face.manifest import EXECUTION_PROVIDERS, Provider, installed_path, load_manifest
from edge.face.quality import roll_deg
from edge.face.session import Session, pattern
from edge.face.weights import load_verified
from edge.lab.demo.media import orl_photo
from edge.lab.photos.degrade import turned
from edge.recognition.recognizer import Recognizer
from tests.support.accelerator import BESIDE, lose


@pytest.fixture(scope="module")
def session(models_dir: Path) -> Session:
    yunet = load_manifest("yunet")
    return Session.of(yunet, load_verified(yunet, models_dir), threads=1)


@pytest.fixture(scope="module")
def group(media: Path) -> np.ndarray:
    return cv2.imread(str(media / "multi_face.jpg"))


def reference(image: np.ndarray, models_dir: Path) -> np.ndarray:
    published = installed_path(load_manifest("yunet-2023mar"), models_dir)
    detector = cv2.FaceDetectorYN.create(str(published), "", (image.shape[1], image.shape[0]), 0.7, 0.3)
    faces = detector.detect(image)[1]
    return faces if faces is not None else np.empty((0, 15), np.float32)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((640, 416), id="multiples of 32"),
        pytest.param((500, 333), id="odd sizes"),
        pytest.param((1000, 667), id="as photographed"),
        pytest.param((333, 500), id="squeezed upright"),
    ],
)
def test_it_finds_what_opencv_finds(
    session: Session, group: np.ndarray, models_dir: Path, size: tuple[int, int]
):
    image = cv2.resize(group, size)
    expected = reference(image, models_dir)
    found = Detector(session, load_manifest("yunet"), max_side_px=4096, min_score=0.7).detect(image)
    assert len(found) == len(expected) >= 4
    for detection in found:
        nearest = expected[np.abs(expected[:, :2] - detection.box[:2]).sum(axis=1).argmin()]
        assert np.allclose(detection.box[:2], nearest[:2], atol=1.0)
        assert np.allclose(detection.box[2:] - detection.box[:2], nearest[2:4], atol=1.0)
        assert np.allclose(detection.landmarks.reshape(-1), nearest[4:14], atol=1.0)
        assert detection.score == pytest.approx(float(nearest[14]), abs=0.01)


def test_an_accelerator_that_answers_for_another_size_of_picture_is_left_for_the_processor(
    group: np.ndarray, models_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """OpenVINO does so where it has no memory for another size: it says again what it said before."""
    monkeypatch.setitem(EXECUTION_PROVIDERS, "cuda", BESIDE)
    yunet = load_manifest("yunet")
    session = Session.of(yunet, load_verified(yunet, models_dir), threads=1, providers=(Provider("cuda"),))
    detector = Detector(session, yunet, max_side_px=640, min_score=0.7)
    expected = detector.detect(group)
    answers = dict(zip(session.output_names, session.run(pattern(64, 128)), strict=True))
    stale = GraphWriter()
    for name, answer in answers.items():
        stale.node("Identity", [stale.constant(f"{name}_before", answer)], name)
    outputs = [float_tensor(name, list(answer.shape)) for name, answer in answers.items()]
    lose(session, stale.finish([float_tensor("input", [1, 3, "h", "w"])], outputs, name="stale"))
    assert [face.score for face in detector.detect(group)] == [face.score for face in expected]
    assert session.provider == "CPUExecutionProvider"
    [line] = [line.getMessage() for line in caplog.records]
    assert "yunet failed on cuda while it ran" in line
    assert "answered with {'head_8': (1, 16, 8, 16)" in line


def test_scores_fall_and_landmarks_lie_in_their_order(session: Session, group: np.ndarray):
    found = Detector(session, load_manifest("yunet"), max_side_px=640, min_score=0.7).detect(group)
    assert [face.score for face in found] == sorted((face.score for face in found), reverse=True)
    for face in found:
        left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert left_eye[1] < nose[1] < left_mouth[1]


def test_boxes_are_in_pixels_of_the_frame_whatever_it_was_reduced_to(session: Session, group: np.ndarray):
    large = Detector(session, load_manifest("yunet"), max_side_px=1024, min_score=0.7).detect(group)
    small = Detector(session, load_manifest("yunet"), max_side_px=512, min_score=0.7).detect(group)
    for face in large:
        assert min(np.abs(face.box - other.box).max() for other in small) < 12


@pytest.mark.parametrize("clip", ["no_face.mp4"])
def test_a_clip_without_faces_gives_none(session: Session, media: Path, clip: str):
    capture = cv2.VideoCapture(str(media / clip))
    detector = Detector(session, load_manifest("yunet"), max_side_px=320, min_score=0.7)
    counts = []
    while (read := capture.read())[0]:
        counts.append(len(detector.detect(read[1])))
    capture.release()
    assert len(counts) > 50
    assert sum(counts) == 0


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (31, 33), (2, 700), (1080, 1920)])
def test_any_frame_size_goes_through(session: Session, shape: tuple[int, int]):
    assert (
        Detector(session, load_manifest("yunet"), max_side_px=320, min_score=0.7).detect(
            np.zeros((*shape, 3), np.uint8)
        )
        == []
    )


def test_what_another_frame_left_in_the_margin_is_not_seen(session: Session, group: np.ndarray):
    yunet = load_manifest("yunet")
    used, fresh = (Detector(session, yunet, max_side_px=320, min_score=0.6) for _ in range(2))
    used.detect(np.full((256, 320, 3), 255, np.uint8))  # fills the canvas of 256 rows to its last row
    image = np.ascontiguousarray(cv2.resize(group, (320, 230)))
    for seen, expected in zip(used.detect(image), fresh.detect(image), strict=True):
        assert np.array_equal(seen.landmarks, expected.landmarks)
        assert seen.score == expected.score


def test_a_small_face_is_looked_at_again_at_full_resolution(session: Session, group: np.ndarray):
    yunet = load_manifest("yunet")
    frame = np.zeros((720, 1280, 3), np.uint8)
    faces = cv2.resize(group, (640, 427))
    frame[150:577, 300:940] = faces
    whole = Detector(session, yunet, max_side_px=1280, min_score=0.6).detect(frame)
    reduced = Detector(session, yunet, max_side_px=480, min_score=0.6)
    found = reduced.detect(frame)
    assert len(found) >= 3
    before, after = [], []
    for face in found:
        true = min(whole, key=lambda other: float(np.abs(other.box - face.box).sum()))
        again = reduced.refine(frame, face)
        before.append(float(np.abs(face.landmarks - true.landmarks).mean()))
        after.append(float(np.abs(again.landmarks - true.landmarks).mean()))
    assert np.mean(after) < 0.8 * np.mean(before)


def test_a_large_upright_face_and_a_whole_frame_are_not_looked_at_again(session: Session, group: np.ndarray):
    yunet, upright = load_manifest("yunet"), 0
    for side_px, image in ((320, group), (4096, group)):
        detector = Detector(session, yunet, max_side_px=side_px, min_score=0.6)
        scale = min(1.0, side_px / max(image.shape[:2]))
        for face in detector.detect(image):
            tilted = abs(roll_deg(face.landmarks)) >= UPRIGHT_WITHIN_DEG
            if not tilted and (scale == 1 or face.size_px * scale >= 30):
                assert detector.refine(image, face) is face
                upright += 1
    assert upright >= 2


def test_where_nothing_is_found_again_the_first_look_stands(session: Session):
    detector = Detector(session, load_manifest("yunet"), max_side_px=320, min_score=0.6)
    box = np.array([1270, 700, 1300, 730], np.float32)  # half outside an empty frame
    face = Detection(box, np.zeros((5, 2), np.float32), 0.9)
    assert detector.refine(np.zeros((720, 1280, 3), np.uint8), face) is face


class Answers:
    """A session that answers the same joined heads to every input."""

    output_names = ("head_8", "head_16", "head_32")

    def __init__(self, heads: list[FloatArray]) -> None:
        self.heads = heads
        self.seen: list[FloatArray] = []

    def run(self, array: FloatArray, shapes: dict[str, tuple[int, ...]]) -> list[FloatArray]:
        self.seen.append(array.copy())
        return self.heads


def heads_of(logits: np.ndarray) -> list[FloatArray]:
    """Return the heads for a frame of 64x96 whose cells hold the logits (N, 2), the rest far from a face."""
    heads = [np.zeros((1, 16, 64 // stride, 96 // stride), np.float32) for stride in STRIDES]
    for head in heads:
        head[:, :2] = -30
        head[:, 4:6] = -3  # boxes that do not overlap
    heads[0].reshape(16, -1)[:2, : len(logits)] = logits.T
    return heads


@pytest.mark.parametrize("min_score", [0.1, 0.6, 0.7, 0.95, 0.999])
def test_exactly_the_cells_with_the_score_are_faces(min_score: float):
    logits = np.random.default_rng(1).normal(1, 3, (60, 2)).astype(np.float32)
    extremes = [(100, 100), (-100, 100), (100, -100), (np.nan, 100), (100, np.nan), (-np.inf, 100)]
    logits[:6] = extremes
    with np.errstate(over="ignore"):
        scores = np.sqrt(np.prod(1 / (1 + np.exp(-logits.astype(np.float64))), axis=1))
    session, yunet = Answers(heads_of(logits)), load_manifest("yunet")
    found = Detector(session, yunet, max_side_px=96, min_score=min_score).detect(
        np.zeros((64, 96, 3), np.uint8)
    )
    places = sorted(
        (face.box[0] + face.box[2]) / 16 + 12 * (face.box[1] + face.box[3]) / 16 for face in found
    )
    assert places == pytest.approx(np.flatnonzero(scores >= min_score))
    assert len(found) >= 1
    assert [face.score for face in found] == pytest.approx(
        sorted(scores[scores >= min_score])[::-1], abs=1e-6
    )


def test_the_network_sees_the_pixels_of_each_frame_and_black_around_them():
    session = Answers(heads_of(np.empty((0, 2))))
    detector = Detector(session, load_manifest("yunet"), max_side_px=96, min_score=0.6)
    frames = np.random.default_rng(2).integers(0, 256, (2, 50, 96, 3), np.uint8)
    for frame in frames:
        detector.detect(frame)
    for seen, frame in zip(session.seen, frames, strict=True):
        assert seen.dtype == np.float32
        assert np.array_equal(seen[0, :, :50], frame.transpose(2, 0, 1))
        assert not seen[0, :, 50:].any()
        assert seen.shape == (1, 3, 64, 96)


def test_a_canvas_is_filled_in_place():
    canvas = Canvas(np.full((32, 64, 3), (1, 2, 3), np.uint8))
    first = canvas.fill_blob()
    assert np.array_equal(first, cv2.dnn.blobFromImage(canvas.image))
    canvas.image[:] = 9
    assert canvas.fill_blob() is first
    assert (first == 9).all()


def test_a_model_without_the_joined_heads_is_refused(models_dir: Path):
    published = load_manifest("yunet-2023mar")
    session = Session.of(published, load_verified(published, models_dir), threads=1)
    with pytest.raises(ModelShapeError, match=r"yunet-2023mar: a detector needs the output head_16, .*cls_8"):
        Detector(session, published, max_side_px=640, min_score=0.6)


@pytest.mark.parametrize("degrees", [-30, -20, 20, 30])
def test_a_tilted_head_is_recognised_as_the_upright_one(recognizer: Recognizer, media: Path, degrees: int):
    cosines = []
    for subject in range(1, 41):
        photo = read_photo(orl_photo(media, subject, 1))
        photo = cv2.copyMakeBorder(photo, 40, 40, 40, 40, cv2.BORDER_REPLICATE)
        rows = []
        for image in (photo, turned(photo, degrees)):
            face = max(recognizer.detect(image), key=lambda each: each.size_px, default=None)
            rows.append(None if face is None else recognizer.embed(recognizer.align(image, face)).embedding)
        if all(row is not None for row in rows):
            cosines.append(float(rows[0] @ rows[1]))
    assert len(cosines) >= 25, "of 40 faces"
    assert np.median(cosines) > 0.8


def test_the_tilt_of_a_head_is_told_from_its_landmarks():
    upright = np.array([[-1, -1], [1, -1], [0, 0], [-0.8, 1], [0.8, 1]], np.float32)
    assert roll_deg(upright) == pytest.approx(0)
    for degrees in (-170.0, -30.0, 20.0, 90.0):
        angle = np.radians(degrees)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        assert roll_deg((upright @ turn.T).astype(np.float32)) == pytest.approx(degrees, abs=1e-3)


def test_an_upright_face_is_not_looked_at_again(session: Session):
    class Untouched(Detector):
        def detect(self, image: np.ndarray) -> list[Detection]:
            raise AssertionError("looked again")

    detector = Untouched(session, load_manifest("yunet"), max_side_px=320, min_score=0.7)
    points = np.array([[40, 40], [80, 41], [60, 60], [45, 85], [75, 85]], np.float32)
    face = Detection(np.array([20, 10, 100, 110], np.float32), points, 0.9)
    assert detector.refine(np.zeros((240, 320, 3), np.uint8), face) is face
