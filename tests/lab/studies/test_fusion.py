"""Ways to fuse the shots of a visit: arithmetic by hand, the product's own way, and real faces."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.photo import read_photo
from edge.core.errors import MediaError
from edge.core.types import Probe, Refusal
from edge.device.settings.load import load
from edge.lab.demo.media import orl_photo
from edge.lab.photos.shots import Shot
from edge.lab.studies.fusion import METHODS, Visits, compare, mean_embedding, visits
from edge.recognition.visit import Visit, VisitRule
from tests.lab.photos.test_protocol import people, unit
from tests.lab.studies.test_gate import quality
from tests.support.command_line import run

GALLERY = np.stack([unit(1), unit(0, 1), unit(0, 0, 1)])


def shot(row: np.ndarray, weight: float = 1.0, refused: Refusal | None = None) -> Shot:
    return Shot(row, quality(weight, refused))


def fused(name: str, *shots: Shot) -> np.ndarray:
    return METHODS[name](np.stack([s.embedding for s in shots]) @ GALLERY.T, shots, GALLERY)


def test_each_way_by_hand():
    good, bad = shot(unit(1), 0.8), shot(unit(0, 1), 0.2)
    assert fused("best shot", bad, good).tolist() == [1, 0, 0]
    assert fused("best score", bad, good).tolist() == [1, 1, 0]
    assert fused("mean", bad, good) == pytest.approx([np.sqrt(0.5), np.sqrt(0.5), 0])
    assert fused("weighted mean", bad, good) == pytest.approx(np.array([0.8, 0.2, 0]) / np.hypot(0.8, 0.2))


def test_the_weighted_mean_is_what_a_visit_does():
    generator = np.random.default_rng(1)
    rows = [unit(*generator.normal(size=8)) for _ in range(3)]
    rows = [unit(*(row + 2 * rows[0])) for row in rows]
    visit = Visit("v", 1, VisitRule(2, 6, 3.0, 3.0), 0.0, np.zeros(4, np.float32))
    shots = [shot(row, weight) for row, weight in zip(rows, (0.7, 0.2, 0.4), strict=True)]
    for at_s, taken in enumerate(shots):
        visit.add(Probe(taken.embedding, "m", taken.quality), float(at_s))
    assert visit.mean == pytest.approx(mean_embedding(shots, [0.7, 0.2, 0.4]), abs=1e-6)


def test_visits_are_whole_and_subjects_with_few_photos_are_strangers(tmp_path: Path):
    who = visits(people(tmp_path, Ann=8, Bob=40, Eve=4, Joe=2, Mia=6))
    assert [path.parent.name for path in who.gallery] == ["Ann", "Bob", "Mia"]
    assert who.owners == (0, 0, 1, 1, 1, 1, -1, 2)
    assert [path.stem[-4:] for path in who.photos[1]] == ["0005", "0006", "0007"]
    assert all(who.gallery[0] not in photos for photos in who.photos)


def test_a_folder_without_visits_is_refused(tmp_path: Path):
    with pytest.raises(MediaError, match="two or more"):
        visits(people(tmp_path, Ann=9, Eve=3))


def test_spoiled_shots_are_taken_step_by_step_and_the_gate_drops_them():
    photos = tuple(tuple(Path(f"{who}{n}") for n in range(3)) for who in "abs")
    rows = {"a": unit(1), "b": unit(0, 1), "s": unit(0, 0, 0.2, 1)}
    every = [path for visit in photos for path in visit]
    clean = {path: shot(rows[path.name[0]]) for path in every}
    # Spoiled, everybody looks like subject b, and the gate knows that nothing can be seen.
    spoiled = {path: shot(unit(0, 1, 0.1), 1.0, Refusal.BLUR) for path in every}
    report = compare(Visits((Path("x"), Path("y")), (0, 1, -1), photos), GALLERY[:2], clean, spoiled)
    assert (report["n_subjects"], report["n_visits"], report["n_unknown"]) == (2, 2, 3)
    conditions = report["conditions"]
    for count in range(3):
        assert conditions[f"{count} of 3 spoiled"]["gated"]["mean"]["0.01"] == 1
    assert conditions["2 of 3 spoiled"]["ungated"]["mean"]["0.01"] < 1
    assert conditions["3 of 3 spoiled"]["gated"]["fta"] == 1
    assert conditions["3 of 3 spoiled"]["gated"]["weighted mean"]["0.01"] == 0


def test_the_command_compares_the_ways_on_real_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path
):
    for subject in range(1, 9):
        folder = tmp_path / "orl" / f"S{subject:02}"
        folder.mkdir(parents=True)
        for number in range(1, 8 if subject <= 5 else 4):
            photo = read_photo(orl_photo(media, subject, number))
            cv2.imwrite(str(folder / f"S{subject:02}_{number:04}.png"), photo)
    monkeypatch.setenv("EDGE_MODELS_DIR", str(load().models_path))
    out = tmp_path / "out.json"
    run("evaluate", "fusion", "--images", tmp_path / "orl", "--json-file", out)
    report = json.loads(out.read_text())
    assert (report["n_subjects"], report["n_visits"], report["n_unknown"]) == (5, 10, 13)
    clean = report["conditions"]["0 of 3 spoiled"]["ungated"]
    assert clean["fta"] == 0
    assert clean["weighted mean"]["0.01"] == clean["mean"]["0.01"] == 1
