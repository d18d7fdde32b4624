"""The scale of recognisability: fitted to lengths whose odds are known, and what a manifest takes of it."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.core.errors import MediaError
from edge.core.types import Quality
from edge.device.settings.load import load
from edge.face.manifest import load_manifest, manifests_dir, read_manifest
from edge.lab.demo.media import orl_photo
from edge.lab.photos.calibration import write_table
from edge.lab.photos.degrade import Degradation, damages
from edge.lab.photos.embeddings import PhotoEmbedder
from edge.lab.photos.recognisability import (
    SPOILED,
    as_toml,
    fit,
    logistic,
    lower_half,
    lower_half_lengths,
    spread_over,
)
from edge.lab.photos.shots import Shot, take_shots

WALL = cv2.imencode(".png", np.full((64, 64, 3), 128, np.uint8))[1].tobytes()
QUALITY = Quality(80.0, 0.8, 0.0, 0.9, 0.9, 0.5)


def lengths(mean: float, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, count)


def shots(plain: np.ndarray, spoiled: np.ndarray) -> Mapping[str, Mapping[Path, Shot | None]]:
    def of(values: np.ndarray) -> dict[Path, Shot | None]:
        row = np.ones(1, np.float32)
        return {Path(str(i)): Shot(row, QUALITY, float(value)) for i, value in enumerate(values)}

    return {"clean": of(plain)} | {name: of(spoiled) for name in SPOILED}


def test_two_normal_kinds_give_the_scale_that_follows_from_them():
    # Normal lengths of standard deviation 1 at 12 and 8: the log odds are 4 (x - 10).
    middle, width = logistic(lengths(12, 20_000, 1), lengths(8, 60_000, 2))
    assert middle == pytest.approx(10, abs=0.05)
    assert width == pytest.approx(1 / 4, rel=0.1)


def test_kinds_that_do_not_overlap_give_a_scale_all_the_same():
    middle, width = logistic(np.full(200, 12.0), np.full(200, 8.0))
    assert middle == pytest.approx(10, abs=0.1)
    assert 0.1 < width < 1


def test_an_embedder_whose_plain_faces_are_not_longer_gets_no_scale():
    with pytest.raises(MediaError, match="not longer"):
        logistic(lengths(8, 200, 1), lengths(12, 200, 2))


def test_too_few_faces_give_no_scale():
    with pytest.raises(MediaError, match="give photos of more subjects"):
        fit(shots(lengths(12, 99, 1), lengths(8, 99, 2)), "few")


def test_a_written_scale_is_read_back_and_nothing_else_changes(tmp_path: Path):
    scale, report = fit(shots(lengths(12, 300, 1), lengths(8, 300, 2)), "made up")
    assert (scale.plain, scale.spoiled) == (300, 300 * len(SPOILED))
    assert report["lengths"]["clean"]["0.5"] == pytest.approx(12, abs=0.2)
    path = tmp_path / "sface-int8" / "manifest.toml"
    path.parent.mkdir()
    path.write_text((manifests_dir() / "sface-int8" / "manifest.toml").read_text())
    before = read_manifest(path)
    write_table(as_toml(scale), path)
    after = read_manifest(path)
    assert after.recognisability == scale
    assert after.calibration == before.calibration
    assert path.read_text().count("[recognisability]") == 1


def test_a_lower_half_counts_as_covered_where_few_plain_ones_are_so_short():
    assert lower_half(lengths(7, 999, 3)) is None
    # 2.75 standard deviations below the mean lie 3 of 1,000.
    assert lower_half(lengths(7, 100_000, 4)) == pytest.approx(7 - 2.748, abs=0.05)


def test_the_lower_half_of_a_face_is_measured_and_written(tmp_path: Path, media: Path):
    photos = [orl_photo(media, subject, 1) for subject in range(1, 5)]
    (tmp_path / "wall.png").write_bytes(WALL)
    embedder = PhotoEmbedder("sface-int8", load())
    found = lower_half_lengths([*photos, tmp_path / "wall.png"], embedder, lambda *_: None)
    scale = load_manifest("sface-int8").recognisability
    assert scale is not None
    assert scale.lower_half is not None
    assert len(found) == 4
    assert found.min() > scale.lower_half
    assert f"lower_half = {scale.lower_half}" in as_toml(scale)
    assert "lower_half" not in as_toml(scale.model_copy(update={"lower_half": None}))


def test_photos_are_spread_over_a_folder():
    photos = [Path(str(number)) for number in range(10)]
    assert spread_over(photos, 4) == [photos[0], photos[3], photos[6], photos[9]]
    assert spread_over(photos, 20) == photos


@pytest.mark.parametrize(
    "way", [way for way in damages() if way.name in (*SPOILED, "clean")], ids=lambda way: way.name
)
def test_plain_faces_are_recognisable_and_spoiled_ones_are_not(way: Degradation, media: Path):
    photos = [orl_photo(media, subject, 1) for subject in range(1, 41)]
    scale = load_manifest("sface-int8").recognisability
    assert scale is not None
    embedder = PhotoEmbedder("sface-int8", load())
    taken = take_shots(photos, [way], embedder, lambda *_: None)[way.name]
    found = [shot for shot in taken.values() if shot is not None]
    told = [shot.quality.recognisability for shot in found]
    assert told == [pytest.approx(scale.of(shot.length)) for shot in found]
    if way.name == "clean":
        assert len(found) == 40
        assert np.median(told) > 0.9
    else:
        assert not found or np.median(told) < 0.5
