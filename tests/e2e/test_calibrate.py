"""edge calibrate and edge gallery doctor as an operator types them, on the ORL photos."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from edge.camera.photo import read_photo
from edge.device.settings.load import load
from edge.face.manifest import installed_path, load_manifest
from edge.lab.demo.media import orl_photo
from tests.e2e.device import Device
from tests.support.ports import free_port

pytestmark = pytest.mark.e2e


@pytest.fixture
def device(make_device: Callable[..., Device]) -> Device:
    return make_device(free_port(), enrolled=False)


@pytest.fixture
def cohort(tmp_path: Path, media: Path) -> Path:
    """Thirty subjects of ORL, one photo each."""
    images = tmp_path / "cohort"
    for subject in range(11, 41):
        folder = images / f"s{subject:02}"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "1.png"), read_photo(orl_photo(media, subject, 1)))
    return images


def test_a_cohort_gives_a_shift_that_the_settings_take(device: Device, cohort: Path, tmp_path: Path):
    done = device.edge("calibrate", "--cohort", str(cohort), "--json-file", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["subjects"] == 30
    assert abs(report["site_shift"]) < 0.05  # ORL's faces are not more alike than those of the calibration
    line = next(line for line in done.stdout.splitlines() if line.startswith("site_shift"))
    plain = json.loads(device.edge("gallery", "doctor", "--json").stdout)["threshold"]
    for setting in (line, "site_shift = 0.02"):
        device.settings = (f"decision.{setting}",)
        shifted = json.loads(device.edge("gallery", "doctor", "--json").stdout)["threshold"]
        told = float(setting.split("=")[1])
        assert shifted - plain == pytest.approx(max(0.0, told), abs=1e-6), "below 0 it counts as 0"


def test_the_doctor_finds_one_person_under_two_ids_and_counts_strangers(
    device: Device, cohort: Path, media: Path
):
    for subject in range(1, 6):
        done = device.edge("enroll", f"p-{subject}", str(orl_photo(media, subject, 1)))
        assert done.returncode == 0, done.stderr
    forced = device.edge("enroll", "p-again", str(orl_photo(media, 3, 2)), "--force")
    assert forced.returncode == 0, forced.stderr
    report = json.loads(device.edge("gallery", "doctor", "--cohort", str(cohort), "--json").stdout)
    assert [{pair["first"], pair["second"]} for pair in report["duplicates"]] == [{"p-3", "p-again"}]
    assert (report["subjects"], report["comparisons"]) == (6, 6)
    assert report["expected_fpir"] == pytest.approx(0.001, rel=0.01)
    assert report["cohort"]["strangers"] == 30
    assert report["cohort"]["fpir"] <= 0.05
    told = device.edge("gallery", "doctor").stdout
    assert "6 subjects" in told
    assert "one person twice" in told
    assert told.splitlines()[-1].startswith(
        "Of 1,000 strangers at this door about 1 is taken for somebody, if"
    )
    assert report["strangers_taken"] == {"share": pytest.approx(0.001, rel=0.01), "low": None, "high": None}


def test_a_cohort_of_a_few_people_does_not_hide_the_diagnosis(device: Device, cohort: Path, media: Path):
    for folder in sorted(cohort.iterdir())[5:]:
        shutil.rmtree(folder)
    assert device.edge("enroll", "p-1", str(orl_photo(media, 1, 1))).returncode == 0
    done = device.edge("gallery", "doctor", "--cohort", str(cohort))
    assert done.returncode == 0, done.stderr
    assert "1 subjects" in done.stdout
    assert "0.00% of 5 strangers would be let in" in done.stdout
    assert "site_shift is measured from photos of 20 people or more" in done.stdout


def test_a_model_that_the_fleet_has_pushed_is_known_to_the_doctor(
    device: Device, cohort: Path, media: Path, tmp_path: Path
):
    shipped = load_manifest("sface-int8")
    device.models_dir = tmp_path / "models"
    shutil.copytree(shipped.directory, device.models_dir / "pushed")
    manifest = device.models_dir / "pushed" / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('name = "sface-int8"', 'name = "pushed"'))
    for name, copy in (("yunet", "yunet"), ("sface-int8", "pushed")):
        weights = installed_path(load_manifest(name), load().models_path)
        shutil.copy(weights, installed_path(load_manifest(copy, device.models_dir), device.models_dir))
    device.settings = ('recognition.embedder = "pushed"',)
    assert device.edge("enroll", "p-1", str(orl_photo(media, 1, 1))).returncode == 0
    done = device.edge("gallery", "doctor", "--cohort", str(cohort))
    assert (done.returncode, "of 30 strangers" in done.stdout) == (0, True), done.stderr
    done = device.edge("calibrate", "--cohort", str(cohort))
    assert (done.returncode, "calibration of pushed" in done.stdout) == (0, True), done.stderr


def test_an_embedder_s_table_needs_many_subjects(device: Device, cohort: Path):
    done = device.edge("calibrate", "--images", str(cohort))
    assert done.returncode != 0
    assert "give photos of 100 subjects" in done.stderr
    assert "Traceback" not in done.stderr
    both = device.edge("calibrate")
    assert "give --images DIR" in both.stderr
