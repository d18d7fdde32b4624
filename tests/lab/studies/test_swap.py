"""Clips of looks through the real pipeline: what they say of people who are far apart, and of doubles."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.photo import read_photo
from edge.cli.lab.swap import _pipelines
from edge.core.errors import MediaError
from edge.device.settings.load import load
from edge.lab.demo.media import orl_photo
from edge.lab.photos.embeddings import recognizer_with
from edge.lab.photos.shots import Shot
from edge.lab.studies.swap import GAP_S, Looks, SwapStudy, usable
from edge.recognition.recognizer import Recognizer
from tests.lab.studies.test_gate import quality
from tests.support.command_line import run


@pytest.fixture(scope="module")
def nobody() -> Recognizer:
    return recognizer_with("sface-int8", load())


def people(cosine: float) -> Looks:
    """Four people of five photos; each two people are alike by `cosine`, photos of one by .9."""
    looks: dict[str, list[Shot]] = {}
    random = np.random.default_rng(3)
    for who in range(4):
        looks[f"p{who}"] = []
        for _ in range(5):
            row = np.zeros(128, np.float32)
            row[0], row[1 + who] = np.sqrt(cosine), np.sqrt(1 - cosine)
            noise = random.normal(size=123)
            row[5:] = noise / np.linalg.norm(noise) / 3
            looks[f"p{who}"].append(Shot((row / np.linalg.norm(row)).astype(np.float32), quality(0.8)))
    return looks


def study(looks: Looks, nobody: Recognizer) -> SwapStudy:
    return SwapStudy(looks, nobody, _pipelines(load()))


def test_a_stranger_who_is_somewhat_alike_is_named_by_shots_together_and_not_by_each(nobody: Recognizer):
    report = study(people(0.3), nobody).report()
    assert (report["subjects"], report["pairs"]) == (4, 12)
    assert report["stranger_alone"] == {"strangers": 4, "named": 0}
    assert report["one_shot"]["no gap"]["together"]["wrong_names"] > 0
    for kind in ("no gap", f"gap of {GAP_S} s"):
        assert report["one_shot"][kind]["each"] == {"wrong_names": 0, "other_names": 0}
    alone = report["one_subject"]
    assert alone["each"] == alone["together"]
    assert (alone["each"]["matched"], alone["each"]["matched_twice"]) == (1, 0)


def test_everybody_who_takes_a_place_is_noticed_and_a_subject_matched(nobody: Recognizer):
    taken = study(people(0.2), nobody).report()["place_taken"]
    for kinds in taken.values():
        assert [each["decided_first"] for each in kinds.values()] == [12, 12]
        assert [each["noticed"] for each in kinds.values()] == [1, 1]
        assert [each["matched_after"] for each in kinds.values()] == [0, 1]


def test_a_look_alike_cannot_be_told_apart_and_the_figures_say_so(nobody: Recognizer):
    report = study(people(0.8), nobody).report()
    assert report["stranger_alone"]["named"] == 0, "alike to three at once: ambiguous"
    assert report["place_taken"]["10 frames/s"]["a stranger after a subject"]["noticed"] in (0, None)


def test_too_few_people_are_refused(nobody: Recognizer):
    few = dict(list(people(0.2).items())[:2])
    with pytest.raises(MediaError, match="three or more"):
        study(few, nobody).report()


def test_photos_without_a_usable_shot_are_left_out():
    looks = people(0.2)["p0"]
    paths = [Path(f"{number}.jpg") for number in range(8)]
    shots: dict[Path, Shot | None] = dict(zip(paths, [*looks, None, None, None], strict=True))
    assert usable(shots, {"a": paths, "b": paths[4:]}) == {"a": looks}


def test_the_command_measures_a_folder_of_photos(tmp_path: Path, media: Path):
    for subject in range(1, 4):
        folder = tmp_path / "photos" / f"s{subject}"
        folder.mkdir(parents=True)
        for number in range(1, 5):
            cv2.imwrite(str(folder / f"{number}.png"), read_photo(orl_photo(media, subject, number)))
    out = tmp_path / "swap.json"
    printed = run("evaluate", "swap", "--images", str(tmp_path / "photos"), "--json-file", str(out))
    report = json.loads(out.read_text())
    assert report["schema"] == "edge.evaluate.swap/1"
    assert (report["subjects"], report["pairs"], report["one_subject"]["each"]["visits"]) == (3, 6, 9)
    assert report["one_shot"]["no gap"]["each"]["wrong_names"] == 0
    assert "one subject alone" in str(printed)
