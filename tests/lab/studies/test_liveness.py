"""How often pictures are taken for people and people for pictures: on made-up visits, on frames of a clip."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.core.errors import MediaError
from edge.core.types import Image
from edge.device.assembly.recognizer import build_recognizer
from edge.device.settings.load import load
from edge.gallery.gallery import Gallery
from edge.lab.photos.plots import plot_liveness
from edge.lab.studies.liveness import (
    LIST,
    LIVE,
    Presentation,
    liveness_report,
    read_presentations,
    share,
)
from edge.recognition.recognizer import Recognizer
from tests.support.liveness import install


def visit(kind: str, *scores: float, light: str = "day", face_px: float = 100.0) -> Presentation:
    return Presentation(kind, {"light": light}, face_px, scores)


@pytest.mark.parametrize(
    ("scores", "alive"),
    [
        pytest.param((0.6, 0.7, 0.1, 0.1), True, id="the first two are alive"),
        pytest.param((0.4, 0.9, 0.9, 0.9), True, id="the mean is"),
        pytest.param((0.6, 0.4, 0.4, 0.4), False, id="one alone is not"),
        pytest.param((0.9,), True, id="one shot, by its mean"),
        pytest.param((0.5, 0.5), True, id="at the threshold"),
    ],
)
def test_a_visit_passes_as_at_a_door(scores: tuple[float, ...], alive: bool) -> None:
    assert visit("print", *scores).alive(0.5, 2) is alive


def test_rates_are_told_of_all_by_kind_and_by_column(tmp_path: Path) -> None:
    visits = [visit(LIVE, 0.9, 0.9)] * 7 + [visit(LIVE, 0.2, 0.2, light="night")] * 1
    visits += [visit("print", 0.1, 0.2)] * 4 + [visit("screen", 0.8, 0.8, light="night", face_px=40)] * 1
    visits += [visit("screen", 0.1, 0.1)] * 3 + [visit("screen"), visit(LIVE)]
    report = liveness_report(visits, threshold=0.5, min_shots=2)
    assert (report["all"]["apcer"]["count"], report["all"]["apcer"]["total"]) == (1, 8)
    assert report["all"]["bpcer"]["share"] == pytest.approx(1 / 8)
    assert report["kinds"]["print"]["share"] == 0
    assert report["kinds"]["screen"]["share"] == 0.25
    assert report["groups"]["light"]["night"]["apcer"]["share"] == 1
    assert report["groups"]["light"]["night"]["bpcer"]["share"] == 1
    assert report["no_score"]["attacks"]["count"] == report["no_score"]["live"]["count"] == 1
    assert report["no_score"]["live"]["total"] == 9
    assert report["eer"] == pytest.approx(1 / 8)
    assert report["curve"]["apcer"][0] == 1
    assert report["curve"]["bpcer"][0] == 0
    assert np.all(np.diff(report["curve"]["bpcer"]) >= 0)
    plot_liveness(report, tmp_path / "liveness.png")
    assert (tmp_path / "liveness.png").stat().st_size > 10_000
    assert report["bpcer_at_apcer"] == {"apcer": 0.07, "bpcer": pytest.approx(1 / 8)}
    assert sum(each["apcer"]["total"] for each in report["face_px"].values()) == 8


def test_nothing_is_said_without_live_visits_or_without_attacks() -> None:
    for visits in ([visit(LIVE, 0.9)], [visit("print", 0.1)], [visit(LIVE, 0.9), visit("print")]):
        with pytest.raises(MediaError, match="has no score"):
            liveness_report(visits, threshold=0.5, min_shots=2)


def test_an_interval_holds_its_share() -> None:
    some = share(3, 80)
    # Wilson's interval for 3 of 80, from the closed form.
    assert (some["low"], some["high"]) == (pytest.approx(0.0128, abs=1e-3), pytest.approx(0.1045, abs=1e-3))
    assert share(0, 10)["low"] == 0
    assert share(0, 0)["share"] is None


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    model = str(install(tmp_path_factory.mktemp("model")))
    return build_recognizer(
        load(overrides={"liveness": {"policy": "report", "model": model}}), Gallery.empty("x")
    )


def listed(directory: Path, *rows: tuple[str, str]) -> Path:
    with (directory / LIST).open("w", newline="") as file:
        csv.writer(file).writerows([("folder", "kind"), *rows])
    return directory


def test_visits_are_read_from_folders_of_frames(recognizer: Recognizer, man: Image, tmp_path: Path) -> None:
    for name, brightness in (("bright", 1.0), ("dark", 0.75), ("empty", 0.0)):
        (tmp_path / name).mkdir()
        for number in range(3):
            picture = (man * brightness).astype(np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), picture)
    directory = listed(tmp_path, ("bright", LIVE), ("dark", "print"), ("empty", "print"))
    live, picture, nothing = read_presentations(directory, recognizer, max_shots=2)
    assert (len(live.scores), len(picture.scores), nothing.scores) == (2, 2, ())
    assert min(live.scores) > 0.9 > 0.1 > max(picture.scores)
    assert nothing.face_px == 0
    [half, *_] = read_presentations(directory, recognizer, max_shots=1, shrink=0.5)
    assert half.face_px == pytest.approx(live.face_px / 2, rel=0.15)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(None, "cannot be read", id="no list"),
        pytest.param("folder\na\n", "folder and kind are needed", id="no kinds"),
        pytest.param("folder,kind\ngone\n", "line 2: a row needs a folder and a kind", id="a short row"),
        pytest.param("folder,kind\n", "a row for each visit", id="no visits"),
        pytest.param("folder,kind\ngone,live\n", "no folder 'gone'", id="no folder"),
    ],
)
def test_a_bad_list_is_told(recognizer: Recognizer, tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / LIST).write_text(text)
    with pytest.raises(MediaError, match=says):
        read_presentations(tmp_path, recognizer, max_shots=2)
