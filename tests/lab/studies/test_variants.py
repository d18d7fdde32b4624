"""Other ways of deciding, compared on subjects that nothing was taken from; and the command on real faces."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.photo import read_photo
from edge.core.errors import MediaError
from edge.device.settings.load import load
from edge.lab.demo.media import orl_photo
from edge.lab.photos.measure import open_set_scores
from edge.lab.photos.protocol import open_set, subjects
from edge.lab.photos.rates import identified, threshold_at
from edge.lab.studies.variant_scores import VIEWS, Flip, Variant
from edge.lab.studies.variants import compare, elsewhere, halves
from tests.lab.photos.test_protocol import people
from tests.support.command_line import run

BASELINE = Variant("baseline")


def quiet(what: str, done: float, total: float) -> None:
    """Tell nobody."""


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def test_halves_share_no_subject_and_come_again(tmp_path: Path):
    counts = {f"K{i}": 6 for i in range(9)} | {f"S{i}": 1 for i in range(8)} | {f"R{i}": 2 for i in range(4)}
    images = people(tmp_path, **counts)
    protocol, everybody = open_set(images, enroll=1, min_images=4), subjects(images)
    found = list(halves(protocol, everybody, 3))
    for half in found:
        tested, cohort = ({path.parent.name for path in part} for part in (half.tested, half.cohort))
        assert tested.isdisjoint(cohort)
        assert tested | cohort == set(everybody)
        assert {*half.known, *(path.parent.name for path in half.strangers)} <= tested
        assert (len(half.known), len(half.strangers)) == (5, 4)
    assert found == list(halves(protocol, everybody, 3))
    assert found[0] != found[1]


def test_too_few_subjects_for_halves_are_refused(tmp_path: Path):
    images = people(tmp_path, **{f"K{i}": 6 for i in range(9)}, Eve=1)
    with pytest.raises(MediaError, match=r"9 subjects to enrol and 1 strangers cannot be halved"):
        next(halves(open_set(images, enroll=1, min_images=4), subjects(images), 1))


def crowd(folder: Path, spread: float, bias: float = 0.0) -> tuple[Path, dict[Path, np.ndarray | None]]:
    """Subjects around centres of their own, photos `spread` from them, `bias` common to all."""
    images = people(folder, **{f"K{i:02}": 8 for i in range(40)}, **{f"S{i:03}": 1 for i in range(200)})
    generator = np.random.default_rng(6)
    views: dict[Path, np.ndarray | None] = {}
    for paths in subjects(images).values():
        centre = generator.normal(size=64) + bias
        for path in paths:
            views[path] = unit(centre + spread * generator.normal(size=(len(VIEWS), 64)))
    return images, views


def test_the_baseline_scores_as_identify_does(tmp_path: Path):
    images, views = crowd(tmp_path, 1.0)
    lost = images / "K03" / "K03_0005.jpg"
    views[lost] = None
    protocol, everybody = open_set(images, enroll=1, min_images=4), subjects(images)
    told = compare([BASELINE], protocol, everybody, views, 3, quiet, count=2)["baseline"]
    plain = {path: None if rows is None else rows[0] for path, rows in views.items()}
    for number, half in enumerate(halves(protocol, everybody, 2)):
        here = replace(
            protocol,
            gallery={name: protocol.gallery[name] for name in half.known},
            genuine=tuple(item for item in protocol.genuine if item[0] in half.known),
            strangers=half.strangers,
        )
        scores = open_set_scores(here, plain, 3)
        threshold = threshold_at(scores.strangers, 0.01)
        assert told["rank1"]["halves"][number] == round(float(scores.right.mean()), 5)
        wanted = identified(scores.best, scores.right, threshold)
        assert told["tpir"]["0.01"]["halves"][number] == round(wanted, 5)


def test_what_is_known_to_help_helps_and_what_is_known_to_break_breaks(tmp_path: Path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    images, views = crowd(tmp_path / "here", 1.0, bias=0.6)
    others, foreign = crowd(tmp_path / "there", 1.0, bias=-0.6)  # another camera: the common part is another
    variants = (
        BASELINE,
        Variant("both", flip=Flip.BOTH),
        Variant("centred", centred=True),
        Variant("3", photos=3),
        Variant("9", photos=9),
    )
    protocol, everybody = open_set(images, enroll=3, min_images=4), subjects(images)
    told = compare(variants, protocol, everybody, views, 3, quiet, count=4)
    assert told["baseline"]["tpir"]["0.01"]["gain"] == 0
    for name in ("both", "3"):
        assert told[name]["tpir"]["0.01"]["better"] == 4
        assert told[name]["tpir"]["0.01"]["gain"] > 0.02
    assert told["centred"]["at_target_unchanged"] is None
    assert told["3"]["tpir_by_pairs"] is None
    known = {name: photos for name, photos in subjects(others).items() if len(photos) > 1}
    cohort = [photos[0] for photos in everybody.values()]
    there = elsewhere(variants, cohort, known, views | foreign, 3, quiet)
    assert "9" not in there
    assert 0.5 < there["baseline"]["fmr"]["0.01"] / 0.01 < 2
    assert there["centred"]["fmr"]["0.01"] > 0.1
    assert there["3"]["tar"]["0.001"] > there["baseline"]["tar"]["0.001"]


def test_other_photos_of_one_each_are_refused(tmp_path: Path):
    images, views = crowd(tmp_path, 1.0)
    everybody = subjects(images)
    strangers = {name: photos for name, photos in everybody.items() if len(photos) == 1}
    with pytest.raises(MediaError, match="two subjects with two or more photos"):
        elsewhere([BASELINE], [photos[0] for photos in everybody.values()], strangers, views, 3, quiet)


def measured(images: Path, other: Path, out: Path) -> dict:
    arguments = ("--images", images, "--other", other, "--halves", "2", "--json-file", out)
    assert "flip in template" in run("evaluate", "variants", *arguments)
    return json.loads(out.read_text())


def test_the_command_compares_real_faces_and_is_quick_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path
):
    images, other = tmp_path / "orl", tmp_path / "other"
    for subject in range(1, 21):
        count = 6 if subject <= 8 or subject > 16 else 1
        folder = (images if subject <= 16 else other) / f"S{subject:02}"
        folder.mkdir(parents=True)
        for number in range(1, count + 1):
            photo = read_photo(orl_photo(media, subject, number))
            cv2.imwrite(str(folder / f"S{subject:02}_{number:04}.png"), photo)
    monkeypatch.setenv("EDGE_MODELS_DIR", str(load().models_path))
    monkeypatch.setenv("EDGE_STATE_DIR", str(tmp_path / "state"))
    report = measured(images, other, tmp_path / "out.json")
    assert report["schema"] == "edge.evaluate.variants/1"
    assert (report["one_photo"]["n_subjects"], report["one_photo"]["n_unknown"]) == (8, 8)
    assert (report["several_photos"]["n_genuine"], report["other_subjects"]) == (8, 4)
    for figures in report["one_photo"]["variants"].values():
        assert figures["rank1"]["mean"] >= 0.9
        assert figures["other"]["tar_at_far"]["0.01"] >= 0.9
    rows = report["several_photos"]["variants"]
    assert rows["5, all rows"]["tpir"]["0.01"]["mean"] == 1
    (cache,) = (tmp_path / "state" / "evaluate").iterdir()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    monkeypatch.setattr("edge.lab.studies.variant_scores._views", pytest.fail)  # nothing is embedded again
    assert measured(images, other, tmp_path / "again.json") == report
