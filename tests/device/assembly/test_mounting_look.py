"""`edge check --look`: which way up a camera shows a face, and what its settings should be."""

import subprocess
from pathlib import Path

import pytest

from edge.device.assembly.mounting_look import MountingLook
from tests.support.command_line import edge, write_config


def checked(tmp_path: Path, models: Path, clip: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    source = [f'cameras.front.source = "{clip}"', "cameras.front.realtime = false", *lines]
    config = write_config(tmp_path, *source, state_dir=tmp_path / "state", models_dir=models)
    return edge("check", "--look", config=config)


@pytest.mark.parametrize(
    ("turn", "lines", "right"),
    [
        pytest.param("vflip,hflip", (), 180, id="upside down"),
        pytest.param("transpose=clock", (), 270, id="on its side"),
        pytest.param("vflip", ("cameras.front.flip = true",), 180, id="upside down, in a mirror"),
    ],
)
def test_a_camera_that_hangs_the_wrong_way_is_told_with_the_setting_that_is_right(
    tmp_path: Path, models_dir: Path, media: Path, turn: str, lines: tuple[str, ...], right: int
):
    clip = tmp_path / "wrong.mp4"
    encode = ("-vf", turn, "-crf", "10", "-y", str(clip))
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(media / "single_face.mp4"), *encode], check=True)
    done = checked(tmp_path, models_dir, clip, *lines)
    assert done.returncode == 78, done.stdout + done.stderr
    told = f"edge: cameras.front.rotate: faces stand upright with {right} and not with 0"
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    mended = checked(tmp_path, models_dir, clip, *lines, f"cameras.front.rotate = {right}")
    assert mended.returncode == 0, mended.stderr
    assert "front: shows faces upright" in mended.stdout


def test_where_nobody_stands_before_the_camera_that_is_told_and_nothing_is_wrong(
    tmp_path: Path, models_dir: Path, media: Path
):
    done = checked(tmp_path, models_dir, media / "no_face.mp4")
    assert done.returncode == 0, done.stderr
    assert "no face was seen within 10 s; somebody has to stand before it" in done.stdout


def test_a_camera_that_cannot_be_opened_is_told(tmp_path: Path, models_dir: Path):
    (tmp_path / "clips").mkdir()
    done = checked(tmp_path, models_dir, tmp_path / "clips")
    assert done.returncode == 78
    assert "the folder has no images or clips to play" in done.stderr


@pytest.mark.parametrize(
    ("sure", "rotate", "flip", "right"),
    [
        ({0: 0.99, 180: 0.02}, 0, False, None),
        ({0: 0.02, 90: 0.98}, 180, False, 270),
        ({0: 0.02, 90: 0.98}, 180, True, 90),
        ({180: 0.98}, 180, False, 0),
        ({0: 0.2, 180: 0.9}, 0, False, None),
        ({0: 0.01, 180: 0.2}, 0, False, None),
        ({}, 0, False, None),
    ],
    ids=[
        "upright",
        "on its side",
        "in a mirror",
        "turned for nothing",
        "not clear",
        "nowhere sure",
        "nobody",
    ],
)
def test_only_what_is_clear_is_called_wrong(
    sure: dict[int, float], rotate: int, flip: bool, right: int | None
):
    problem = MountingLook("front", sure, rotate, flip).problem
    assert (problem is None) == (right is None)
    assert problem is None or f"set rotate = {right}" in problem
