"""A gallery that grows: on faces made up, where more people cost recognition; the command on real ones."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.photo import read_photo
from edge.core.errors import MediaError
from edge.core.types import FloatArray
from edge.device.settings.load import load
from edge.gallery.decision import Calibration, DecisionRule
from edge.lab.demo.media import orl_photo
from edge.lab.studies.memory import growth, slots
from edge.lab.studies.memory.growth import Halves, farther, grow, halves, likeness
from edge.lab.studies.memory.oneshot import Faces
from tests.support.command_line import run

DIM = 32


def unit(rows: FloatArray) -> FloatArray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def made_up(subjects: int, photos: int, seed: int = 3) -> dict[str, FloatArray]:
    """People around a mean, in a space of which some axes matter more, with photos around each."""
    generator = np.random.default_rng(seed)
    scale = np.linspace(2.0, 0.3, DIM)
    means = 0.5 + generator.standard_normal((subjects, 1, DIM)) * scale
    rows = unit(means + 0.45 * generator.standard_normal((subjects, photos, DIM)) * scale)
    return {f"s{number:03}": each for number, each in enumerate(rows)}


@pytest.fixture(scope="module")
def people() -> Halves:
    everybody, embeddings = {}, {}
    for number, (name, rows) in enumerate(made_up(600, 3).items()):
        kept = rows if number % 3 else rows[:1]
        paths = tuple(Path(f"{name}/{photo}.jpg") for photo in range(len(kept)))
        everybody[name] = paths
        embeddings |= dict(zip(paths, kept, strict=True))
    return halves(everybody, embeddings)


def quiet(what: str, done: int, total: int) -> None:
    pass


def test_no_probe_has_a_part_in_what_it_is_compared_with(people: Halves):
    rows = [
        set(map(bytes, part)) for part in (people.lenders, people.enrolled, people.probes, people.strangers)
    ]
    assert all(len(each) > 50 for each in rows)
    assert len(set.union(*rows)) == sum(map(len, rows))


def test_distractors_pass_for_real_people_as_often_as_others_do(people: Halves):
    report = likeness(people)
    assert set(report) == {"blended", "drawn"}
    assert all(0.5 < ratio < 2 for ratio in report["blended"].values()), report


def test_the_more_are_enrolled_the_fewer_are_recognised_and_the_higher_the_threshold(people: Halves):
    sizes = (10, 100, 1000, 20_000)
    report = grow(people, sizes, None, quiet)
    assert list(report) == [str(size) for size in sizes]
    ranks = [report[str(size)]["rank1"] for size in sizes[1:]]
    tpirs = [report[str(size)]["tpir"]["value"] for size in sizes[1:]]
    thresholds = [report[str(size)]["threshold"] for size in sizes]
    assert ranks == sorted(ranks, reverse=True)
    assert tpirs == sorted(tpirs, reverse=True)
    assert thresholds == sorted(thresholds)
    assert tpirs[0] - tpirs[-1] > 0.05
    assert report["10"]["probes"] < report["100"]["probes"]
    assert all(
        each["tpir"]["low"] <= each["tpir"]["value"] <= each["tpir"]["high"] for each in report.values()
    )


def test_a_representation_that_is_too_short_loses_more_the_more_are_enrolled(people: Halves):
    short, whole = (grow(people.shortened(dim), (100, 10_000), None, quiet) for dim in (DIM // 2, DIM))
    lost = [whole[size]["tpir"]["value"] - short[size]["tpir"]["value"] for size in ("100", "10000")]
    assert lost[1] > lost[0] > 0


def test_the_rule_is_applied_to_the_gallery_s_size(people: Halves):
    rule = DecisionRule(0.01, None, 0.0, Calibration((0.2, 0.5, 0.8), (1e-1, 1e-3, 1e-5)))
    report = grow(people, (100, 1000), rule, quiet)
    for size in (100, 1000):
        assert report[str(size)]["by_rule"]["threshold"] == pytest.approx(rule.threshold_for(size), abs=1e-4)


def test_a_billion_needs_a_higher_threshold_than_what_was_measured(
    people: Halves, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(growth, "TAIL_DRAWS", 50_000)
    monkeypatch.setattr(growth, "TAIL", (1e-5, 1e-3))
    monkeypatch.setattr(growth, "ROUNDS", 20)
    report = farther(people)
    measured = grow(people, (10_000,), None, quiet)["10000"]
    thresholds = [each["threshold"]["value"] for each in report.values()]
    assert thresholds == sorted(thresholds)
    assert measured["threshold"] < thresholds[0] <= 1
    for each in report.values():
        assert each["tpir"]["low"] <= each["tpir"]["value"] <= each["tpir"]["high"]
        assert each["tpir"]["value"] <= measured["tpir"]["value"]


def test_a_memory_of_fixed_size_forgets_whom_it_has_no_room_for():
    rows = made_up(80, 8)
    faces = Faces(
        tuple(each[:4] for each in rows.values()),
        tuple(each[4:] for each in rows.values()),
        np.stack([each[0] for each in made_up(50, 1, seed=9).values()]),
    )
    report = slots.compare(faces, 0.01)
    assert report["gallery"]["rows"] == 320
    assert report["4 slots each"]["forgotten"] == 0
    assert report["4 slots each"]["rank1"] > 0.9
    assert report["0.25 slots each"]["forgotten"] > 0.9, "20 slots hold four photos each of the last five"
    assert report["0.25 slots each"]["rank1"] < 0.1 < report["1 slots each"]["rank1"] < 0.3
    assert report["1 slots each"]["bytes"] < report["gallery"]["bytes"]


def test_too_few_people_are_refused():
    with pytest.raises(MediaError, match="20 of each are needed"):
        halves({"a": (Path("a/1"),)}, {Path("a/1"): unit(np.ones(DIM))})


def test_the_command_answers_on_real_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path):
    monkeypatch.setattr(growth, "LEAST", 3)
    monkeypatch.setattr(growth, "TAIL_DRAWS", 50_000)
    monkeypatch.setattr(growth, "TAIL", (1e-4, 1e-2))
    for subject in range(1, 33):
        for number in range(1, 4 if subject % 3 else 2):
            folder = tmp_path / "images" / f"S{subject:02}"
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number}.png"), read_photo(orl_photo(media, subject, number)))
    monkeypatch.setenv("EDGE_MODELS_DIR", str(load().models_path))
    monkeypatch.setenv("EDGE_STATE_DIR", str(tmp_path / "state"))
    out = ["--json-file", str(tmp_path / "out.json"), "--plots", str(tmp_path)]
    run("evaluate", "growth", "--images", str(tmp_path / "images"), "--most", "1000", *out)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["schema"] == "edge.evaluate.growth/1"
    assert list(report["sizes"]) == ["32", "64", "128"]
    assert report["sizes"]["128"]["10"]["rank1"] > 0.9
    assert report["lookup_ms"]["1000"] > 0
    picture = cv2.imread(str(tmp_path / "growth.png"))
    assert picture is not None
    assert picture.std() > 5
