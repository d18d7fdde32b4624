"""What the gate costs and saves, by hand; and the command on real faces, some of them beyond recognition."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edge.camera.photo import read_photo
from edge.core.errors import MediaError
from edge.core.types import Quality, Refusal
from edge.device.settings.load import load
from edge.gallery.decision import DecisionRule
from edge.lab.demo.media import orl_photo
from edge.lab.photos.measure import OpenSetScores
from edge.lab.photos.shots import Shot
from edge.lab.studies.gate import (
    REFUSED,
    compare,
    door_protocol,
    judge,
    reject_curves,
    separation,
    thinned,
)
from tests.lab.photos.test_protocol import people, unit
from tests.support.command_line import run

INF = float("inf")
RULE = DecisionRule(target_fpir=None, threshold=0.5, margin=0, calibration=None)


def flags(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text])


def quality(weight: float = 0.5, refused: Refusal | None = None, **measured: float) -> Quality:
    values = {"face_px": 80, "sharpness": 0.5, "yaw_deg": 0, "exposure": 1, "detector_score": 0.9} | measured
    return Quality(**values, weight=weight, refused=refused)


def scores() -> OpenSetScores:
    """Five genuine probes: named, named, missed, misnamed, no face; four strangers, one of them accepted."""
    return OpenSetScores(
        best=np.array([0.9, 0.8, 0.3, 0.7, -INF]),
        right=flags("xxx.x"),
        strangers=np.array([0.6, 0.2, 0.1, -INF]),
        enrolled=3,
        comparisons=3.0,
    )


def test_rates_and_prices_by_hand():
    report = judge(scores(), flags(".xxx."), flags("xx.."), 0.5)
    assert (report["ungated"]["tpir"], report["ungated"]["fpir"], report["ungated"]["fta"]) == (
        0.4,
        0.25,
        0.2,
    )
    assert (report["gated"]["tpir"], report["gated"]["fpir"], report["gated"]["fta"]) == (0.2, 0.0, 0.8)
    assert (report["accepted"]["tpir"], report["accepted"]["fpir"], report["accepted"]["fta"]) == (
        1.0,
        0.0,
        0.0,
    )
    assert report["gated"]["fta_unknown"] == 0.75
    assert report["pays"] == {
        "errors": 3,
        "avoided": 3,
        "usable": 2,
        "lost": 1,
        "avoided_share": 1.0,
        "lost_share": 0.5,
        "avoided_per_lost": 3.0,
    }


def test_a_gate_that_refuses_nothing_changes_nothing():
    report = judge(scores(), flags("....."), flags("...."), 0.5)
    assert report["gated"] == report["ungated"]
    assert report["pays"]["avoided_per_lost"] is None
    assert report["accepted"]["tpir"] == 0.5


def test_a_gate_that_refuses_everything_leaves_no_rates_among_the_accepted():
    report = judge(scores(), flags("xxxxx"), flags("xxxx"), 0.5)
    assert report["gated"]["tpir"] == report["gated"]["fpir"] == 0
    assert set(report["accepted"].values()) == {None}
    assert json.loads(json.dumps(report)) == report


def test_refusing_by_a_measure_that_knows_leaves_fewer_useless_shots():
    useful = np.arange(100) % 5 >= 2
    qualities = [
        Quality(80, 0.5, 0, 1, 0.9, 0.5 * sure, recognisability=sure)
        for sure in np.where(useful, 0.9, 0.3).tolist()
    ]
    refused = replace(qualities[0], refused=Refusal.BLUR)
    told = reject_curves([*qualities, refused], np.append(useful, False))
    assert told["recognisability"][0] == told["weight"][0] == pytest.approx(0.4)
    at = REFUSED.index(0.4)
    assert told["recognisability"][at] == told["weight"][at] == 0
    assert told["weight without recognisability"][at] > 0
    assert reject_curves([refused], np.array([False])) == {}


def test_separation_is_the_area_under_the_roc_curve():
    generator = np.random.default_rng(5)
    useful = generator.random(300) < 0.4
    weights = np.round(useful * 0.1 + generator.random(300), 1)  # rounded, so that many are equal
    qualities = [
        quality(weight, yaw_deg=-40 if good else 10) for weight, good in zip(weights, useful, strict=True)
    ]
    told = separation(qualities, useful)
    assert told["weight"] == pytest.approx(roc_auc_score(useful, weights), abs=1e-5)
    assert told["frontal"] == 0
    assert told["sharpness"] == told["recognisability"] == 0.5
    sure = [
        replace(each, recognisability=0.5 + good / 2) for each, good in zip(qualities, useful, strict=True)
    ]
    assert separation(sure, useful)["recognisability"] == 1
    assert separation(qualities, np.ones(300, bool))["weight"] is None


def test_strangers_are_single_photos_where_there_are_some(tmp_path: Path):
    protocol = door_protocol(people(tmp_path, Ann=6, Bob=4, Eve=1), enroll=1, min_images=4)
    assert [path.parent.name for path in protocol.strangers] == ["Eve"]
    assert set(protocol.gallery) == {"Ann", "Bob"}


@pytest.mark.parametrize(("asked", "known"), [(None, {"A", "B"}), (1, {"A", "B", "C"}), (3, {"A"})])
def test_else_the_last_subjects_are_strangers_with_all_their_photos(
    tmp_path: Path, asked: int | None, known: set[str]
):
    images = people(tmp_path, A=5, B=5, C=5, D=5)
    protocol = door_protocol(images, enroll=1, min_images=4, strangers=asked)
    assert set(protocol.gallery) == known
    assert len(protocol.genuine) == 2 * len(known)
    assert len(protocol.strangers) == 5 * (4 - len(known))
    assert {path.parent.name for path in protocol.strangers}.isdisjoint(known)


@pytest.mark.parametrize("asked", [2, 3], ids=["nobody to enrol", "more than there are"])
def test_strangers_that_the_folder_has_not_are_refused(tmp_path: Path, asked: int):
    with pytest.raises(MediaError, match="fewer strangers"):
        door_protocol(people(tmp_path, A=5, B=5), enroll=1, min_images=4, strangers=asked)


def test_thinning_spreads_over_all_subjects(tmp_path: Path):
    protocol = door_protocol(people(tmp_path, A=9, B=9, C=9, D=9), enroll=1, min_images=4)
    few = thinned(protocol, 4)
    assert [name for name, _ in few.genuine] == ["A", "A", "B", "B"]
    assert len(few.strangers) == 4
    assert thinned(protocol, 999).genuine == protocol.genuine


def test_every_condition_is_judged_and_summed(tmp_path: Path):
    protocol = door_protocol(people(tmp_path, Ann=5, Bob=5, Eve=1), enroll=1, min_images=4)
    rows = {"Ann": unit(1), "Bob": unit(0, 1), "Eve": unit(0, 0, 1)}
    enrolled = {photos[0]: rows[name] for name, photos in protocol.gallery.items()}
    asked = [*(path for _, path in protocol.genuine), *protocol.strangers]
    clean = {path: Shot(rows[path.parent.name], quality(0.9)) for path in asked}
    blurred = {path: Shot(unit(0, 0, 0, 1), quality(0.1, Refusal.BLUR)) for path in asked}
    gone: dict[Path, Shot | None] = dict.fromkeys(asked)
    report = compare(protocol, enrolled, {"clean": clean, "blur": blurred, "gone": gone}, RULE, 3)
    assert report["threshold"] == 0.5
    assert report["conditions"]["clean"]["gated"]["tpir"] == 1
    assert report["conditions"]["blur"]["refused"] == {"blur": 5}
    assert report["conditions"]["gone"]["ungated"]["fta"] == 1
    assert (report["pays"]["errors"], report["pays"]["avoided"], report["pays"]["usable"]) == (4, 4, 4)
    assert report["separation"]["weight"] == 1


def test_the_command_measures_the_gate_on_real_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path
):
    for subject in range(1, 9):
        folder = tmp_path / "orl" / f"S{subject:02}"
        folder.mkdir(parents=True)
        for number in range(1, 6):
            photo = read_photo(orl_photo(media, subject, number))
            cv2.imwrite(str(folder / f"S{subject:02}_{number:04}.png"), photo)
    monkeypatch.setenv("EDGE_MODELS_DIR", str(load().models_path))
    out, plots = tmp_path / "out.json", tmp_path / "plots"
    arguments = (
        "--images",
        str(tmp_path / "orl"),
        "--probes",
        "8",
        "--json-file",
        str(out),
        "--plots",
        str(plots),
    )
    run("evaluate", "gate", *arguments)
    report = json.loads(out.read_text())
    assert report["schema"] == "edge.evaluate.gate/1"
    assert (report["n_subjects"], report["n_genuine"], report["n_unknown"]) == (4, 8, 8)
    conditions = report["conditions"]
    assert conditions["clean"]["ungated"]["tpir"] == conditions["clean"]["gated"]["tpir"] == 1
    assert conditions["blur 6"]["ungated"]["tpir"] <= 0.25
    assert conditions["blur 6"]["refused"]["blur"] > 4
    assert conditions["small 16"]["gated"]["tpir"] == 0
    picture = cv2.imread(str(plots / "gate.png"))
    assert picture is not None
    assert picture.std() > 5
