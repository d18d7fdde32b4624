"""Where decisions are kept: each once, for good, over restarts."""

import json
import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from edge.core.errors import JournalError
from edge.fleet.journal.database import Database
from edge.fleet.journal.store import JsonLines, MemoryStore, Store
from tests.support.events import AT, decision, event_id

Open = Callable[[list[tuple[str, int]]], Store]


@pytest.fixture(params=["jsonl", "sqlite"])
def open_file(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    path = tmp_path / f"journal.{request.param}"

    def reopen(seen: list[tuple[str, int]]) -> Store:
        saw = lambda source, seq: seen.append((source, seq))  # noqa: E731
        if request.param == "jsonl":
            return JsonLines.open(path, saw)
        return Database.open(path, saw, lambda: AT)

    return reopen


def test_every_decision_is_new_once_over_restarts_too(open_file: Open):
    seen: list[tuple[str, int]] = []
    with closing(open_file(seen)) as store:
        assert store.add([decision(1), decision(2), decision(1)]) == [decision(1), decision(2)]
        assert store.add([decision(2), decision(3)]) == [decision(3)]
    assert seen == []
    with closing(open_file(seen)) as store:
        assert seen == [("hq/door-03", 1), ("hq/door-03", 2), ("hq/door-03", 3)]
        assert store.add([decision(3), decision(4)]) == [decision(4)]


def test_a_device_cannot_hide_the_decisions_of_another(open_file: Open):
    with closing(open_file([])) as store:
        assert len(store.add([decision(1), decision(1, "door-04")])) == 2


@pytest.mark.parametrize("rows", [30, 500])
def test_a_disk_that_takes_no_more_keeps_nothing_and_says_so(open_file: Open, rows: int):
    with closing(open_file([])) as store:
        store.add([decision(1)])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        many = [decision(seq) for seq in range(2, rows)]
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
            with pytest.raises(JournalError, match=r"journal\.(jsonl|sqlite): "):
                store.add(many)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert store.add([decision(1), *many]) == many
    seen: list[tuple[str, int]] = []
    open_file(seen).close()
    assert [seq for _, seq in seen] == [1, *range(2, rows)]


def test_a_line_that_a_crash_cut_off_is_removed(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with closing(JsonLines.open(path, print)) as store:
        store.add([decision(1), decision(2)])
    path.write_bytes(path.read_bytes()[:-20])
    with closing(JsonLines.open(path, print)) as store:
        assert store.add([decision(1), decision(2)]) == [decision(2)]
    assert [line.count(event_id(n)) for n, line in enumerate(path.read_text().splitlines(), 1)] == [1, 1]


def test_two_processes_do_not_append_to_one_file(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with closing(JsonLines.open(path, print)), pytest.raises(JournalError, match="another process appends"):
        JsonLines.open(path, print)


def test_a_database_can_be_asked(tmp_path: Path):
    path = tmp_path / "journal.sqlite"
    with closing(Database.open(path, print, lambda: AT)) as store:
        store.add([decision(1)])
    with closing(sqlite3.connect(path)) as database:
        found = database.execute(
            "SELECT source, event ->> '$.subject.id', received_at FROM decision"
        ).fetchall()
    assert found == [("hq/door-03", "p_8f21", "2026-08-01T07:31:22.000Z")]


def test_a_subject_who_is_erased_is_in_no_decision_and_old_ones_go(tmp_path: Path):
    with closing(Database.open(tmp_path / "journal.sqlite", print, lambda: AT)) as store:
        store.add(
            [decision(1), decision(2, subject={"id": "p_2", "label": "Bob"}), decision(3, subject=None)]
        )
        assert store.erase("p_8f21") == 1
        events = [row[0] for row in store._connection.execute("SELECT event FROM decision ORDER BY seq")]
        assert ["Alice" in event for event in events] == [False] * 3
        files = b"".join(each.read_bytes() for each in tmp_path.iterdir())
        assert (b"Alice" in files, b"p_8f21" in files, b"Bob" in files) == (False, False, True)
        assert [json.loads(event)["subject"] for event in events] == [
            None,
            {"id": "p_2", "label": "Bob"},
            None,
        ]
        late = [decision(4, captured_at="2026-07-31T09:00:00Z"), decision(5)]
        assert [each.subject_id for each in store.add(late)] == [None, "p_8f21"], "enrolled again"
        assert store.prune(AT) == 0
        assert store.prune(AT + timedelta(seconds=1)) == 5


def text(path: Path) -> None:
    path.write_text("dear diary\n")


def other_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE decision (what TEXT)")


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        pytest.param("a.jsonl", text, "line 1: no event", id="a text"),
        pytest.param("a.sqlite", text, "file is not a database", id="no database"),
        pytest.param("a.sqlite", other_table, "name another file", id="another database"),
        pytest.param("no/a.jsonl", None, "No such file", id="lines in no folder"),
        pytest.param("no/a.sqlite", None, "unable to open", id="database in no folder"),
        pytest.param("a.jsonl", Path.mkdir, "Is a directory", id="a folder"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_and_left_alone(
    tmp_path: Path, name: str, make: Callable[[Path], None] | None, says: str
):
    path = tmp_path / name
    if make is not None:
        make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(JournalError, match=says) as caught:
        JsonLines.open(path, print) if path.suffix == ".jsonl" else Database.open(path, print, lambda: AT)
    assert str(path) in str(caught.value)
    assert before is None or path.suffix == ".sqlite" or path.read_bytes() == before


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edge.fleet.journal.store.MAX_REMEMBERED", 3)
    store = MemoryStore()
    store.add([decision(seq) for seq in range(1, 6)])
    assert store.add([decision(5), decision(1)]) == [decision(1)]
    store.close()
