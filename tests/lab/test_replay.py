"""`edge replay` as people see it: where in the clip, how far, and how long the footage is."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.clips import ReplayCamera
from edge.cli.lab.try_out import position
from edge.core.clock import SystemClock
from edge.core.metrics import Metrics
from edge.core.types import Frame, Image, Track
from edge.device.assembly.recognizer import build_pipeline
from edge.device.settings.load import load
from edge.lab.photos.degrade import dim
from edge.lab.replay import AnnotatedVideo, ReplaySummary, replay
from edge.recognition.recognizer import Recognizer
from tests.support.command_line import edge, on_terminal, write_config
from tests.support.gallery_samples import AT
from tests.support.streams import make_clip


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        pytest.param(0.0, "0:00.000", id="the start"),
        pytest.param(7.25, "0:07.250", id="seconds"),
        pytest.param(59.9996, "1:00.000", id="rounded up"),
        pytest.param(3723.48, "1:02:03.480", id="hours"),
    ],
)
def test_a_position_is_written_as_players_do(seconds: float, shown: str):
    assert position(seconds) == shown


def run(
    path: Path, recognizer: Recognizer, fps: float | None = None, annotate: Path | None = None
) -> ReplaySummary:
    camera = ReplayCamera("front", path, clock=SystemClock(), realtime=False, fps=fps)
    pipeline = build_pipeline("front", load(), metrics=Metrics(), clock=SystemClock(), live=False)
    played: list[float] = []

    def on_frame(number: int, share: float) -> None:
        played.append(share)

    summary = replay(camera, pipeline, recognizer, lambda event: None, annotate=annotate, on_frame=on_frame)
    assert played == sorted(played)
    assert played[-1] == pytest.approx(1.0, abs=0.05)
    return summary


def test_the_last_frame_counts_as_well(tmp_path: Path, recognizer: Recognizer):
    clip = make_clip(tmp_path / "a.mp4", seconds=6.0, fps=10)
    summary = run(clip, recognizer)
    assert (summary.frames, summary.footage_s) == (60, pytest.approx(6.0, abs=0.01))
    assert run(clip, recognizer, fps=20).footage_s == pytest.approx(3.0, abs=0.01)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        cv2.imwrite(str(pictures / f"{number}.png"), np.full((64, 64, 3), 90, np.uint8))
    assert run(pictures, recognizer).footage_s == pytest.approx(0.3)


def test_an_annotated_video_has_the_speed_of_its_clip(tmp_path: Path, recognizer: Recognizer):
    run(make_clip(tmp_path / "a.mp4", seconds=2.0, fps=10), recognizer, annotate=tmp_path / "out.mp4")
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10, abs=0.1)
    video.release()


def test_events_say_where_in_the_clip_they_are(tmp_path: Path, media: Path, models_dir: Path):
    config = write_config(tmp_path, state_dir=tmp_path / "state", models_dir=models_dir)
    done = edge("replay", media / "noface_face.mov", config=config)
    (decided, decision), (gone, left) = (re.split(r" v-\w+ ", line) for line in done.stdout.splitlines())
    assert (decision, left) == ("reject (gallery_empty)", "left")
    assert (gone, decided[:2]) == ("0:06.345", "0:")
    assert 3 < float(decided[2:]) < 6.345


def test_on_a_terminal_the_bar_moves_and_no_event_stands_behind_it(
    tmp_path: Path, media: Path, models_dir: Path
):
    config = write_config(tmp_path, state_dir=tmp_path / "state", models_dir=models_dir)
    text = on_terminal("replay", media / "noface_face.mov", config=config, term="xterm")
    shares = [int(share) for share in re.findall(r"(\d+)%", text)]
    assert shares == sorted(shares)
    assert len(set(shares)) > 3
    events = re.findall(r"(.{4})(\d:\d\d\.\d{3} v-\w+ (?:reject|left))", text, re.DOTALL)
    assert [before for before, _ in events] == ["\x1b[2K"] * 2, "each event begins a line that was cleared"


def video_of(tmp_path: Path, frames: list[Image], boxes: list[tuple[float, float, float, float]]) -> Image:
    """Return the last frame of an annotated video of these frames, in which faces have these boxes."""
    with AnnotatedVideo(tmp_path / "out.mp4", 10.0) as video:
        for number, image in enumerate(frames):
            at_s = number / 10
            tracks = [
                Track(place, None, np.array(box, np.float32), 0.0, at_s, 1) for place, box in enumerate(boxes)
            ]
            video.add(Frame("front", image, AT, at_s, number), [(each, None) for each in tracks], [])
    reader = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    shown = []
    while (read := reader.read())[0]:
        shown.append(np.asarray(read[1], np.uint8))
    reader.release()
    assert len(shown) == len(frames)
    return shown[-1]


def test_a_dark_frame_is_shown_as_bright_as_the_detector_sees_it(tmp_path: Path, man: Image):
    dark = dim(man, 0.12)
    shown = video_of(tmp_path, [dark], [])
    assert np.percentile(dark, 99) < 40
    assert np.percentile(shown, 99) > 200
    bright = video_of(tmp_path, [man], [])
    assert np.abs(bright.astype(int) - man).mean() < 6


def test_nothing_is_drawn_on_a_far_face_and_it_is_shown_enlarged(tmp_path: Path):
    scene = np.full((720, 1280, 3), 120, np.uint8)
    scene[300:340, 600:630] = (0, 0, 250)
    shown = video_of(tmp_path, [scene], [(600, 300, 630, 340)])
    assert np.abs(shown[305:335, 605:625].astype(int) - scene[305:335, 605:625]).mean() < 12
    corner = shown[8:168, 1112:1272]
    red = (corner[..., 2] > 200) & (corner[..., 1] < 60)
    assert red.mean() == pytest.approx(30 / 40 / 4, abs=0.05), "half as high as the picture, and narrower"
    near = video_of(tmp_path, [scene], [(500, 200, 700, 460)])
    assert not ((near[8:168, 1112:1272, 2] > 200) & (near[8:168, 1112:1272, 1] < 60)).any()
