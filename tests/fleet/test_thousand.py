"""A thousand devices on one real broker: each acknowledges a push, and an outage brings them back singly."""

import json
import subprocess
import sys
import time
from pathlib import Path

from edge.device.pushes.push import effective_hash
from edge.device.settings.load import environment_without_settings
from edge.fleet.rollout.config import make_signing_key
from tests.fleet.simulated import Fleet, SimulatedDevice
from tests.support.broker import Mosquitto
from tests.support.command_line import write_config
from tests.support.waits import LIMIT_S

DEVICES = 1000
MOST_AT_ONCE = 0.10
"""Share of a fleet that may come back in the worst second after an outage."""


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
            assert fleet.serve(0.05) == []
        assert running.wait(LIMIT_S) == 0, printed.read_text()[-500:]
    return printed.read_text()


def test_a_thousand_devices_acknowledge_a_push_and_come_back_one_after_the_other(tmp_path: Path):
    broker = Mosquitto(tmp_path, lines=("allow_anonymous true", "max_queued_messages 0")).start()
    key, patch = tmp_path / "push.pem", tmp_path / "patch.toml"
    trusted = make_signing_key(key)
    patch.write_text("[decision]\ntarget_fpir = 0.0005\n")
    write_config(tmp_path, f"mqtt.port = {broker.port}", site="test", state_dir=tmp_path / "office")
    fleet = Fleet([SimulatedDevice(tmp_path, number, broker.port, trusted) for number in range(DEVICES)])
    try:
        for device in fleet.devices:
            assert fleet.connect(device)
            fleet.serve(0)
        told = operator(
            fleet, tmp_path, "push", str(patch), "--scope", "fleet", "--version", "3", "--key", str(key)
        )
        assert told.count("applied") == DEVICES
        assert {device.memory.version for device in fleet.devices} == {3}
        in_force = {effective_hash(device.settings()) for device in fleet.devices[:20]}
        assert len(in_force) == 1
        rows = json.loads(operator(fleet, tmp_path, "status", "--json"))["devices"].values()
        assert [row["in_force"] for row in rows] == ["fleet 3"] * DEVICES

        broker.kill()
        broker.start()
        until_s = time.monotonic() + 4 * LIMIT_S
        lost: list[SimulatedDevice] = []
        while len(lost) < DEVICES and time.monotonic() < until_s:
            lost += fleet.serve(0.05)
        when = fleet.come_back(lost, 4 * LIMIT_S)
        assert sum(when.values()) == DEVICES
        print("came back by second:", sorted(when.items()))
        assert max(when.values()) <= MOST_AT_ONCE * DEVICES, sorted(when.items())
    finally:
        fleet.close()
        broker.stop()
