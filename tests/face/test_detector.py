"""The detector against OpenCV's own YuNet on real photos and clips, and on frames of any size."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.face import manifest
from edge.face.detector import Detector
from edge.face.session import Session
from edge.face.weights import installed_path, load_verified
from edge.types import Detection


@pytest.fixture(scope="module")
def session(models_dir: Path) -> Session:
    yunet = manifest.load("yunet")
    return Session.of(yunet, load_verified(yunet, models_dir), threads=1)


@pytest.fixture(scope="module")
def group(media: Path) -> np.ndarray:
    return cv2.imread(str(media / "multi_face.jpg"))


def reference(image: np.ndarray, models_dir: Path) -> np.ndarray:
    published = installed_path(manifest.load("yunet-2023mar"), models_dir)
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
    found = Detector(session, manifest.load("yunet"), max_side_px=4096, min_score=0.7).detect(image)
    assert len(found) == len(expected) >= 4
    for detection in found:
        nearest = expected[np.abs(expected[:, :2] - detection.box[:2]).sum(axis=1).argmin()]
        assert np.allclose(detection.box[:2], nearest[:2], atol=1.0)
        assert np.allclose(detection.box[2:] - detection.box[:2], nearest[2:4], atol=1.0)
        assert np.allclose(detection.landmarks.reshape(-1), nearest[4:14], atol=1.0)
        assert detection.score == pytest.approx(float(nearest[14]), abs=0.01)


def test_scores_fall_and_landmarks_lie_in_their_order(session: Session, group: np.ndarray):
    found = Detector(session, manifest.load("yunet"), max_side_px=640, min_score=0.7).detect(group)
    assert [face.score for face in found] == sorted((face.score for face in found), reverse=True)
    for face in found:
        left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert left_eye[1] < nose[1] < left_mouth[1]


def test_boxes_are_in_pixels_of_the_frame_whatever_it_was_reduced_to(session: Session, group: np.ndarray):
    large = Detector(session, manifest.load("yunet"), max_side_px=1024, min_score=0.7).detect(group)
    small = Detector(session, manifest.load("yunet"), max_side_px=512, min_score=0.7).detect(group)
    for face in large:
        assert min(np.abs(face.box - other.box).max() for other in small) < 12


@pytest.mark.parametrize("clip", ["no_face.mp4"])
def test_a_clip_without_faces_gives_none(session: Session, media: Path, clip: str):
    capture = cv2.VideoCapture(str(media / clip))
    detector = Detector(session, manifest.load("yunet"), max_side_px=320, min_score=0.7)
    counts = []
    while (read := capture.read())[0]:
        counts.append(len(detector.detect(read[1])))
    capture.release()
    assert len(counts) > 50
    assert sum(counts) == 0


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (31, 33), (2, 700), (1080, 1920)])
def test_any_frame_size_goes_through(session: Session, shape: tuple[int, int]):
    assert (
        Detector(session, manifest.load("yunet"), max_side_px=320, min_score=0.7).detect(
            np.zeros((*shape, 3), np.uint8)
        )
        == []
    )


def test_what_another_frame_left_in_the_margin_is_not_seen(session: Session, group: np.ndarray):
    yunet = manifest.load("yunet")
    used, fresh = (Detector(session, yunet, max_side_px=320, min_score=0.6) for _ in range(2))
    used.detect(np.full((256, 320, 3), 255, np.uint8))  # fills the canvas of 256 rows to its last row
    image = np.ascontiguousarray(cv2.resize(group, (320, 230)))
    for seen, expected in zip(used.detect(image), fresh.detect(image), strict=True):
        assert np.array_equal(seen.landmarks, expected.landmarks)
        assert seen.score == expected.score


def test_a_small_face_is_looked_at_again_at_full_resolution(session: Session, group: np.ndarray):
    yunet = manifest.load("yunet")
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


def test_a_large_face_and_a_whole_frame_are_not_looked_at_again(session: Session, group: np.ndarray):
    yunet = manifest.load("yunet")
    for side_px, image in ((320, group), (4096, group)):
        detector = Detector(session, yunet, max_side_px=side_px, min_score=0.6)
        scale = min(1.0, side_px / max(image.shape[:2]))
        for face in detector.detect(image):
            if scale == 1 or face.size_px * scale >= 30:
                assert detector.refine(image, face) is face


def test_where_nothing_is_found_again_the_first_look_stands(session: Session):
    detector = Detector(session, manifest.load("yunet"), max_side_px=320, min_score=0.6)
    box = np.array([1270, 700, 1300, 730], np.float32)  # half outside an empty frame
    face = Detection(box, np.zeros((5, 2), np.float32), 0.9)
    assert detector.refine(np.zeros((720, 1280, 3), np.uint8), face) is face
