"""edge evaluate clips on the real clips, with the labels that the project ships."""

import json
from pathlib import Path

import cv2
import pytest

from edge.core.errors import ConfigError
from edge.device.settings.load import load
from tests.support.command_line import invoke
from tests.support.places import ROOT

LABELS = ROOT / "deploy" / "clips.example.toml"


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: Path, *arguments: str):
    monkeypatch.setenv("EDGE_MODELS_DIR", str(load().models_path))
    monkeypatch.setenv("EDGE_STATE_DIR", str(tmp_path / "state"))
    return invoke("evaluate", "clips", labels, *arguments)


def test_the_shipped_labels_are_met_on_every_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path
):
    out, video = tmp_path / "out.json", tmp_path / "video"
    arguments = ("--base", str(media), "--json-file", str(out), "--annotate", str(video))
    done = run(tmp_path, monkeypatch, LABELS, *arguments)
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    total = report["sum"]
    assert report["schema"] == "edge.evaluate.clips/1"
    assert (total["clips"], total["visits"], total["correct"]) == (6, 5, 5)
    assert total["expected"] == {"match": 2, "reject": 3, "no_decision": 0, "spoof": 0}
    assert total["duplicated"] == total["unexpected"] == total["missed"] == 0
    assert 0 < total["delay_s"]["match"]["p50"] < 2
    assert total["capture_to_decision_ms"]["n"] == 5
    written = sorted(video.iterdir())
    assert len(written) == 6
    clip = cv2.VideoCapture(str(written[2]))
    assert clip.get(cv2.CAP_PROP_FRAME_COUNT) > 150
    clip.release()


def test_wrong_labels_are_counted_as_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path):
    text = LABELS.read_text().replace('without = ["p-man"]', "").replace("visits = []", "")
    text = text.replace(
        'file = "no_face.mp4"', 'file = "no_face.mp4"\nvisits = [{ subject = "p-man", from_s = 0.0 }]'
    )
    text = text.replace('subject = "stranger"', 'subject = "p-orl-01"', 1)
    labels = tmp_path / "labels.toml"
    labels.write_text(text)
    out = tmp_path / "out.json"
    done = run(tmp_path, monkeypatch, labels, "--base", str(media), "--json-file", str(out))
    assert done.exit_code == 0, done.output
    total = json.loads(out.read_text())["sum"]
    assert (total["missed"], total["false_rejects"], total["correct"]) == (1, 1, 4)


def test_a_visit_after_the_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path):
    labels = tmp_path / "labels.toml"
    labels.write_text(
        '[[clips]]\nfile = "no_face.mp4"\n[[clips.visits]]\nsubject = "stranger"\nfrom_s = 60.0\n'
    )
    done = run(tmp_path, monkeypatch, labels, "--base", str(media))
    assert done.exit_code != 0
    assert "the clip ends at" in str(done.exception)


@pytest.mark.parametrize(
    ("option", "place", "says"),
    [
        pytest.param("--json-file", "absent/out.json", "--json-file: ", id="JSON into no folder"),
        pytest.param("--json-file", ".", "--json-file: ", id="JSON onto a folder"),
        pytest.param("--annotate", "file", "--annotate: ", id="videos into a file"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path, option: str, place: str, says: str
):
    (tmp_path / "file").touch()
    arguments = ("--base", str(media), option, str(tmp_path / place))
    done = run(tmp_path, monkeypatch, LABELS, *arguments)
    assert isinstance(done.exception, ConfigError)
    assert says in str(done.exception)
    assert "face_noface" not in done.output
