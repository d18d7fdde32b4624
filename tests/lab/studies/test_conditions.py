"""Conditions by hand, clean gallery and spoiled, and the command on real faces."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.photo import read_photo
from edge.core.types import Quality, Refusal
from edge.device.settings.load import load
from edge.face.quality import QualityGate
from edge.gallery.decision import Calibration, DecisionRule
from edge.lab.demo.media import orl_photo
from edge.lab.photos.protocol import open_set
from edge.lab.photos.shots import Shot
from edge.lab.studies.conditions import _interval, compare
from tests.lab.photos.test_protocol import people, unit
from tests.support.command_line import run

CALIBRATION = Calibration((0.1, 0.5, 0.9), (0.5, 0.01, 0.0001))
RULE = DecisionRule(target_fpir=None, threshold=0.6, margin=0, calibration=CALIBRATION)
ENROLMENT = QualityGate(20, 0.3, 45, 0.7, max_lifted=1.0)


def shot(row: np.ndarray, refused: Refusal | None = None, lifted: float = 1.0) -> Shot:
    return Shot(row, Quality(80, 0.8, 0.0, 0.9, 0.9, 0.5, refused, lifted, 0.75))


def test_conditions_are_judged_with_a_clean_gallery_and_with_a_spoiled_one(tmp_path: Path):
    protocol = open_set(people(tmp_path, Ann=5, Bob=5, Eve=1), enroll=1, min_images=4)
    rows = {"Ann": unit(1), "Bob": unit(0, 1), "Eve": unit(0, 0, 1)}
    clean = {path: shot(rows[path.parent.name]) for path in protocol.photos}
    alike = {path: shot(unit(1, 0.1)) for path in protocol.photos}
    lifted = {path: shot(rows[path.parent.name], lifted=8.0) for path in protocol.photos}
    refused = {path: shot(rows[path.parent.name], Refusal.BLUR) for path in protocol.photos}
    gone: dict[Path, Shot | None] = dict.fromkeys(protocol.photos)
    shots = {"clean": clean, "alike": alike, "lifted": lifted, "refused": refused, "gone": gone}
    report = compare(protocol, shots, RULE, ENROLMENT, 3)
    assert (report["n_subjects"], report["n_genuine"], report["n_unknown"]) == (2, 4, 1)
    probes, both = report["probes"], report["both"]
    for side in (probes, both):
        assert side["clean"]["tpir"]["0.01"] == side["clean"]["tpir_by_rule"] == 1
        assert side["clean"]["fpir_by_rule"] == side["clean"]["fmr"]["0.01"]["times_promised"] == 0
    assert probes["alike"]["tpir_by_rule"] == 0.5
    assert probes["alike"]["fpir_by_rule"] == 1
    assert both["alike"]["fmr"]["0.0001"] == {
        "times_promised": 10_000.0,
        "interval": [10_000.0, 10_000.0],
        "expected": 0.0,
    }
    assert probes["lifted"]["tpir_by_rule"] == 1
    assert probes["lifted"]["lifted"] == 8
    assert probes["clean"]["recognisability"] == 0.75
    assert probes["gone"]["recognisability"] is None
    assert (both["lifted"]["enrolled"], both["lifted"]["fta"]) == (0, 1.0)
    for name in ("refused", "gone"):
        assert probes[name]["fta"] == 1
        assert probes[name]["tpir"]["0.01"] == probes[name]["tpir_by_rule"] == 0
    assert json.loads(json.dumps(report)) == report


def test_the_interval_knows_that_pairs_of_one_photo_belong_together():
    generator = np.random.default_rng(5)
    counted = np.ones((200, 20), bool)
    scattered = generator.random((200, 20)) < 0.1
    of_two_photos = np.zeros((200, 20), bool)
    of_two_photos[:, :2] = True
    everybody = np.arange(200)
    widths = []
    for reached in (scattered, of_two_photos):
        low, high = _interval(reached, counted, everybody)
        assert low < 0.1 < high
        widths.append(high - low)
    assert widths[0] < 0.06
    assert widths[1] > 0.15


def test_a_rule_without_a_calibration_promises_nothing(tmp_path: Path):
    protocol = open_set(people(tmp_path, Ann=5, Eve=1), enroll=1, min_images=4)
    shots = {path: shot(unit(1)) for path in protocol.photos}
    report = compare(protocol, {"clean": shots}, DecisionRule(None, 0.6, 0, None), ENROLMENT, 3)
    assert report["probes"]["clean"]["fmr"] == {}


def test_the_command_sees_in_the_dark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path):
    for subject in range(1, 7):
        folder = tmp_path / "orl" / f"S{subject:02}"
        folder.mkdir(parents=True)
        for number in range(1, 6 if subject < 5 else 2):
            photo = read_photo(orl_photo(media, subject, number))
            cv2.imwrite(str(folder / f"S{subject:02}_{number:04}.png"), photo)
    monkeypatch.setenv("EDGE_MODELS_DIR", str(load().models_path))
    out, plots = tmp_path / "out.json", tmp_path / "plots"
    told = run(
        *("evaluate", "conditions", "--images", tmp_path / "orl", "--probes", "6"),
        *("--json-file", out, "--plots", plots),
    )
    report = json.loads(out.read_text())
    assert report["schema"] == "edge.evaluate.conditions/1"
    assert report["probes"]["clean"]["tpir"]["0.01"] == 1
    assert report["probes"]["dark 0.12"]["tpir"]["0.01"] >= 0.8
    assert report["probes"]["dark 0.12"]["lifted"] > 5
    assert report["both"]["dark 0.12"]["enrolled"] == 0
    assert "dark 0.12" in told
    picture = cv2.imread(str(plots / "conditions.png"))
    assert picture is not None
    assert picture.std() > 5
