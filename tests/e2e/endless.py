"""A test that does not end, for a run that is to be killed: a broker, a daemon and a camera's program run."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.device import Device
from tests.support.broker import Mosquitto
from tests.support.leftovers import MARK
from tests.support.streams import jpeg
from tests.support.waits import wait_until


def test_a_door_runs_and_runs(mosquitto: Mosquitto, make_device: Callable[..., Device], tmp_path: Path):
    seen = tmp_path / "camera"
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(jpeg(90))
    program = f"echo $$ > '{seen}'; while cat '{picture}'; do sleep 0.2; done"
    camera = f'command = ["sh", "-c", "{program}"]'
    device = make_device(mosquitto.port, enrolled=False, cameras={"front": camera}).start()
    wait_until(lambda: seen.exists() and seen.read_text(), what="the camera's program runs")
    mosquitto.freeze()
    assert mosquitto.process
    assert device.process
    told = Path(os.environ["ENDLESS_TOLD"])
    started = [mosquitto.process.pid, device.process.pid, int(seen.read_text())]
    told.with_suffix(".new").write_text(json.dumps({"mark": os.environ[MARK], "started": started}))
    told.with_suffix(".new").rename(told)
    while True:
        time.sleep(1)
