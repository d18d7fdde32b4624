"""The promise by group: on people who are as alike as is known, labels with mistakes, and the command."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.camera.photo import read_photo
from edge.core.errors import MediaError
from edge.core.types import FloatArray
from edge.gallery.decision import DecisionRule
from edge.lab.demo.media import orl_photo
from edge.lab.photos.calibration import calibrate
from edge.lab.studies.groups import compare, large_enough, read_labels
from tests.lab.photos.test_tail import DIM
from tests.support.command_line import invoke, run, run_json
from tests.support.gallery_samples import unit_rows

TABLE = calibrate(unit_rows(400, DIM, seed=1), "random directions").calibration
RULE = DecisionRule(0.5, None, 0.0, TABLE)


@pytest.fixture(autouse=True)
def few_galleries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.lab.studies.groups.ROUNDS", 60)
    monkeypatch.setattr("edge.lab.studies.groups.DRAWS", 30)


def unlike(count: int, seed: int) -> FloatArray:
    return unit_rows(count, DIM, seed)


def alike(count: int, seed: int) -> FloatArray:
    rows = unit_rows(count, DIM, seed) + 0.3 * unit_rows(1, DIM, seed=99)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def judge(groups: dict[str, FloatArray], second: bool = False) -> dict[str, Any]:
    photos, embeddings = {}, {}
    for name, rows in groups.items():
        for number, row in enumerate(rows):
            photos[f"{name}{number}"] = paths = [Path(f"{name}{number}-{i}.jpg") for i in range(1 + second)]
            embeddings |= dict.fromkeys(paths, row)
    who = {name: [f"{name}{number}" for number in range(len(rows))] for name, rows in groups.items()}
    return compare(photos, who, embeddings, RULE, (0.01, 0.003), 40, lambda *_: None)


def test_people_as_unlike_as_in_the_calibration_get_what_is_promised():
    figures = judge({"unlike": unlike(400, seed=2)})["unlike"]
    assert (figures["subjects"], figures["photos"]) == (400, 400)
    for target in ("0.01", "0.003"):
        without_shift = figures[target]["without_shift"]
        low, high = without_shift["times_interval"]
        assert low < 1 < high
        assert low <= without_shift["times_promised"] <= high
        assert without_shift["tpir"] is None
    assert figures["0.01"]["shift"][0] < 0.02


def test_look_alikes_are_let_in_more_often_and_a_shift_of_the_gallery_mends_it():
    figures = judge({"alike": alike(300, seed=3)})["alike"]
    without_shift, shifted = figures["0.01"]["without_shift"], figures["0.01"]["with_shift"]
    assert without_shift["times_interval"][0] > 3
    assert shifted["times_promised"] < without_shift["times_promised"] / 3
    assert figures["0.01"]["shift"][1] > 0.05


def test_the_interval_holds_what_more_people_show():
    truth = judge({"many": alike(2000, seed=4)})["many"]["0.01"]["without_shift"]["times_promised"]
    held = 0
    for seed in range(10, 18):
        low, high = judge({"few": alike(120, seed)})["few"]["0.01"]["without_shift"]["times_interval"]
        held += low <= truth <= high
    assert held >= 6


def test_where_nobody_is_let_in_the_interval_says_how_little_that_proves():
    rows = np.eye(128, dtype=np.float32)[:90]
    figures = judge({"nobody": rows}, second=True)["nobody"]["0.01"]["without_shift"]
    assert (figures["fpir"], figures["tpir"]) == (0, 1)
    assert figures["fpir_interval"] == [0, pytest.approx(3.84 / (90 + 3.84), abs=1e-3)]


def labelled(folder: Path, *lines: str, photos: int = 3) -> tuple[Path, Path]:
    for number in range(photos):
        (folder / f"{number}.jpg").write_bytes(b"x")
    labels = folder / "labels.csv"
    labels.write_text("\n".join(lines) + "\n")
    return folder, labels


def test_labels_divide_people_by_each_column_and_an_empty_cell_is_in_no_group(tmp_path: Path):
    found = read_labels(
        *labelled(
            tmp_path,
            "photo,subject,age,light",
            *("0.jpg,a,6-9,hard", "1.jpg,a,6-9,hard", "2.jpg,b,10-13,", "3.jpg,c,6-9,soft"),
            photos=5,
        )
    )
    assert {who: [path.name for path in photos] for who, photos in found.photos.items()} == {
        "a": ["0.jpg", "1.jpg"],
        "b": ["2.jpg"],
        "c": ["3.jpg"],
    }
    assert found.groups == {
        "age: 6-9": ["a", "c"],
        "age: 10-13": ["b"],
        "light: hard": ["a"],
        "light: soft": ["c"],
    }
    assert list(found.groups)[:2] == ["age: 6-9", "age: 10-13"]
    assert [path.name for path in found.unlabelled] == ["4.jpg"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["picture,age", "0.jpg,6"], "the first line must name columns; photo is needed"),
        (["photo,subject", "0.jpg,a"], "name a column besides photo and subject, such as age"),
        (["photo,age"], "no rows with groups"),
        (["photo,age", "0.jpg,6", "9.jpg,6", "8.jpg,6"], "2 photos are not below .*, first line 3: 9.jpg"),
        (["photo,age", ",6"], "line 2: a row needs a photo"),
        (["photo,subject,age", "0.jpg,,6"], "line 2: a row needs a photo, and a subject"),
        (
            ["photo,subject,age", "0.jpg,a,6", "1.jpg,a,7"],
            "line 3: age is '7' here and '6' in an earlier line",
        ),
    ],
)
def test_labels_with_a_mistake_are_refused_in_one_line(tmp_path: Path, lines: list[str], told: str):
    with pytest.raises(MediaError, match=told) as refused:
        read_labels(*labelled(tmp_path, *lines))
    assert "\n" not in str(refused.value)


def test_a_line_that_ends_early_has_empty_cells_and_takes_no_column_from_the_others(tmp_path: Path):
    lines = ("photo,subject,age,light", "0.jpg,a,6-9,hard", "1.jpg,b,6-9", "2.jpg,c")
    found = read_labels(*labelled(tmp_path, *lines))
    assert found.groups == {"age: 6-9": ["a", "b"], "light: hard": ["a"]}
    with pytest.raises(MediaError, match="line 3: a row needs a photo, and a subject"):
        read_labels(*labelled(tmp_path, *lines[:2], "1.jpg"))


def test_groups_that_are_too_small_are_left_out_and_none_at_all_is_refused(tmp_path: Path):
    lines = [f"0.jpg,{number},{'a' if number < 45 else 'b'}" for number in range(85)]
    found = read_labels(*labelled(tmp_path, "photo,subject,kind", *lines))
    usable, small = large_enough(found, 40)
    assert {name: len(who) for name, who in usable.items()} == {"everybody": 85, "kind: a": 45}
    assert small == {"kind: b": 40}
    with pytest.raises(MediaError, match=r"no group has 46 people .* kind: a, has 45"):
        large_enough(found, 41)


def test_the_command_tells_each_group_and_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path
):
    lines = ["photo,subject,half"]
    for subject in range(1, 41):
        for number in (1, 2):
            name = f"{subject:02}_{number}.png"
            cv2.imwrite(str(tmp_path / name), read_photo(orl_photo(media, subject, number)))
            lines.append(f"{name},s{subject},{'all' if subject < 41 else ''}")
    cv2.imwrite(str(tmp_path / "more.png"), read_photo(orl_photo(media, 1, 3)))
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(lines))
    out, plots = tmp_path / "out.json", tmp_path / "plots"
    asked = ("evaluate", "groups", "--images", tmp_path, "--labels", labels, "--enrolled")
    told = run(*asked, "20", "--target-fpir", "0.05", "--json-file", out, "--plots", plots)
    assert "1 photos below" in told
    assert "half: all" in told
    report = json.loads(out.read_text())
    assert (report["schema"], report["left_out"]["unlabelled"]) == ("edge.evaluate.groups/1", 1)
    figures = report["groups"]["half: all"]
    assert (figures["subjects"], figures["photos"]) == (40, 80)
    assert figures["0.05"]["without_shift"]["tpir"] > 0.9
    picture = cv2.imread(str(plots / "groups.png"))
    assert picture is not None
    assert picture.std() > 5
    [few] = run_json(*asked, "30", "--target-fpir", "0.05", "--json")
    few = few["groups"]["half: all"]
    low, high = few["0.05"]["with_shift"]["fpir_interval"]
    assert low <= few["0.05"]["with_shift"]["fpir"] <= high
    refused = invoke(*asked, "36")
    assert isinstance(refused.exception, MediaError)
