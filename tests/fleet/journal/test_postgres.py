"""A journal in a real PostgreSQL: several consumers, servers that go, what comes to be asked of it."""

import itertools
import json
import re
import signal
import threading
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.pq import TransactionStatus

from edge.core.errors import JournalAwayError, JournalError
from edge.fleet.journal import postgres
from edge.fleet.journal.decision import JournalDecision
from edge.fleet.journal.postgres import Postgres
from tests.fleet.journal.test_follow import depth, following, kept, publish
from tests.fleet.journal.test_follow import doors as doors
from tests.support.broker import Mosquitto
from tests.support.door import Door
from tests.support.events import AT, decision, event_id
from tests.support.places import ROOT
from tests.support.postgres import running_postgres
from tests.support.waits import wait_until


def opened(database: str, seen: "list[tuple[str, int]] | None" = None, at: datetime = AT) -> Postgres:
    noted = [] if seen is None else seen
    return Postgres.open(database, lambda source, seq: noted.append((source, seq)), lambda: at)


def asked(database: str, query: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(query).fetchall()


def test_every_decision_is_new_once_and_the_next_consumer_knows_how_far_each_door_has_come(database: str):
    with closing(opened(database)) as store:
        assert store.add([decision(1), decision(2), decision(1)]) == [decision(1), decision(2)]
        assert store.add([decision(2), decision(1, "door-04")]) == [decision(1, "door-04")]
        assert sorted(store.numbers([])) == [("hq/door-03", 1), ("hq/door-03", 2), ("hq/door-04", 1)]
    seen: list[tuple[str, int]] = []
    with closing(opened(database, seen)) as store:
        assert sorted(seen) == [("hq/door-03", 2), ("hq/door-04", 1)]
        assert store.numbers([]) == []
        assert store.add([decision(2), decision(3)]) == [decision(3)]


def test_what_others_keep_counts_for_gaps_once_it_is_committed(database: str):
    with closing(opened(database)) as one, closing(opened(database)) as other:
        assert one.add([decision(1)]) == [decision(1)]
        assert other.add([decision(1), decision(2)]) == [decision(2)]
        assert sorted(one.numbers([])) == sorted(other.numbers([])) == [("hq/door-03", 1), ("hq/door-03", 2)]
        with psycopg.connect(database) as slow:
            slow.execute("SELECT pg_current_xact_id()")
            one.add([decision(3)])
            assert other.numbers([]) == []
        assert other.numbers([]) == [("hq/door-03", 3)]


def test_consumers_with_the_same_decisions_in_another_order_keep_each_once(database: str):
    decisions = [decision(seq, f"door-{seq % 5:02}") for seq in range(1, 2001)]
    new: list[JournalDecision] = []

    def keep(given: list[JournalDecision]) -> None:
        with closing(opened(database)) as store:
            for start in range(0, len(given), 100):
                new.extend(store.add(given[start : start + 100]))

    threads = [threading.Thread(target=keep, args=(order,)) for order in (decisions, decisions[::-1]) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(new, key=lambda each: each.seq) == decisions
    assert asked(database, "SELECT count(*), count(DISTINCT event_id) FROM decision") == [(2000, 2000)]


def test_what_is_asked_most_has_a_view(database: str):
    with closing(opened(database)) as store:
        store.add(
            [
                decision(1),
                decision(2, event_type="reject", subject=None, reason="below_threshold"),
                decision(5, event_type="reject", subject=None, reason="below_threshold"),
                decision(6, captured_at="yesterday"),
            ]
        )
        store.add([decision(1, "door-04")])
    who = asked(
        database, "SELECT captured_at, site, device, camera, subject_id, label, score FROM who_was_where"
    )
    at = datetime(2026, 8, 1, 7, 31, 22, 481000, tzinfo=UTC)
    assert (at, "hq", "door-03", "front", "p_8f21", "Alice", 0.61) in who
    assert (None, "hq", "door-03", "front", "p_8f21", "Alice", 0.61) in who
    assert asked(database, "SELECT source, last_received_at FROM silent_door ORDER BY 1") == [
        ("hq/door-03", AT),
        ("hq/door-04", AT),
    ]
    assert asked(database, "SELECT source, reason, decisions FROM reject_reason") == [
        ("hq/door-03", "below_threshold", 2)
    ]
    assert asked(database, "SELECT * FROM gap") == [("hq/door-03", 3, 4)]


def test_who_was_refused_at_first_and_recognised_then_is_no_reject(database: str):
    refused = {"event_type": "reject", "subject": None, "reason": "below_threshold"}
    with closing(opened(database)) as store:
        store.add([decision(1, **refused), decision(2, **refused), decision(1, "door-04", **refused)])
        store.add([decision(3, revises=event_id(1))])
    assert asked(database, "SELECT source, sum(decisions) FROM reject_reason GROUP BY 1 ORDER BY 1") == [
        ("hq/door-03", 1),
        ("hq/door-04", 1),
    ]


def test_a_door_that_does_not_know_the_time_is_shown_when_its_decision_came(database: str):
    with closing(opened(database)) as store:
        store.add([decision(1, clock="unsynced", captured_at="1970-01-01T00:03:00.000Z"), decision(2)])
    assert asked(database, "SELECT at FROM who_was_where") == [
        (datetime(2026, 8, 1, 7, 31, 22, 481000, tzinfo=UTC),),
        (AT,),
    ]


def test_a_new_outbox_hides_no_gap_and_makes_none(database: str):
    base = 1_795_000_000_000_000
    with closing(opened(database)) as store:
        store.add([decision(seq) for seq in (1, 2, 3, 6, 7, 8)])
        store.add([decision(seq, event_id=event_id(100 + seq)) for seq in (1, 3, 4)])
        store.add([decision(base, "door-04", event_id=event_id(9)), decision(1, "door-04")])
    assert asked(database, "SELECT * FROM gap ORDER BY 2") == [("hq/door-03", 2, 2), ("hq/door-03", 5, 5)]


def test_how_far_a_door_has_come_is_told_of_its_last_outbox(database: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(postgres, "RECENT", 3)
    with closing(opened(database)) as store:
        store.add([decision(seq) for seq in (500, 501)])
        store.add([decision(seq) for seq in (1, 3, 2)])
    seen: list[tuple[str, int]] = []
    opened(database, seen).close()
    assert seen == [("hq/door-03", 3)]


def test_every_query_of_the_dashboard_is_answered(database: str):
    board = json.loads((ROOT / "deploy/grafana/journal.json").read_text())
    with closing(opened(database)) as store:
        store.add([decision(1), decision(3, event_type="reject", subject=None, reason="below_threshold")])
    for panel in board["panels"]:
        (target,) = panel["targets"]
        query = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 > '2026-07-01'", target["rawSql"])
        assert asked(database, query), panel["title"]


def test_a_subject_who_is_erased_is_in_no_decision(database: str):
    with closing(opened(database)) as store:
        store.add([decision(1), decision(2, subject={"id": "p_2", "label": "Bob"}), decision(3, odd="\0")])
        assert store.erase("p_8f21") == 2
        late = [decision(4, captured_at="2026-07-31T09:00:00Z"), decision(5)]
        assert [each.subject_id for each in store.add(late)] == [None, "p_8f21"], "enrolled again"
        samples = "SELECT most_common_vals::text FROM pg_stats WHERE tablename LIKE 'decision%'"
        assert "Alice" not in str(asked(database, samples))
    found = [str(row) for row in asked(database, "SELECT * FROM decision ORDER BY seq")]
    assert ["p_8f21" in row or "Alice" in row for row in found] == [False] * 4 + [True]
    assert "Bob" in found[1]


def test_months_that_are_too_old_go_whole_and_what_is_left_of_the_next_by_row(database: str):
    for seq, days in ((1, 0), (2, 31), (3, 32), (4, 60)):
        with closing(opened(database, at=AT + timedelta(days=days))) as store:
            store.add([decision(seq)])
    months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'decision'::regclass"
    assert asked(database, months) == [(3,)], "August to October; the next month is there before it begins"
    with closing(opened(database, at=AT + timedelta(days=60))) as store:
        assert store.prune(AT + timedelta(days=31, hours=1)) == 2
        assert store.add([decision(5)]) == [decision(5)]
    assert asked(database, months) == [(2,)]
    assert asked(database, "SELECT seq FROM decision ORDER BY 1") == [(3,), (4,), (5,)]
    assert asked(database, "SELECT seq FROM known ORDER BY 1") == [(3,), (4,), (5,)]


EXAMPLES = itertools.count()


def test_a_door_whose_decisions_are_all_too_old_is_silent_and_not_forgotten(database: str):
    with closing(opened(database)) as store:
        store.add([decision(1), decision(2), decision(7, "door-04")])
        assert [store.prune(AT + timedelta(days=400)) for _ in range(2)] == [3, 0]
        assert store.add([decision(2)]) == []
    assert asked(database, "SELECT * FROM decision") == []
    assert asked(database, "SELECT source, last_received_at FROM silent_door ORDER BY 1") == [
        ("hq/door-03", AT),
        ("hq/door-04", AT),
    ]
    seen: list[tuple[str, int]] = []
    opened(database, seen).close()
    assert sorted(seen) == [("hq/door-03", 2), ("hq/door-04", 7)]


def test_a_partition_that_somebody_else_made_is_left_alone(database: str):
    with closing(opened(database)) as store:
        store.add([decision(1)])
        with psycopg.connect(database) as connection:
            connection.execute("CREATE TABLE other PARTITION OF decision DEFAULT")
        assert store.prune(AT + timedelta(days=400)) == 1
    assert asked(database, "SELECT to_regclass('other') IS NOT NULL") == [(True,)]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    odd=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    ).filter(lambda value: "nan" not in repr(value) and "inf" not in repr(value)),
    captured_at=st.text(max_size=30),
)
def test_whatever_a_device_says_is_kept(database: str, odd: Any, captured_at: str):
    with closing(opened(database)) as store:
        first = 2 * next(EXAMPLES) + 1
        try:
            said = [decision(first, odd=odd, captured_at=captured_at), decision(first + 1)]
        except (JournalError, UnicodeEncodeError):
            return
        assert store.add(said) == said


def test_a_number_beyond_all_numbers_is_kept_as_none(database: str):
    with closing(opened(database)) as store:
        plain = decision(1, odd=123456)
        huge = type(plain)(
            *(getattr(plain, name) for name in plain.__slots__[:6]),
            plain.text.replace("123456", "Infinity"),
            "",
        )
        assert store.add([huge]) == [huge]
    assert asked(database, "SELECT event -> 'odd' FROM decision") == [(None,)]


def test_the_schema_of_an_earlier_release_is_brought_up_and_of_a_later_one_refused(
    database: str, monkeypatch: pytest.MonkeyPatch
):
    with closing(opened(database)) as store:
        store.add([decision(1)])
    more = "ALTER TABLE known ADD COLUMN note text; CREATE VIEW newer AS SELECT count(*) AS n FROM known"
    with monkeypatch.context() as later:
        later.setattr(postgres, "MIGRATIONS", (*postgres.MIGRATIONS, more))
        with closing(opened(database)) as store:
            assert store.add([decision(1), decision(2)]) == [decision(2)]
        assert asked(database, "SELECT n FROM newer") == [(2,)]
    with pytest.raises(JournalError, match="its schema 2 is of a later release"):
        opened(database)


def test_a_database_of_something_else_is_left_alone(database: str):
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE decision (what text)")
    with pytest.raises(JournalError, match="its tables are of something else; name another database"):
        opened(database)
    assert asked(database, "SELECT to_regclass('known'), to_regclass('edge_journal')") == [(None, None)]


def test_who_may_not_write_is_told_so(database: str, postgres_server: Any):
    with closing(opened(database)), psycopg.connect(database) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN")
    with pytest.raises(JournalError, match="permission denied") as caught:
        opened(database.replace("postgres@", "reader:secret@"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("commits", [True, False])
def test_where_nobody_heard_whether_a_commit_was_done_the_decisions_are_kept_and_still_new(
    database: str, commits: bool
):
    with closing(opened(database)) as store:
        store.add([decision(1)])
        assert store._connection is not None
        transaction = store._connection.transaction

        def cut_off(*args: Any, **options: Any) -> Any:
            outer = store._connection.info.transaction_status == TransactionStatus.IDLE
            found = transaction(*args, **options)
            return CutOff(found, commits) if outer else found

        store._connection.transaction = cut_off  # type: ignore[method-assign]
        with pytest.raises(JournalAwayError):
            store.add([decision(2), decision(3)])
        assert store.add([decision(2), decision(3)]) == [decision(2), decision(3)]
        assert store.add([decision(2), decision(3)]) == []
    assert asked(database, "SELECT seq FROM decision ORDER BY 1") == [(1,), (2,), (3,)]


class CutOff:
    """A transaction of which the client never hears whether the server has committed it."""

    def __init__(self, transaction: Any, commits: bool) -> None:
        self._transaction = transaction
        self._commits = commits

    def __enter__(self) -> Any:
        return self._transaction.__enter__()

    def __exit__(self, *error: Any) -> None:
        lost = psycopg.OperationalError("server closed the connection unexpectedly")
        self._transaction.__exit__(*error if self._commits else (type(lost), lost, None))
        if error[0] is None:
            raise lost


def test_two_consumers_share_the_work_while_all_around_them_is_killed(
    tmp_path: Path, mosquitto: Mosquitto, doors: list[Door]
):
    with running_postgres(durable=True) as server, ExitStack() as stack:
        database = server.database()
        options = ("--to", database, "--ack", "--share", "keepers")
        followers = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            followers.append(stack.enter_context(following(tmp_path / name, mosquitto.port, *options)))
        decided = publish(doors, 30)
        wait_until(lambda: sum(len(each.lines()) for each in followers) >= 60)
        assert all(each.lines() for each in followers), "both have their share"
        decided |= publish(doors, 60)
        server.kill()
        decided |= publish(doors, 10)
        wait_until(lambda: all("trying again" in each.told() for each in followers))
        server.start()
        followers[0].end(signal.SIGKILL)
        decided |= publish(doors, 30)
        mosquitto.restart()
        wait_until(lambda: depth(doors) == 0, what="every decision is acknowledged")
        assert kept(database) == sorted(decided)
        assert asked(database, "SELECT * FROM gap") == []
        assert followers[1].end() == 0
        assert "there again" in followers[1].told()
        assert "begin again" not in followers[1].told()
        assert "0 missing in gaps" in followers[1].told().splitlines()[-1]
