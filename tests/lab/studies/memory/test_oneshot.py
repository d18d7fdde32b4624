"""The one-shot experiment on made-up embeddings with a known answer, and the command on the ORL photos."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.photo import read_photo
from edge.core.errors import MediaError
from edge.device.settings.load import load
from edge.gallery.decision import Calibration
from edge.lab.demo.media import orl_photo
from edge.lab.studies.memory.oneshot import Faces, measure, measure_growth, split, variants
from edge.lab.studies.memory.siamese import measure_lists
from tests.support.command_line import run
from tests.support.gallery_samples import unit_rows

DIM = 128


def nothing(what: str, done: float, total: float) -> None:
    """Show no progress."""


@pytest.fixture(scope="module")
def faces() -> Faces:
    """Forty subjects with eight photos, cosine about .6, and two hundred strangers."""
    generator = np.random.default_rng(1)
    noise = generator.standard_normal((40, 8, DIM)) * 0.07
    rows = unit_rows(40, DIM)[:, None] + noise
    rows = (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float32)
    return Faces(tuple(rows[:, :4]), tuple(rows[:, 4:]), unit_rows(200, DIM, seed=9))


def test_photos_are_divided_into_pools_probes_and_strangers():
    everybody = {f"known-{i}": [Path(f"{i}-{j}") for j in range(3)] for i in range(10)}
    everybody |= {f"single-{i}": [Path(f"single-{i}")] for i in range(10)}
    everybody |= {"unseen": [Path("u1"), Path("u2")]}
    embeddings = {
        path: None if path.name.startswith("u") else unit_rows(1, seed=hash(path) % 1000)[0]
        for photos in everybody.values()
        for path in photos
    }
    faces = split(everybody, embeddings)
    assert [len(pool) for pool in faces.pools] == [1] * 10
    assert [len(probes) for probes in faces.probes] == [2] * 10
    assert faces.labels.tolist() == [i for i in range(10) for _ in range(2)]
    assert len(faces.strangers) == 10
    with pytest.raises(MediaError, match="too few"):
        split({"one": [Path("0-0")]}, embeddings)


def test_every_way_to_keep_subjects_is_measured_on_the_same_probes(faces: Faces):
    report = measure(faces, variants(faces, 60, 3, nothing))
    assert [name for name in report if name.startswith("softmax")] == [
        "softmax, 1 photo",
        "softmax, 3 photos",
        "softmax, all photos",
    ]
    rows = {name: each["rows"] for name, each in report.items()}
    assert (rows["1 template"], rows["all photos as rows"], rows["softmax, 1 photo"]) == (40, 160, 60)
    assert report["mean of 3"]["tpir"]["0.01"] >= report["1 template"]["tpir"]["0.01"]
    for each in report.values():
        assert each["rank1"] > 0.95
        assert each["ms_lookup"] > 0
        assert each["bytes"] >= 4 * DIM * each["rows"]
    assert report["1 template"]["train_s"] == 0 < report["softmax, 1 photo"]["train_s"]


def test_enrolling_damages_nobody_and_fine_tuning_on_one_does(faces: Faces, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edge.lab.studies.memory.oneshot.NEWCOMERS", 5)
    report = measure_growth(faces, 60, 3, nothing)
    for name in ("enrol", "mean into a spare logit", "fine-tune on everybody"):
        assert report[name]["newcomer_rank1"] == 1
        assert abs(report[name]["others_rank1_change"]) < 0.02
        assert report[name]["newcomers"] == 5
    assert report["fine-tune on the newcomer"]["others_claimed"] > report["enrol"]["others_claimed"]
    assert report["retrain from nothing"]["ms"] > report["enrol"]["ms"]


def test_a_fixed_threshold_lets_more_strangers_in_the_longer_the_list(faces: Faces):
    scores = np.sort((faces.strangers @ faces.strangers.T)[np.triu_indices(200, 1)])[::-1]
    rates = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    table = Calibration([float(scores[int(rate * len(scores))]) for rate in rates], rates)
    report = measure_lists(faces, table)
    assert list(report) == ["10", "40"]
    assert report["40"]["one_to_one"]["fpir"] > 2 * report["10"]["one_to_one"]["fpir"] > 0.1
    assert report["40"]["needed"]["fpir"] <= 0.01
    assert report["40"]["rule"]["fpir"] < 0.05
    assert report["40"]["ms_one_by_one"] > report["40"]["ms_product"]


def test_the_command_answers_on_real_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path):
    for subject in range(1, 25):
        for number in range(1, 9 if subject <= 12 else 2):
            folder = tmp_path / "images" / f"S{subject:02}"
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number}.png"), read_photo(orl_photo(media, subject, number)))
    monkeypatch.setenv("EDGE_MODELS_DIR", str(load().models_path))
    monkeypatch.setenv("EDGE_STATE_DIR", str(tmp_path / "state"))
    arguments = ["--images", str(tmp_path / "images"), "--logits", "14", "--spare", "4"]
    out = ["--json-file", str(tmp_path / "out.json"), "--plots", str(tmp_path)]
    run("evaluate", "oneshot", *arguments, *out)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["schema"] == "edge.evaluate.oneshot/1"
    assert (report["subjects"], report["left_out"], report["strangers"]) == (10, 2, 12)
    assert report["variants"]["1-3 prototypes"]["rank1"] > 0.95
    assert report["growth"]["enrol"]["newcomer_rank1"] > 0.9
    picture = cv2.imread(str(tmp_path / "oneshot.png"))
    assert picture is not None
    assert picture.std() > 5
