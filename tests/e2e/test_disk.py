"""A device whose disk is full or read-only: it still decides, says so, and loses no more than it must."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.mqtt.contract.messages import HealthPayload
from tests.e2e.device import ROOT, Device
from tests.support.broker import Mosquitto, subscriber
from tests.support.disk import SmallDisk, read_only, small_disk
from tests.support.waits import LIMIT_S, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A full file system of 4 MB; without the right to mount one, the test cannot be made."""
    with small_disk(tmp_path / "disk", "4m") as disk:
        if not disk.mounted:
            pytest.skip("mounting a small disk needs root")
        disk.fill()
        yield disk


def test_a_door_on_a_full_disk_still_decides_and_says_so(
    mosquitto: Mosquitto, make_device: Callable[..., Device], media: Path, full_disk: SmallDisk, still: Path
):
    device = make_device(
        mosquitto.port,
        enrolled=False,
        cameras={"front": f'source = "{media / "carphone_pristine.mp4"}"\nloop = true'},
        settings=("decision.cooldown_s = 0.5",),
    )
    device.state.symlink_to(full_disk.directory, target_is_directory=True)
    with subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(lambda: len(heard.on("/camera/front/event")) >= 1)
        heard.wait(lambda: len(heard.on("/camera/front/journal")) >= 1)
        assert not device.decided()[0]["durable"]
        health = HealthPayload.model_validate_json(heard.on(f"{ROOT}/health")[-1])
        assert not health.outbox.durable
        refused = device.edge("enroll", "p-1", str(still))
        assert refused.returncode == 1
        assert "Traceback" not in refused.stderr
        assert device.process.poll() is None
        full_disk.free()
        enrolled = device.edge("enroll", "p-1", str(still))
        assert enrolled.returncode == 0, enrolled.stderr
        wait_until(lambda: device.said("gallery swapped"))
        assert device.stop() == 0


def test_a_door_starts_on_a_disk_that_has_become_read_only(
    mosquitto: Mosquitto, make_device: Callable[..., Device], media: Path
):
    """As after a reboot with a worn-out card: the gallery is there, and nothing can be written."""
    device = make_device(
        mosquitto.port, cameras={"front": f'source = "{media / "carphone_pristine.mp4"}"\nloop = true'}
    )
    device.start()
    assert device.stop() == 0
    with subscriber(mosquitto.port) as heard, read_only(device.state) as mounted:
        if not mounted:
            pytest.skip("mounting a disk read-only needs root")
        device.start()
        heard.wait(lambda: len(heard.on("/camera/front/event")) >= 1)
        heard.wait(lambda: len(heard.on("/camera/front/journal")) >= 1)
        events = [json.loads(payload) for payload in heard.on("/camera/front/event")]
        assert {event["score"]["gallery_size"] for event in events if event["score"]} == {42}
        assert device.said("Read-only file system")
        assert not device.decided()[0]["durable"]
        health = HealthPayload.model_validate_json(heard.on(f"{ROOT}/health")[-1])
        assert not health.outbox.durable
        with device.log_path.open() as log:
            assert "Traceback" not in log.read()
        assert device.stop() == 0
    device.start()
    wait_until(lambda: [line for line in device.decided() if line["durable"]])
    assert device.stop() == 0


def test_a_door_waits_for_no_pipe_in_the_place_of_a_state_file(
    mosquitto: Mosquitto, make_device: Callable[..., Device], media: Path
):
    """Each file that a run leaves becomes a pipe: the door decides, or ends with one line and 78."""
    clip = media / "carphone_pristine.mp4"
    device = make_device(
        mosquitto.port,
        cameras={"front": f'source = "{clip}"\nloop = true'},
    )
    device.start()
    wait_until(lambda: device.decided())
    assert device.stop() == 0
    (device.state / "commands").mkdir(exist_ok=True)
    left = [path for path in device.state.rglob("*") if path.is_file() and not path.is_symlink()]
    never_left = ("outbox.sqlite-journal", "outbox.ballast", "denials.sealed", "denials.lock")
    remembered = ("commands/answers.json", "commands/audit.jsonl", "config/pushes.json", "sync/outcome.json")
    vital = {path for path in left if path.name in ("daemon.lock", "device.key") or path.suffix == ".edge"}
    for path in {*left, *(device.state / name for name in (*never_left, *remembered))} - vital:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    device.start()
    wait_until(lambda: device.decided())
    assert device.stop() == 0
    for path in vital:
        kept = path.rename(path.with_name("kept"))
        os.mkfifo(path)
        device.start(ready=False)
        assert device.process.wait(LIMIT_S) in (1, 78), device.log_path.read_text()
        assert str(path.name) in device.log_path.read_text()
        assert "Traceback" not in device.log_path.read_text()
        path.unlink()
        kept.rename(path)
