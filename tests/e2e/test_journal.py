"""The real daemon with delivery = "consumer", a broker that is wiped, and the reference consumer."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edge.device.settings.load import environment_without_settings
from tests.e2e.device import Device
from tests.support.broker import Mosquitto
from tests.support.waits import LIMIT_S, wait_until

pytestmark = pytest.mark.e2e


def waiting(device: Device) -> int:
    """How many decisions are in the outbox."""
    with closing(sqlite3.connect(f"file:{device.state / 'outbox.sqlite'}?mode=ro", uri=True)) as outbox:
        return int(outbox.execute("SELECT COUNT(*) FROM event").fetchone()[0])


def test_decisions_stay_until_the_consumer_has_them(
    mosquitto: Mosquitto, make_device: Callable[..., Device], media: Path, tmp_path: Path
):
    device = make_device(
        mosquitto.port,
        cameras={"front": f'source = "{media / "face_noface.mov"}"\nloop = true'},
        settings=("decision.cooldown_s = 0.5", 'outbox.delivery = "consumer"'),
    )
    device.start()
    command = [sys.executable, "-m", "edge", "journal", "follow", "--config", str(device.config), "--json"]

    def follow(*options: str) -> "subprocess.Popen[bytes]":
        with out.open("ab") as stdout, err.open("ab") as stderr:
            return subprocess.Popen(
                [*command, *options], stdout=stdout, stderr=stderr, env=environment_without_settings()
            )

    out, err = tmp_path / "out.jsonl", tmp_path / "err.txt"
    onlooker = follow()
    wait_until(lambda: len(out.read_text().splitlines()) >= 2, "decisions are seen")
    assert waiting(device) >= 2, "seen, but not acknowledged"
    onlooker.send_signal(signal.SIGINT)
    assert onlooker.wait(LIMIT_S) == 0
    mosquitto.restart()  # without persistence: it knows nothing any more
    device.stop(signal.SIGKILL)
    decided = {line["event_id"] for line in device.decided()}
    device.cameras = {}
    device.start()

    keeper = follow("--to", str(tmp_path / "journal.sqlite"), "--ack")
    wait_until(lambda: waiting(device) == 0, "everything is acknowledged")
    keeper.send_signal(signal.SIGINT)
    assert keeper.wait(LIMIT_S) == 0
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as journal:
        kept = journal.execute("SELECT event_id, seq, event FROM decision ORDER BY seq").fetchall()
    assert {event_id for event_id, _, _ in kept} >= decided
    assert [seq for _, seq, _ in kept] == list(range(1, len(kept) + 1)), "no gap"
    assert all(json.loads(event)["replayed"] for _, _, event in kept)
    assert "0 missing in gaps" in err.read_text()
