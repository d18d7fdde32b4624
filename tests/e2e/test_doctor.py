"""`edge doctor` and `edge support` beside a running daemon: it is asked, and not fought over its camera."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.e2e.device import Device
from tests.support.broker import Mosquitto
from tests.support.command_line import run
from tests.support.waits import wait_until


def test_a_running_daemon_is_asked(
    mosquitto: Mosquitto, make_device: Callable[..., Device], tmp_path: Path, media: Path, monkeypatch
):
    camera = f'source = "{media / "single_face.mp4"}"\nloop = true'
    device = make_device(mosquitto.port, cameras={"front": camera}).start()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(device.directory / "run"))
    left = device.directory / "run/edge/test.door.health.json"
    wait_until(left.exists, "health is left")
    assert left.stat().st_mode & 0o777 == 0o600
    held = (device.state / "daemon.lock").stat().st_ino
    out = tmp_path / "sent.tar.gz"
    run("support", "--yes", "--out", out, config=device.config)
    with tarfile.open(out) as tar:
        said, health = (
            json.loads(tar.extractfile(f"edge-support/{name}.json").read()) for name in ("doctor", "health")
        )
    assert said["running"]
    told = {each["about"]: each["told"] for each in said["findings"]}
    assert told["camera front"].startswith("the daemon ")
    assert told["broker: canary"].startswith("a message as large as a decision came back")
    assert not {"broker: rights", "broker: journal"}.isdisjoint(told)
    assert "the daemon takes" in told["memory"]
    assert health["schema"] == "edge.health/1"
    assert (device.state / "daemon.lock").stat().st_ino == held
    assert device.stop() == 0
