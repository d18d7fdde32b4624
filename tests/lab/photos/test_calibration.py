"""Calibration on scores whose false match rates are known, and the table that a manifest takes."""

import math
from pathlib import Path

import numpy as np
import pytest

from edge.core.errors import MediaError, ModelError
from edge.face.manifest import manifests_dir, read_manifest
from edge.gallery.decision import DecisionRule
from edge.lab.photos.calibration import (
    RATES,
    FittedRates,
    as_toml,
    calibrate,
    check_halves,
    several_photos,
    write_table,
)
from tests.lab.photos.test_tail import DIM, true_rate
from tests.support.gallery_samples import unit_rows


@pytest.fixture(scope="module")
def table() -> FittedRates:
    return calibrate(unit_rows(400, DIM, seed=1), "random directions")


def test_the_table_promises_what_is_true(table: FittedRates):
    for threshold, rate in zip(table.thresholds, table.fmr, strict=True):
        assert 0.3 < true_rate(threshold) / rate < 2, rate
    assert (table.pairs, table.subjects, table.fitted_below) == (79_800, 400, 3e-3)
    assert all(low < t < high for low, t, high in zip(table.low, table.thresholds, table.high, strict=True))


@pytest.mark.parametrize("target", [0.01, 0.003])
@pytest.mark.parametrize("size", [10, 100, 1000])
def test_the_rule_obtains_its_target_among_strangers_never_seen(table: FittedRates, target: float, size: int):
    threshold = DecisionRule(target, None, 0.0, table.calibration).threshold_for(size)
    gallery, strangers = unit_rows(size, DIM, seed=2), unit_rows(30_000, DIM, seed=3)
    obtained = ((strangers @ gallery.T).max(axis=1) >= threshold).mean()
    assert 0.5 < obtained / target < 2


def test_halves_are_checked_against_each_other():
    report = check_halves(unit_rows(400, DIM, seed=4), splits=5)
    assert report["fmr"]["0.01"]["median"] == pytest.approx(1, abs=0.1)
    assert report["fpir"]["0.01 of 100"]["within_factor_2"] >= 0.8
    for promise, ratio in report["fpir_with_shift"].items():
        assert 0 < ratio["median"] <= report["fpir"][promise]["median"]


def test_a_folder_full_of_the_same_faces_under_two_names_is_refused():
    rows = unit_rows(200, DIM, seed=5)
    with pytest.raises(MediaError, match="give each subject one name"):
        calibrate(np.concatenate([rows, rows]), "twins")


def test_a_mean_of_several_photos_is_passed_more_often(table: FittedRates):
    # Faces share a direction, as real ones do; the noise of single photos hides it, a mean lets it through.
    generator = np.random.default_rng(6)
    common = unit_rows(1, DIM, seed=7)

    def photos(count: int) -> np.ndarray:
        face = unit_rows(1, DIM, seed=int(generator.integers(1 << 30))) + 0.3 * common
        rows = face + generator.standard_normal((count, DIM)) * 0.15
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    examples = [photos(3) for _ in range(300)]
    strangers = np.concatenate([photos(1) for _ in range(300)])
    one, three = (several_photos(examples, strangers, n, table.calibration)["0.01"] for n in (1, 3))
    assert three > 1.1 * one


def test_a_written_table_is_read_back_and_nothing_else_changes(tmp_path: Path, table: FittedRates):
    original = (manifests_dir() / "sface-int8" / "manifest.toml").read_text()
    path = tmp_path / "sface-int8" / "manifest.toml"
    path.parent.mkdir()
    path.write_text(original)
    before = read_manifest(path)
    write_table(as_toml(table), path)
    after = read_manifest(path)
    assert after.calibration is not None
    assert after.calibration.thresholds == table.thresholds
    assert after.calibration.fmr == RATES
    assert after.calibration.fitted_below == table.fitted_below
    assert after.model_copy(update={"calibration": None}) == before.model_copy(update={"calibration": None})
    assert path.read_text().count("[calibration]") == 1
    assert as_toml(table) in path.read_text()


def test_a_table_that_is_none_leaves_the_manifest_as_it_was(tmp_path: Path, table: FittedRates):
    path = tmp_path / "sface-int8" / "manifest.toml"
    path.parent.mkdir()
    path.write_text(original := (manifests_dir() / "sface-int8" / "manifest.toml").read_text())
    wrong = FittedRates(
        **{**{k: getattr(table, k) for k in table.__slots__}, "thresholds": (math.nan,) * len(RATES)}
    )
    with pytest.raises(ModelError, match="calibration"):
        write_table(as_toml(wrong), path)
    assert path.read_text() == original
    with pytest.raises(ModelError, match="cannot write the calibration"):
        write_table(as_toml(table), tmp_path / "none" / "manifest.toml")
