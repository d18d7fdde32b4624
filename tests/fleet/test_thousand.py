"""A thousand devices on one real broker: pushed to, nudged, and back singly after an outage.

`tests.fleet.thousand` is the long form.
"""

import json
import multiprocessing
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from edge.core.clock import SystemClock
from edge.device.pushes.push import effective_hash
from edge.device.settings.load import environment_without_settings
from edge.fleet.rollout.config import make_signing_key
from edge.fleet.rollout.gallery import Wanted, nudge_doors
from edge.mqtt.broker import Broker
from tests.fleet.simulated import SITE, Fleet, SimulatedDevice, memory_directory
from tests.support.broker import Mosquitto
from tests.support.command_line import write_config
from tests.support.waits import LIMIT_S

DEVICES = 1000
MOST_AT_ONCE = 0.10
"""Share of a fleet that may come back in the worst second after an outage."""


def nothing(*_: object) -> None:
    """Hear of progress."""


@pytest.fixture
def memory() -> Iterator[Path]:
    with memory_directory() as directory:
        yield directory


def operator(fleet: Fleet, directory: Path, *arguments: str) -> str:
    """Run a command of the operator while the fleet is served; returns what it printed."""
    printed = directory / "printed.txt"
    command = [sys.executable, "-m", "edge", "config", *arguments, "--config", str(directory / "edge.toml")]
    with printed.open("w") as output:
        running = subprocess.Popen(
            command, stdout=output, stderr=subprocess.DEVNULL, env=environment_without_settings()
        )
        until_s = time.monotonic() + 4 * LIMIT_S
        while running.poll() is None and time.monotonic() < until_s:
            fleet.serve(0.05)
            assert not fleet.pauses_s
        assert running.wait(LIMIT_S) == 0, printed.read_text()[-500:]
    return printed.read_text()


def test_a_thousand_devices_follow_a_push_and_a_nudge_and_come_back_one_after_the_other(
    tmp_path: Path, memory: Path
):
    broker = Mosquitto(tmp_path, lines=("allow_anonymous true", "max_queued_messages 0")).start()
    key, patch = tmp_path / "push.pem", tmp_path / "patch.toml"
    trusted = make_signing_key(key)
    patch.write_text("[decision]\ntarget_fpir = 0.0005\n")
    write_config(tmp_path, f"mqtt.port = {broker.port}", site="test", state_dir=tmp_path / "office")
    where = Broker("127.0.0.1", broker.port, keepalive_s=300)
    fleet = Fleet([SimulatedDevice(memory, number, where, trusted) for number in range(DEVICES)])
    try:
        for device in fleet.devices:
            fleet.connect(device)
        while fleet.connected < DEVICES:
            fleet.serve(0.05)
        told = operator(
            fleet, tmp_path, "push", str(patch), "--scope", "fleet", "--version", "3", "--key", str(key)
        )
        assert told.count("applied") == DEVICES
        assert {device.memory.version for device in fleet.devices} == {3}
        in_force = {effective_hash(device.settings()) for device in fleet.devices[:20]}
        assert len(in_force) == 1
        rows = json.loads(operator(fleet, tmp_path, "status", "--json"))["devices"].values()
        assert [row["in_force"] for row in rows] == ["fleet 3"] * DEVICES

        # A process of its own: paho waits by select(), which knows no file above 1,023.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            nudge = partial(nudge_doors, where, SITE, {"front": Wanted(7)}, ())
            asked = pool.submit(nudge, wait_s=LIMIT_S, clock=SystemClock(), told=nothing)
            while not asked.done():
                fleet.serve(0.05)
        assert {asked.result().came_to(door)[0] for door in asked.result().concerned().values()} == {"has it"}
        assert len(asked.result().concerned()) == DEVICES

        broker.kill()
        broker.start()
        until_s = time.monotonic() + 4 * LIMIT_S
        while len(fleet.pauses_s) < DEVICES or fleet.connected < DEVICES:
            assert time.monotonic() < until_s, fleet.connected
            fleet.serve(0.05)
        when = Counter(map(int, fleet.pauses_s))
        print("came back by second:", sorted(when.items()))
        assert max(when.values()) <= MOST_AT_ONCE * DEVICES, sorted(when.items())
    finally:
        fleet.close()
        broker.stop()
