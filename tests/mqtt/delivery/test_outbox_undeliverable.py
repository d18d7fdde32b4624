"""What no broker takes can be seen, put back, and dropped with a count."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import ConfigError
from edge.core.files import sole_daemon
from edge.mqtt.contract.topics import Topics
from edge.mqtt.delivery import courier
from edge.mqtt.delivery.outbox import Changes, Outbox, list_undeliverable
from tests.support.broker import Mosquitto, subscriber
from tests.support.command_line import run_json, write_config
from tests.support.door import Door, make_row, now
from tests.support.waits import wait_until

OWN, OLD = "edge/v1/hq/door-03/camera/front/journal", "edge/v1/hq/door-old/camera/front/journal"


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """The settings of a device with four decisions: two wait, one is too large, one is of an old name."""
    config = write_config(tmp_path, site="hq", device="door-03", state_dir=tmp_path)
    outbox = Outbox.open(tmp_path / "outbox.sqlite", max_rows=100, now=now)
    rows = {seq: make_row(seq, topic=OLD if seq == 3 else OWN) for seq in range(1, 5)}
    outbox.write(Changes(puts=rows))
    outbox.write(Changes(undeliverable={2: "the packet is too large for the broker"}))
    outbox.close()
    return config


def told(config: Path, *options: str, command: str = "undeliverable") -> list[dict[str, Any]]:
    return run_json("journal", command, "--json", *options, config=config)


def state(config: Path) -> tuple[list[int], list[int], int]:
    outbox = Outbox.open(config.parent / "outbox.sqlite", max_rows=100, now=now)
    counts = outbox.counts()
    rows = [row.seq for row in outbox.pending(100)], [row.seq for row, _ in outbox.undeliverable()]
    assert (counts.depth, counts.undeliverable) == (len(rows[0]), len(rows[1]))
    outbox.close()
    return *rows, counts.dropped


def test_they_are_listed_and_left_where_they_are(device: Path):
    found = told(device)
    assert [(each["seq"], each["why"]) for each in found] == [
        (2, "the packet is too large for the broker"),
        (3, "decided as hq/door-old"),
    ]
    assert state(device) == ([1, 3, 4], [2], 0)


def test_the_old_name_of_the_command_still_lists_them_and_says_the_new_one(
    device: Path, caplog: pytest.LogCaptureFixture
):
    assert told(device, command="held") == told(device)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "edge journal held is called edge journal undeliverable; the old name goes with the next release"
    ]


def test_they_are_tried_again(device: Path):
    told(device, "--retry")
    assert state(device) == ([1, 2, 3, 4], [], 0)


def test_they_are_dropped_and_counted_and_the_others_stay(device: Path):
    assert len(told(device, "--drop")) == 2
    assert state(device) == ([1, 4], [], 2)
    assert told(device) == []


@pytest.mark.parametrize(
    ("options", "error"), [(("--retry", "--drop"), "choose one"), ((), "another edge daemon")]
)
def test_what_cannot_be_done_is_refused(device: Path, options: tuple[str, ...], error: str):
    with sole_daemon(device.parent), pytest.raises(ConfigError, match=error):
        told(device, *options)


def test_without_an_outbox_nothing_is_made(tmp_path: Path):
    config = write_config(tmp_path, state_dir=tmp_path / "none")
    with pytest.raises(ConfigError, match="no outbox"):
        told(config)
    assert not (tmp_path / "none").exists()


def test_names_that_begin_alike_are_not_taken_for_each_other(device: Path):
    outbox = Outbox.open(device.parent / "outbox.sqlite", max_rows=100, now=now)
    assert [each.seq for each in list_undeliverable(outbox, Topics("hq", "door"))] == [1, 2, 3, 4]
    outbox.close()


def test_health_says_when_the_journal_has_been_denied_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_door: Callable[..., Door]
):
    logging.getLogger("edge.mqtt").setLevel(logging.CRITICAL)
    rules = tmp_path / "acl"
    rules.write_text("topic read #\ntopic write edge/v1/hq/door-03/status\n")
    broker = Mosquitto(tmp_path, ("allow_anonymous true", f"acl_file {rules}")).start()
    with subscriber(broker.port, "edge/#"):
        door = open_door(broker.port)
        door.publish(1)
        wait_until(lambda: door.metrics.counts().get("journal.paused"))
        assert not door.courier.outbox_health().refused
        monkeypatch.setattr(courier, "REFUSED_S", 1.5)
        wait_until(lambda: door.courier.outbox_health().refused)
        rules.write_text("topic readwrite #\n")
        broker.restart()
        wait_until(lambda: door.courier.outbox_health().depth == 0)
        assert not door.courier.outbox_health().refused
    broker.stop()
    logging.getLogger("edge.mqtt").setLevel(logging.NOTSET)


def test_nobody_who_listens_is_no_refusal(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch, open_door: Callable[..., Door]
):
    monkeypatch.setattr(courier, "REFUSED_S", 0.2)
    door = open_door(mosquitto.port)
    door.publish(1)
    wait_until(lambda: door.metrics.counts().get("journal.paused"))
    door.publish(1)
    wait_until(lambda: door.courier._journal.refused_s(1e9) == 0 and len(door.courier._journal._paused) == 1)
    assert not door.courier.outbox_health().refused
