"""Who is compared with whom, and what a folder or a pairs file must look like."""

from pathlib import Path

import numpy as np
import pytest

from edge.core.errors import MediaError
from edge.gallery.decision import Calibration, DecisionRule
from edge.lab.photos.measure import agreement, identification, open_set_scores, pair_scores, verification
from edge.lab.photos.protocol import open_set, read_pairs


def people(folder: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir()
        for number in range(1, count + 1):
            (folder / name / f"{name}_{number:04}.jpg").write_bytes(b"x")
    return folder


def test_known_subjects_strangers_and_those_in_between(tmp_path: Path):
    protocol = open_set(people(tmp_path, Ann=6, Bob=4, Eve=1, Mia=1, Tom=3), enroll=1, min_images=4)
    assert {name: len(photos) for name, photos in protocol.gallery.items()} == {"Ann": 1, "Bob": 1}
    assert [(name, path.stem[-4:]) for name, path in protocol.genuine] == [
        ("Ann", "0004"),
        ("Ann", "0005"),
        ("Ann", "0006"),
        ("Bob", "0004"),
    ]
    assert [path.parent.name for path in protocol.strangers] == ["Eve", "Mia"]


def test_enrolling_more_photos_keeps_the_same_probes_as_long_as_it_can(tmp_path: Path):
    images = people(tmp_path, Ann=8, Eve=1)
    asked = [open_set(images, enroll=k, min_images=4).genuine for k in (1, 2, 3)]
    assert asked[0] == asked[1] == asked[2]
    assert len(open_set(images, enroll=5, min_images=4).genuine) == 3


@pytest.mark.parametrize("counts", [{"Ann": 5}, {"Eve": 1}, {"Ann": 3, "Eve": 1}, {}])
def test_a_folder_that_cannot_be_measured_is_refused(tmp_path: Path, counts: dict[str, int]):
    with pytest.raises(MediaError, match=str(tmp_path)):
        open_set(people(tmp_path, **counts), enroll=1, min_images=4)


def test_pairs_with_and_without_a_header(tmp_path: Path):
    images = people(tmp_path, Ann=2, Bob=2)
    body = "Ann\t1\t2\nAnn\t1\tBob\t2\n" * 10
    plain, folded = tmp_path / "plain.txt", tmp_path / "folded.txt"
    plain.write_text(body)
    folded.write_text("2\t10\n" + body)
    pairs = read_pairs(images, plain)
    assert pairs.second[:2] == (images / "Ann" / "Ann_0002.jpg", images / "Bob" / "Bob_0002.jpg")
    assert pairs.same.tolist() == [True, False] * 10
    assert sorted(np.concatenate(pairs.folds)) == list(range(20))
    assert [len(fold) for fold in read_pairs(images, folded).folds] == [10, 10]


@pytest.mark.parametrize("text", ["Ann 1 2\n", "Ann\t1\n", "Ann\tx\ty\n", "Ann\t1\t2\n", "../x\t1\t2\n", ""])
def test_a_pairs_file_that_is_none_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    with pytest.raises(MediaError):
        read_pairs(tmp_path, path)


def unit(*values: float) -> np.ndarray:
    row = np.zeros(8, np.float32)
    row[: len(values)] = values
    return row / np.linalg.norm(row)


def test_a_failure_to_acquire_is_a_miss_and_never_dropped(tmp_path: Path):
    protocol = open_set(people(tmp_path, Ann=6, Bob=4, Eve=1, Mia=1), enroll=1, min_images=4)
    rows = {path: unit(1, 0.1) if path.parent.name == "Ann" else unit(0, 0, 1) for path in protocol.photos}
    rows[protocol.genuine[0][1]] = None
    rows[protocol.strangers[0]] = unit(0, 0, 0, 1)
    rows[protocol.strangers[1]] = None
    scores = open_set_scores(protocol, rows, 3)
    report = identification(protocol, scores)
    assert (report["fta"], report["n_genuine"], report["n_unknown"]) == (2, 4, 2)
    assert report["rank1"] == report["tpir"]["0.01"] == 0.75


def test_a_subject_who_cannot_be_enrolled_costs_all_its_probes(tmp_path: Path):
    protocol = open_set(people(tmp_path, Ann=5, Bob=5, Eve=1), enroll=1, min_images=4)
    rows = {path: unit(1) if path.parent.name == "Ann" else unit(0, 1) for path in protocol.photos}
    rows[protocol.strangers[0]] = unit(0, 0, 1)
    rows[protocol.gallery["Bob"][0]] = None
    report = identification(protocol, open_set_scores(protocol, rows, 3))
    assert (report["n_subjects"], report["n_enrolled"], report["rank1"]) == (2, 1, 0.5)


def test_the_products_own_rule_is_applied_to_this_gallery(tmp_path: Path):
    protocol = open_set(people(tmp_path, Ann=5, Bob=5, Eve=1, Mia=1), enroll=1, min_images=4)
    rows = {path: unit(1) if path.parent.name == "Ann" else unit(0, 1) for path in protocol.photos}
    rows[protocol.strangers[0]], rows[protocol.strangers[1]] = unit(0.5, 0, 1), unit(0, 0, 1)
    rule = DecisionRule(
        target_fpir=0.02, threshold=None, margin=0, calibration=Calibration((0.3, 0.5), (0.1, 0.001))
    )
    obtained = identification(protocol, open_set_scores(protocol, rows, 3), rule)["at_target_fpir"]
    assert obtained["threshold"] == pytest.approx(rule.threshold_for(2), abs=1e-5)
    assert (obtained["fpir"], obtained["tpir"]) == (0.5, 1.0)


def test_verification_and_agreement_by_hand(tmp_path: Path):
    images = people(tmp_path, Ann=2, Bob=2)
    path = tmp_path / "pairs.txt"
    path.write_text("Ann\t1\t2\nBob\t1\t2\nAnn\t1\tBob\t1\nAnn\t2\tBob\t2\n" * 5)
    pairs = read_pairs(images, path)
    rows = {
        photo: unit(1, 0.2) if photo.parent.name == "Ann" else unit(0, 1)
        for photo in pairs.first + pairs.second
    }
    report = verification(pairs, pair_scores(pairs, rows))
    assert (report["accuracy"], report["tar"]["0.01"], report["n_pairs"]) == (1.0, 1.0, 20)
    assert agreement(rows, rows) == {"mean": 1.0, "p01": 1.0, "min": 1.0}
