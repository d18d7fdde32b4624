"""The demo's made clips: they show what they say, and the product says of each what the demo expects."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.clips import ReplayCamera
from edge.core.clock import SystemClock
from edge.core.metrics import Metrics
from edge.core.types import FaceEvent, Image
from edge.device.assembly.recognizer import build_pipeline
from edge.device.settings.load import load
from edge.lab.demo import scenario
from edge.lab.demo.stage import FAR_FACE_PX, make_dark, make_far, make_pause, make_two
from edge.lab.replay import replay
from edge.recognition.recognizer import Recognizer

MADE = {"dark": make_dark, "far": make_far, "two": make_two}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, media: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    for name, make in MADE.items():
        make(media, folder / f"{name}.avi")
    return {name: folder / f"{name}.avi" for name in MADE}


def pictures(clip: Path) -> list[Image]:
    camera = ReplayCamera("clip", clip, clock=SystemClock(), realtime=False)
    camera.open()
    found = []
    while (frame := camera.read()) is not None:
        found.append(frame.image.copy())
    camera.close()
    return found


def said_of(clip: Path, camera: str, recognizer: Recognizer) -> list[FaceEvent]:
    said: list[FaceEvent] = []
    source = ReplayCamera(camera, clip, clock=SystemClock(), realtime=False)
    pipeline = build_pipeline(camera, load(), metrics=Metrics(), clock=SystemClock(), live=False)
    replay(source, pipeline, recognizer, said.append)
    return said


@pytest.mark.parametrize("name", MADE)
def test_the_product_says_of_each_scene_what_the_demo_expects(
    made: dict[str, Path], recognizer: Recognizer, name: str
):
    said = said_of(made[name], name, recognizer)
    told = Counter(
        (each.camera, each.event_type.value, each.subject.subject_id if each.subject else "") for each in said
    )
    expected = {key: number for key, number in scenario.EXPECTED.items() if key[0] == name}
    assert dict(told) == expected
    decided = [each.quality for each in said if each.subject and each.event_type == "match"]
    assert len(decided) == 1
    assert decided[0] is not None
    least, most = {"dark": (120, 180), "far": FAR_FACE_PX, "two": (120, 180)}[name]
    assert least - 4 <= decided[0].face_px <= most + 4
    assert (decided[0].lifted > 5) == (name == "dark")


def test_at_night_there_is_an_eighth_of_the_light(made: dict[str, Path]):
    dark = pictures(made["dark"])
    assert np.mean([picture.mean() for picture in dark]) < 0.15 * 128
    assert np.percentile(dark[-1], 99) < 64


def test_two_people_stand_side_by_side_for_some_seconds(made: dict[str, Path], recognizer: Recognizer):
    both = pictures(made["two"])
    assert both[0].shape == (360, 1280, 3)
    for picture in both[:: len(both) // 8]:
        sides = sorted(float(face.box[0]) > 640 for face in recognizer.detect(picture))
        assert sides == [False, True]


def test_a_pause_shows_nothing_and_lasts(tmp_path: Path):
    make_pause(tmp_path, tmp_path / "pause.avi", seconds=6)
    camera = ReplayCamera("pause", tmp_path / "pause.avi", clock=SystemClock(), realtime=False)
    camera.open()
    times = []
    while (frame := camera.read()) is not None:
        times.append(frame.monotonic_s)
        assert cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY).std() < 1
    camera.close()
    assert times[-1] - times[0] + camera.frame_s == pytest.approx(6.0, abs=0.1)


def test_every_camera_has_its_clips_in_order_and_a_line_for_people(tmp_path: Path, media: Path):
    steps: list[str] = []

    def told(what: str, done: float, total: float) -> None:
        steps.append(f"{what} {done:.0f}/{total:.0f}")

    folders = scenario.lay_out(media, tmp_path, told)
    assert folders.keys() == scenario.SHOWN.keys() == {camera for camera, _, _ in scenario.EXPECTED}
    assert sorted(path.name for path in folders["side"].iterdir()) == [
        "0-no_face.mp4",
        "1-carphone_pristine.mp4",
        "2-no_face.mp4",
        "3-WolfgangLanger_Pexels.mp4",
    ]
    assert sorted(path.name for path in folders["far"].iterdir()) == ["0.avi", "1.avi"]
    assert steps[-1] == "clips 5/5"
    assert scenario.seconds(folders) < 40
