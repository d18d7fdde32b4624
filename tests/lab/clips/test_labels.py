"""The labels of clips: what they say, and one clear line for everything they cannot."""

from pathlib import Path

import pytest

from edge.core.errors import ConfigError
from edge.core.types import EventType
from edge.lab.clips.labels import check_subjects, read_labels, truths

GOOD = """
[subjects.alice]
photos = ["alice.jpg"]

[[clips]]
file = "door.mp4"
without = []
[[clips.visits]]
subject = "stranger"
from_s = 7.0
[[clips.visits]]
subject = "alice"
from_s = 1.0
until_s = 5.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("alice.jpg", "door.mp4"):
        (tmp_path / name).touch()
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "labels.toml"
    path.write_text(text)
    return path


def test_visits_come_in_order_with_what_is_expected_of_each(folder: Path):
    labels = read_labels(written(folder, GOOD))
    alice, stranger = truths(labels.clips[0])
    assert (alice.subject, alice.from_s, alice.until_s, alice.expected) == ("alice", 1, 5, EventType.MATCH)
    assert (stranger.subject, stranger.until_s, stranger.expected) == (None, float("inf"), EventType.REJECT)
    assert labels.clips[0].file == folder / "door.mp4"
    check_subjects(folder, labels, labels.subjects.__contains__)


def test_who_is_taken_out_of_the_gallery_is_a_stranger(folder: Path):
    labels = read_labels(written(folder, GOOD.replace("without = []", 'without = ["alice"]')))
    assert [truth.expected for truth in truths(labels.clips[0])] == [EventType.REJECT] * 2


def test_paths_may_start_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    path = written(tmp_path_factory.mktemp("labels"), GOOD)
    assert read_labels(path, folder).clips[0].file == folder / "door.mp4"
    with pytest.raises(ConfigError, match="no such file"):
        read_labels(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("[[clips", "not valid TOML", id="no TOML"),
        pytest.param("", "clips: missing", id="nothing"),
        pytest.param(GOOD.replace("from_s = 1.0", 'from_s = "1"'), "clips.0.visits.1.from_s", id="text"),
        pytest.param(GOOD.replace("from_s = 1.0", "from_s = nan"), "clips.0.visits.1.from_s", id="NaN"),
        pytest.param(GOOD.replace("until_s = 5.0", "until_s = 0.5"), "later than from_s", id="backwards"),
        pytest.param(GOOD.replace("until_s", "till_s"), "unknown key", id="misspelt"),
        pytest.param(
            GOOD.replace("[subjects.alice]", "[subjects.stranger]"), "call the subject", id="reserved"
        ),
        pytest.param(GOOD.replace('photos = ["alice.jpg"]', ""), "give photos", id="nobody to enrol"),
        pytest.param(GOOD.replace("alice.jpg", "bob.jpg"), "bob.jpg: no such file", id="photo absent"),
        pytest.param(GOOD.replace("door.mp4", "gone.mp4"), "clips.0.file", id="clip absent"),
        pytest.param(
            GOOD.replace('subject = "stranger"', 'subject = "stranger"\nexpect = "match"'),
            "a stranger cannot be a match",
            id="a stranger as a match",
        ),
        pytest.param('[[clips]]\nfile = "door.mp4"', "visits = []", id="no visits"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder: Path, text: str, says: str):
    with pytest.raises(ConfigError) as caught:
        read_labels(written(folder, text))
    assert says in str(caught.value)
    assert "labels.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GOOD.replace('subject = "alice"', 'subject = "bob"'), id="a visit of nobody"),
        pytest.param(GOOD.replace("without = []", 'without = ["bob"]'), id="without nobody"),
    ],
)
def test_a_name_that_is_not_enrolled_is_found(folder: Path, text: str):
    labels = read_labels(written(folder, text))
    with pytest.raises(ConfigError, match="'bob' is not enrolled"):
        check_subjects(folder / "labels.toml", labels, labels.subjects.__contains__)


def test_a_subject_is_taken_out_once(folder: Path):
    labels = read_labels(written(folder, GOOD.replace("without = []", 'without = ["alice", "alice"]')))
    with pytest.raises(ConfigError, match=r"labels\.toml: clips\.0\.without: a subject is named twice"):
        check_subjects(folder / "labels.toml", labels, labels.subjects.__contains__)
