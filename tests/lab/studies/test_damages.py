"""Strangers let in where gallery and visitors share a damage: counted on faces whose likeness is known."""

from pathlib import Path

import numpy as np
import pytest

from edge.core.types import Probe, Quality
from edge.device.settings.load import load
from edge.gallery.decision import Calibration, DecisionRule
from edge.lab.demo.media import orl_photo
from edge.lab.photos.degrade import damages
from edge.lab.photos.embeddings import PhotoEmbedder
from edge.lab.photos.plots import plot_damages
from edge.lab.studies.damages import SpoiledSight, compare, see
from tests.support.gallery_samples import unit_rows

RULE = DecisionRule(0.01, None, 0.0, Calibration((0.3, 0.6), (0.1, 1e-4)))
QUALITY = Quality(80, 0.8, 0.0, 0.9, 0.9, 0.5)


def probe(row: np.ndarray) -> Probe:
    return Probe(row.astype(np.float32), "model@1", QUALITY)


def test_strangers_are_counted_over_all_whose_face_was_found():
    rows = unit_rows(8, 64)
    apart = {Path(str(i)): SpoiledSight(probe(row), probe(row)) for i, row in enumerate(rows)}
    one = {path: SpoiledSight(probe(rows[0]), probe(rows[0])) for path in apart}
    refused = {path: SpoiledSight(probe(rows[0]), None) for path in apart}
    gone = dict.fromkeys(apart)
    report = compare({"clean": apart, "one face": one, "refused": refused, "gone": gone}, RULE)
    assert report["subjects"] == 8
    told = report["conditions"]
    assert told["clean"]["let_in"]["0.01"]["count"] == 0
    assert told["one face"]["let_in"]["0.01"] | {"low": 0, "high": 0} == {
        "count": 8, "of": 8, "share": 1.0, "low": 0, "high": 0
    }  # fmt: skip
    assert told["one face"]["fmr"]["0.01"] == {"times_promised": 100.0, "expected": 0.3}
    assert (told["refused"]["enrolled"], told["refused"]["shots"]) == (0, 8)
    assert told["refused"]["let_in"]["0.001"]["count"] == 0
    assert told["gone"]["let_in"]["0.01"]["high"] == 1.0


@pytest.mark.parametrize("name", ["roll 180", "negative", "sunglasses", "stretched 0.5"])
def test_nobody_who_shares_a_damage_is_let_in(media: Path, tmp_path: Path, name: str):
    photos = [orl_photo(media, subject, 1) for subject in range(1, 41)]
    ways = [way for way in damages() if way.name in ("clean", name)]
    embedder = PhotoEmbedder("sface-int8", load())
    sights = see(photos, ways, embedder, lambda *_: None)
    report = compare(sights, embedder.recognizer().rule)
    assert report["conditions"]["clean"]["enrolled"] == 40
    assert report["conditions"][name]["enrolled"] <= 2
    assert report["conditions"][name]["let_in"]["0.001"]["count"] == 0
    plot_damages(report, tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 10_000
