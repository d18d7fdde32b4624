"""Liveness as an operator meets it: check, replay and run with a network of their own, on real clips."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.clips import ReplayCamera
from edge.core.clock import SystemClock
from edge.mqtt.contract.messages import EventPayload, InfoPayload, StatePayload
from tests.e2e.device import Device
from tests.recognition.test_pipeline_liveness import DARK
from tests.support.broker import Mosquitto, subscriber
from tests.support.liveness import NAME, install, network
from tests.support.ports import free_port
from tests.support.waits import wait_until

pytestmark = pytest.mark.e2e

MakeDevice = Callable[..., Device]


@pytest.fixture(scope="module")
def dark_clip(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Path:
    """The man before the camera, but darker: the network takes that for a picture of him."""
    path = tmp_path_factory.mktemp("clips") / "dark.mp4"
    camera = ReplayCamera("front", media / "single_face.mp4", clock=SystemClock(), realtime=False)
    camera.open()
    writer = None
    while (frame := camera.read()) is not None:
        image = (frame.image * DARK).astype(np.uint8)
        if writer is None:
            size = (image.shape[1], image.shape[0])
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, size)
        writer.write(image)
    camera.close()
    writer.release()
    return path


def liveness(policy: str, model: Path) -> tuple[str, ...]:
    return (
        f'liveness.policy = "{policy}"',
        f'liveness.model = "{model}"',
        "liveness.threshold = 0.7",
    )


def test_replay_tells_a_live_face_from_a_picture(
    make_device: MakeDevice, tmp_path: Path, media: Path, dark_clip: Path, still: Path
):
    device = make_device(free_port(), enrolled=False, settings=liveness("require", install(tmp_path)))
    told = []
    for clip in (media / "single_face.mp4", dark_clip):
        done = device.edge("replay", str(clip), "--enroll", f"man={still}", "--json")
        assert done.returncode == 0, done.stderr
        told.append([EventPayload.model_validate_json(line) for line in done.stdout.splitlines()])
    live, picture = told
    assert [(e.event_type, e.subject and e.subject.id) for e in live] == [("match", "man"), ("left", "man")]
    assert [(e.event_type, e.subject) for e in picture] == [("spoof", None), ("left", None)]
    assert (live[0].liveness.method, picture[0].liveness.method) == (NAME, NAME)
    assert live[0].liveness.score > 0.9 > 0.1 > picture[0].liveness.score
    assert picture[0].reason == "spoof"
    assert "1 left, 1 spoof" in done.stderr

    video = tmp_path / "out.mp4"
    done = device.edge("replay", str(dark_clip), "--enroll", f"man={still}", "--annotate", str(video))
    assert "spoof" in done.stdout
    assert "live 0.0" in done.stdout
    assert video.stat().st_size > 50_000


def test_the_daemon_publishes_a_spoof_and_nobody_is_present(
    mosquitto: Mosquitto, make_device: MakeDevice, tmp_path: Path, dark_clip: Path
):
    device = make_device(
        mosquitto.port,
        cameras={"front": f'source = "{dark_clip}"\nloop = true'},
        settings=liveness("require", install(tmp_path)),
    )
    with subscriber(mosquitto.port) as seen:
        device.start()
        seen.wait(lambda: seen.on("/journal") and seen.on("/event"))
        wait_until(lambda: any(b"spoof" in state for state in seen.on("/state")), "state")
    assert device.stop() == 0
    event = EventPayload.model_validate_json(seen.on("/journal")[0])
    assert (event.event_type, event.reason, event.subject) == ("spoof", "spoof", None)
    live = {EventPayload.model_validate_json(payload).event_type for payload in seen.on("/event")}
    assert live <= {"spoof", "left"}
    states = [StatePayload.model_validate_json(payload) for payload in seen.on("/state")]
    assert {part.event_type for state in states for part in state.present} == {"spoof"}
    assert all(part.subject is None for state in states for part in state.present)
    info = InfoPayload.model_validate_json(seen.on("door/info")[0])
    assert (info.liveness, info.live_from) == ("require", 0.7)
    assert info.models["liveness"].id.startswith(f"{NAME}@")


def test_check_says_what_a_printed_photo_would_come_to(make_device: MakeDevice, tmp_path: Path):
    model = install(tmp_path)
    off = make_device(free_port(), settings=('liveness.policy = "off"',)).edge("check").stdout
    report = make_device(free_port(), settings=liveness("report", model)).edge("check").stdout
    require = make_device(free_port(), settings=liveness("require", model)).edge("check").stdout
    assert "liveness   off: a printed photo of a subject can be recognised" in off
    assert "events tell its score, decisions ignore it" in report
    assert f"liveness   {NAME}@" in require
    assert "a match below 0.7 is a spoof" in require
    plainly = "A printed photo or a screen that shows a subject opens this door"
    assert (plainly in off, plainly in report, plainly in require) == (True, True, False)
    assert "models fetch --recommended" not in report, "there is a model already"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        pytest.param(None, "none/manifest.toml: cannot read the manifest", id="missing"),
        pytest.param(network(size=112), "export it with fixed sizes", id="another size"),
        pytest.param(network(blind_below=250), "values that are not finite", id="NaN"),
    ],
)
def test_the_daemon_refuses_a_bad_liveness_model_with_one_line(
    make_device: MakeDevice, tmp_path: Path, model: bytes | None, says: str
):
    directory = tmp_path / "none" if model is None else install(tmp_path, model)
    done = make_device(free_port(), settings=liveness("require", directory)).edge("run")
    assert done.returncode == 78, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert says in lines[0]
