"""The pipeline on real clips with real models, as fast as it goes: decisions, and what they cost."""

import logging
import subprocess
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.clips import ReplayCamera
from edge.camera.photo import read_photo
from edge.core.clock import SystemClock
from edge.core.errors import ModelError
from edge.core.metrics import Metrics
from edge.core.types import EventType, FaceEvent, Frame, Image
from edge.device.assembly.recognizer import (
    PHOTO_SIDE_PX,
    build_camera,
    build_pipeline,
    build_recognizer,
)
from edge.device.settings.load import Settings, load
from edge.device.settings.tables import CameraSettings
from edge.face.choice import load_session
from edge.face.embedder import Embedder
from edge.gallery.gallery import Gallery
from edge.lab.demo.media import ORL_PHOTOS, ORL_SUBJECTS, orl_photo
from edge.lab.photos.degrade import dim, infrared
from edge.lab.replay import replay
from edge.recognition.recognizer import Recognizer


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load()


def run(
    settings: Settings, recognizer: Recognizer, clip: Path, annotate: Path | None = None
) -> tuple[list[FaceEvent], Metrics]:
    metrics, events = Metrics(), []
    camera = ReplayCamera("front", clip, clock=SystemClock(), realtime=False)
    pipeline = build_pipeline("front", settings, metrics=metrics, clock=SystemClock(), live=False)
    replay(camera, pipeline, recognizer, events.append, annotate=annotate)
    return events, metrics


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        pytest.param("noface_face.mov", [("match", "p-man"), ("left", "p-man")], id="comes"),
        pytest.param("face_noface.mov", [("match", "p-man"), ("left", "p-man")], id="goes"),
        pytest.param("single_face.mp4", [("match", "p-man"), ("left", "p-man")], id="stands"),
        pytest.param("WolfgangLanger_Pexels.mp4", [("reject", None), ("left", None)], id="woman"),
        pytest.param("carphone_pristine.mp4", [("reject", None), ("left", None)], id="tiny and compressed"),
        pytest.param("no_face.mp4", [], id="nobody"),
    ],
)
def test_every_visit_gets_one_decision_and_one_left(
    settings: Settings, recognizer: Recognizer, media: Path, clip: str, expected: list[tuple[str, str | None]]
):
    events, _ = run(settings, recognizer, media / clip)
    told = [(event.event_type, event.subject.subject_id if event.subject else None) for event in events]
    assert told == expected
    assert len({event.visit for event in events}) <= 1
    assert all(0 <= side <= 1 for event in events for side in event.box)


def test_a_decided_visit_costs_a_look_a_second_at_most(
    settings: Settings, recognizer: Recognizer, media: Path, monkeypatch: pytest.MonkeyPatch
):
    faces: list[Image] = []
    embed = Embedder.embed
    monkeypatch.setattr(
        Embedder, "embed", lambda embedder, face: (faces.append(face), embed(embedder, face))[1]
    )
    events, _ = run(settings, recognizer, media / "single_face.mp4")
    embedded = len(faces)
    assert events[0].shots.used == 2
    assert 2 <= embedded < 4 + events[-1].monotonic_s - events[0].monotonic_s
    assert events[-1].shots.seen > 60


def test_a_still_scene_is_hardly_searched(settings: Settings, recognizer: Recognizer):
    image = np.full((360, 640, 3), 90, np.uint8)
    metrics = Metrics()
    pipeline = build_pipeline("front", settings, metrics=metrics, clock=SystemClock(), live=False)
    at = SystemClock().now()
    searches = []
    for number in range(100):
        before = metrics.totals_ms().get("detect", 0)
        assert pipeline.process(Frame("front", image, at, number / 25, number), recognizer) == []
        searches.append(metrics.totals_ms().get("detect", 0) > before)
    assert sum(searches) == 4, "once a second"


def test_somebody_enrolled_while_standing_there_is_recognised(
    settings: Settings, recognizer: Recognizer, media: Path
):
    pipeline = build_pipeline("front", settings, metrics=Metrics(), clock=SystemClock(), live=False)
    camera = ReplayCamera("front", media / "single_face.mp4", clock=SystemClock(), realtime=False)
    stranger = recognizer.with_gallery(Gallery.empty(recognizer.embedder.model_id))
    camera.open()
    events, numbers = [], count()
    while (frame := camera.read()) is not None:
        events += pipeline.process(frame, stranger if next(numbers) < 50 else recognizer)
    camera.close()
    assert [event.event_type for event in events] == [EventType.REJECT, EventType.MATCH]
    assert events[0].reason == "gallery_empty"
    assert events[1].revises == events[0].event_id


def test_a_silent_camera_lets_people_leave(settings: Settings, recognizer: Recognizer, media: Path):
    pipeline = build_pipeline("front", settings, metrics=Metrics(), clock=SystemClock(), live=False)
    camera = ReplayCamera("front", media / "single_face.mp4", clock=SystemClock(), realtime=False)
    camera.open()
    for _ in range(30):
        frame = camera.read()
        pipeline.process(frame, recognizer)
    camera.close()
    assert pipeline.tick(frame.monotonic_s + 0.5, recognizer) == []
    told = pipeline.tick(frame.monotonic_s + 10, recognizer)
    assert [event.event_type for event in told] == [EventType.LEFT]
    assert told[0].latency is None


def test_nobody_is_seen_in_a_picture_that_has_frozen(settings: Settings, recognizer: Recognizer, man: Image):
    """Who stood there when it froze has left, and comes back with the next picture that moves."""
    front = settings.model_copy(update={"cameras": {"front": CameraSettings(source="/dev/video0")}})
    pipeline = build_pipeline("front", front, metrics=Metrics(), clock=SystemClock())
    noise = np.random.default_rng(1)
    told, faults = [], []
    for number in range(300):
        at_s = number / 4
        image = (
            man if 5 <= at_s < 60 else cv2.add(man, noise.normal(0, 2, man.shape).astype(np.int8), dtype=0)
        )
        frame = Frame("front", np.asarray(image, np.uint8), SystemClock().now(), at_s, number)
        told += [(at_s, event.event_type.value) for event in pipeline.process(frame, recognizer)]
        faults += [at_s] if pipeline.faults else []
    assert (9 <= faults[0] <= 10, faults[-1]) == (True, 59.75)
    assert [kind for _, kind in told] == ["match", "left", "match"]
    assert told[1][0] < 60 <= told[2][0] < 62


@pytest.mark.parametrize("step_s", [-5, -3600, 3600])
def test_a_step_of_the_frames_clock_ends_the_visits_before_it(
    settings: Settings, recognizer: Recognizer, man: Image, step_s: float
):
    pipeline = build_pipeline("front", settings, metrics=Metrics(), clock=SystemClock(), live=False)
    told, at = [], SystemClock().now()
    for number in range(150):
        at_s = 10_000 + number / 15 + (step_s if number >= 50 else 0)
        image = np.full_like(man, 90) if 50 <= number < 60 else man
        told += pipeline.process(Frame("front", image, at, at_s, number), recognizer)
    assert [event.event_type for event in told] == ["match", "left", "match"]
    assert told[0].visit == told[1].visit != told[2].visit


def test_who_leaves_as_the_clock_steps_back_is_told_whatever_the_frame_brings(
    settings: Settings, recognizer: Recognizer, man: Image, monkeypatch: pytest.MonkeyPatch
):
    pipeline = build_pipeline("front", settings, metrics=Metrics(), clock=SystemClock(), live=False)
    at = SystemClock().now()
    for number in range(50):
        pipeline.process(Frame("front", man, at, 100 + number / 15, number), recognizer)

    def fails(*_: object) -> None:
        raise ModelError("the session is broken")

    monkeypatch.setattr(Recognizer, "detect", fails)
    told = pipeline.process(Frame("front", man[::-1], at, 5, 50), recognizer)
    assert [event.event_type for event in told] == [EventType.LEFT]


def test_a_visit_goes_on_when_the_camera_changes_its_resolution(
    settings: Settings, recognizer: Recognizer, man: Image
):
    pipeline = build_pipeline("front", settings, metrics=Metrics(), clock=SystemClock(), live=False)
    told, at = [], SystemClock().now()
    for number in range(150):
        image = man if number < 50 else man[::2, ::2] if number < 100 else man.repeat(2, 0).repeat(2, 1)
        told += pipeline.process(Frame("front", image, at, number / 15, number), recognizer)
    assert [event.event_type for event in told] == ["match"]
    assert all(0 <= side <= 1 for event in told for side in event.box)


@pytest.mark.parametrize("gap_s", [0.0, 1.5], ids=["at once", "after a blind moment"])
def test_a_camera_that_changes_to_infrared_goes_on_with_the_visit(
    settings: Settings, recognizer: Recognizer, man: Image, gap_s: float
):
    """Colour, dusk, nothing for a moment while the filter moves, then infrared: one visit."""
    pipeline = build_pipeline("front", settings, metrics=Metrics(), clock=SystemClock(), live=False)
    told, at = [], SystemClock().now()
    dusk, black = dim(man, 0.2, 4), np.zeros_like(man)
    blind = round(gap_s * 15)
    scenes = [man] * 10 + [dusk] * 20 + [black] * blind + [infrared(man, 4)] * 60
    for number, image in enumerate(scenes):
        told += pipeline.process(Frame("front", image, at, number / 15, number), recognizer)
    told += pipeline.flush(recognizer)
    assert [event.event_type for event in told] == ["match", "left"]
    assert told[0].subject.subject_id == "p-man"
    assert len({event.visit for event in told}) == 1


def test_a_visit_in_the_dark_is_named_and_says_that_it_was_lifted(
    settings: Settings, recognizer: Recognizer, man: Image
):
    pipeline = build_pipeline("front", settings, metrics=Metrics(), clock=SystemClock(), live=False)
    told, at = [], SystemClock().now()
    for number in range(45):
        night = dim(np.roll(man, number % 5, axis=1), 0.12, 4)
        told += pipeline.process(Frame("front", night, at, number / 15, number), recognizer)
    assert [event.event_type for event in told] == ["match"]
    assert told[0].subject.subject_id == "p-man"
    assert told[0].quality.lifted > 5


@pytest.mark.parametrize(
    ("fps", "frames", "blur_px", "told"),
    [
        pytest.param(15, 5, 0.0, ["match", "left"], id="a third of a second suffices"),
        pytest.param(15, 5, 14.0, ["no_decision low_quality", "left"], id="a third of a second, blurred"),
        pytest.param(15, 1, 0.0, ["no_decision too_few_looks", "left"], id="one frame"),
        pytest.param(1, 1, 0.0, ["no_decision too_few_looks", "left"], id="a frame a second, seen in one"),
    ],
)
def test_who_passes_leaves_an_event_with_its_reason(
    settings: Settings,
    recognizer: Recognizer,
    man: Image,
    fps: float,
    frames: int,
    blur_px: float,
    told: list[str],
):
    shown = cv2.GaussianBlur(man, (0, 0), blur_px) if blur_px else man
    pipeline = build_pipeline("front", settings, metrics=Metrics(), clock=SystemClock(), live=False)
    said = []
    for number in range(frames + round(8 * fps)):
        image = shown if number < frames else np.full_like(man, 90)
        frame = Frame("front", image, SystemClock().now(), number / fps, number)
        said += pipeline.process(frame, recognizer)
    assert [" ".join(filter(None, (each.event_type, each.reason))) for each in said] == told


def test_a_visit_that_cannot_be_told_takes_no_decision_about_another_back(
    settings: Settings, recognizer: Recognizer, man: Image, media: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.ERROR)
    other = cv2.resize(read_photo(orl_photo(media, 1, 2)), (296, man.shape[0]))
    pipeline = build_pipeline("front", settings, metrics=Metrics(), clock=SystemClock(), live=False)
    numbers, failing = count(), [1, 2]

    def new_event_id() -> str:
        if (number := next(numbers)) in failing:
            raise OSError("no randomness")
        return f"e-{number}"

    pipeline._new_event_id = new_event_id
    told, at = [], SystemClock().now()
    for number in range(30):
        frame = Frame("front", np.hstack([man, np.asarray(other, np.uint8)]), at, number / 15, number)
        try:
            told += pipeline.process(frame, recognizer)
        except OSError:
            told.append("failed")
    assert [each if isinstance(each, str) else each.event_id for each in told] == ["e-0", "failed", "e-3"]
    assert told[0].visit != told[2].visit
    assert caplog.text.count("a visit could not be told") == 1


def test_the_annotated_video_shows_every_frame(
    settings: Settings, recognizer: Recognizer, media: Path, tmp_path: Path
):
    run(settings, recognizer, media / "carphone_pristine.mp4", annotate=tmp_path / "out.mp4")
    camera = ReplayCamera("out", tmp_path / "out.mp4", clock=SystemClock(), realtime=False)
    camera.open()
    images = []
    while (frame := camera.read()) is not None:
        images.append(frame.image)
    camera.close()
    assert len(images) == 120
    red = (images[60][..., 2].astype(int) - images[60][..., 1] > 100).mean()
    assert red > 0.002, "the rejected face has a red box"


@pytest.mark.parametrize(
    ("wrong", "values"),
    [
        pytest.param("vflip,hflip", {"rotate": 180}, id="upside down"),
        pytest.param("transpose=clock", {"rotate": 270}, id="on its side"),
        pytest.param("hflip", {"flip": True}, id="in a mirror"),
        pytest.param("scale=iw/2:ih,setsar=2/1", {}, id="squeezed"),
    ],
)
def test_what_a_camera_sees_the_wrong_way_round_is_told_as_of_the_upright_picture(
    settings: Settings,
    recognizer: Recognizer,
    media: Path,
    tmp_path: Path,
    wrong: str,
    values: dict[str, object],
):
    clips = {"front": media / "single_face.mp4", "wrong": tmp_path / "wrong.mp4"}
    encode = ("-vf", wrong, "-crf", "10", "-y", str(clips["wrong"]))
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(clips["front"]), *encode], check=True)
    told = {}
    for name, clip in clips.items():
        camera = CameraSettings(source=str(clip), realtime=False, **(values if name == "wrong" else {}))
        described = settings.model_copy(update={"cameras": {"front": camera}})
        pipeline = build_pipeline("front", described, metrics=Metrics(), clock=SystemClock(), live=False)
        shown = build_camera("front", described, SystemClock())
        shown.open()
        frames = iter(shown.read, None)
        told[name] = [event for frame in frames for event in pipeline.process(frame, recognizer)]
        shown.close()
    assert [event.event_type for event in told["wrong"]] == [event.event_type for event in told["front"]]
    first, same = told["front"][0], told["wrong"][0]
    assert first.event_type == EventType.MATCH
    assert np.allclose(first.box, same.box, atol=0.03), "fractions of the upright frame"


def test_nobody_is_named_before_a_camera_that_hangs_upside_down(
    settings: Settings, recognizer: Recognizer, media: Path, tmp_path: Path
):
    clip = tmp_path / "down.mp4"
    turn = ("-vf", "vflip,hflip", "-crf", "10", "-y", str(clip))
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(media / "single_face.mp4"), *turn], check=True)
    events, metrics = run(settings, recognizer, clip)
    assert EventType.MATCH not in [event.event_type for event in events]
    refused = metrics.counts().get("shots.refused.recognisability", 0)
    seen = sum(event.shots.seen for event in events)
    assert not seen or refused, "a face that was found is not believed"


def test_the_int8_embedder_is_close_to_the_original_on_all_orl_faces(settings: Settings, media: Path):
    manifest, session = load_session(
        "sface", "embedder", settings.models_path, threads=settings.recognition.threads
    )
    original = Embedder(session, manifest)
    ours = build_recognizer(settings, Gallery.empty("none"), side_px=PHOTO_SIDE_PX)
    cosines = []
    for subject in range(1, ORL_SUBJECTS + 1):
        for number in range(1, ORL_PHOTOS + 1, 3):
            image = read_photo(orl_photo(media, subject, number))
            face = ours.detect(image)[0]
            crop = ours.embedder.align(image, face.landmarks)
            cosines.append(float(ours.embedder.embed(crop)[0] @ original.embed(crop)[0]))
    assert len(cosines) == 160
    assert np.mean(cosines) >= 0.99
