"""`edge doctor` on a door where all is right, and on doors with one planted fault each."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.core.clock import utc_now
from edge.core.files import sole_daemon
from edge.device.checkup import board
from edge.device.checkup.doctor import CHECKS, configuration, every, look_over
from edge.device.checkup.finding import Checkup, Finding, Light
from edge.device.checkup.views import ranges_m
from edge.device.settings.load import load
from edge.device.sync.outcome import SyncOutcome, save_outcome
from edge.face.manifest import installed_path, load_manifest
from edge.mqtt.broker import tls_context
from edge.mqtt.subscriber import Listener
from tests.support.broker import Mosquitto
from tests.support.certificates import Authority
from tests.support.command_line import invoke
from tests.support.places import ROOT
from tests.support.streams import MjpegServer

Door = Callable[..., Path]
StartBroker = Callable[..., Mosquitto]

OF_THIS_MACHINE = {"clock", "disk", "memory", "temperature"}
"""Checks whose light depends on the machine that the tests run on."""

OF_EVERY_DOOR = {"daemon", "liveness"}
"""Checks that tell something of the default door: it does not run yet, and a picture opens it."""

RED, YELLOW, GREEN = Light.RED, Light.YELLOW, Light.GREEN


def looked(check: str, config: Path) -> list[Finding]:
    """What one check finds."""
    (one,) = [each for each in CHECKS if each.name == check]
    return list(one.look(Checkup(load(config), config_file=config)))


def says(found: list[Finding], light: Light, about: str, text: str) -> bool:
    """Whether one of them says this; one that is not green has a remedy."""
    assert all((each.remedy is None) == (each.light is GREEN) for each in found)
    return any(each.light is light and each.about == about and text in each.told for each in found)


@contextmanager
def journal_keeper(broker: Mosquitto, authority: Authority) -> Iterator[None]:
    tls = tls_context(authority.file, None, None)
    with Listener("127.0.0.1", broker.port, ("edge/v1/#",), username="building", password="pw", tls=tls):
        yield


def test_a_good_door_is_green(door: Door, start_broker: StartBroker, authority: Authority):
    broker = start_broker()
    config = door(port=broker.port)
    before = {path: path.stat() for path in config.parent.rglob("*")}
    with journal_keeper(broker, authority):
        seen = look_over(Checkup(load(config), config_file=config), lambda *_: None)
    assert [name for name, found in seen.items() if found] == [one.name for one in CHECKS]
    known = OF_THIS_MACHINE | OF_EVERY_DOOR
    assert [each for name in seen.keys() - known for each in seen[name] if each.light is not GREEN] == []
    after = {path: path.stat() for path in config.parent.rglob("*")}
    assert {path: stat.st_mtime_ns for path, stat in after.items()} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }
    told = " ".join(each.told for each in every(seen))
    assert "finds every face up to 1.9 m" in told
    assert "shows faces upright" in told
    assert "came back after" in told
    assert "Of 1,000 strangers" in told


@pytest.mark.parametrize(
    ("camera", "light", "about", "text"),
    [
        pytest.param("source = '{black}'", RED, "camera front: light", "black", id="black"),
        pytest.param("source = '{dark}'", YELLOW, "camera front: light", "dark", id="dark"),
        pytest.param("source = '{plain}'", RED, "camera front: light", "one plain surface", id="covered"),
        pytest.param(
            "source = '{man}'\nrealtime = false\nrotate = 180",
            RED,
            "camera front: mounting",
            "faces stand upright with 0 and not with 180",
            id="upside down",
        ),
        pytest.param("source = '{man}'\nfps = 4", YELLOW, "camera front", "4 frames/s", id="slow"),
        pytest.param("source = '/dev/video99'", RED, "camera front", "no such device", id="not there"),
        pytest.param("source = '/none.mp4'", RED, "camera front", "no such clip", id="no clip"),
    ],
)
def test_what_is_wrong_with_a_camera_is_told(
    door: Door, tmp_path: Path, media: Path, camera: str, light: Light, about: str, text: str
):
    shades = {"black": (0, 2), "dark": (2, 24), "plain": (90, 91)}
    pictures = {"man": media / "single_face.mp4"}
    for name, (low, high) in shades.items():
        if f"{{{name}}}" in camera:
            pictures[name] = tmp_path / name
            pictures[name].mkdir()
            image = np.linspace(low, high, 320 * 240).reshape(240, 320).astype(np.uint8)
            for number in range(3):
                cv2.imwrite(str(pictures[name] / f"{number}.png"), cv2.merge([image] * 3))
    found = looked("cameras", door(camera="[cameras.front]\n" + camera.format(**pictures)))
    assert says(found, light, about, text), found


def test_a_live_camera_whose_picture_stands_still_is_told(door: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.support.streams.jpeg", lambda _, **__: still)
    still = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8))[
        1
    ].tobytes()
    with MjpegServer() as server:
        found = looked("cameras", door(camera=f'cameras.front.source = "{server.url}"'))
    assert says(found, RED, "camera front", "every frame is the same"), found


def test_a_picture_shows_what_the_camera_sees_and_is_its_owner_s(door: Door, tmp_path: Path, media: Path):
    clip = f'cameras.front = {{ source = "{media / "single_face.mp4"}", realtime = false }}'
    config = door(camera=clip)
    checkup = Checkup(load(config), pictures=tmp_path / "pictures")
    (cameras,) = [each for each in CHECKS if each.name == "cameras"]
    assert says(list(cameras.look(checkup)), GREEN, "camera front: picture", "1 face(s)")
    path = tmp_path / "pictures/front.png"
    assert cv2.imread(str(path)).shape[0] > 360
    assert path.stat().st_mode & 0o777 == 0o600


def test_how_far_a_camera_sees_is_that_of_the_guide():
    rows = [line for line in (ROOT / "deploy/README.md").read_text().splitlines() if line.startswith("| ")]
    for width, name in ((1280, "1280x720"), (1920, "1920x1080"), (3840, "3840x2160")):
        (row,) = [line for line in rows if line.startswith(f"| {name} |")]
        every, most = (float(cell.split(" m")[0]) for cell in row.split("|")[2:4])
        assert ranges_m(width, 78.0) == pytest.approx((every, most), abs=0.06)
    assert ranges_m(1920, 39.0)[0] > 2 * ranges_m(1920, 78.0)[0]


def test_a_wrong_password_is_told(door: Door, start_broker: StartBroker):
    config = door(port=start_broker().port)
    (config.parent / "password").write_text("another")
    found = looked("broker", config)
    assert says(found, RED, "broker", "refuses: Not authorized"), found
    assert "mqtt.password_file" in str(found[-1].remedy)
    assert "another" not in str(found)


def test_a_broker_that_is_not_there_is_told(door: Door):
    assert says(looked("broker", door(port=1)), RED, "broker", "no broker listens")


@pytest.mark.parametrize(
    ("days", "light", "text"),
    [(-1, RED, "certificate has expired"), (2, YELLOW, "the broker's certificate is good until")],
)
def test_a_certificate_that_runs_out_is_told(
    door: Door, start_broker: StartBroker, days: int, light: Light, text: str
):
    found = looked("broker", door(port=start_broker(days=days).port))
    assert any(each.light is light and text in each.told for each in found), found


def test_what_the_broker_denies_is_told_topic_by_topic(door: Door, start_broker: StartBroker):
    rules = (ROOT / "deploy/mosquitto/acl").read_text()
    rules = rules.replace("pattern write edge/v1/%u/health\n", "").replace(
        "/%u/camera/#", "/%u/camera/+/status"
    )
    found = looked("broker", door(port=start_broker(rules=rules).port))
    denied = {
        each.told.removeprefix("may not write edge/v1/hq/door-03/") for each in found if each.light is RED
    }
    own = {f"camera/front/{name}" for name in ("info", "event", "journal", "state")}
    assert denied == own | {"health"}, found


def test_a_broker_that_keeps_nothing_is_told(door: Door, start_broker: StartBroker):
    found = looked("broker", door(port=start_broker("retain_available false").port))
    assert says(found, RED, "broker: newcomers", "a push to a door that is off is lost"), found
    assert says(found, GREEN, "broker: rights", "the door may write all"), found


def test_a_journal_that_nobody_keeps_is_told(door: Door, start_broker: StartBroker):
    broker = start_broker()
    found = looked("broker", door(port=broker.port))
    assert says(found, YELLOW, "broker: journal", "nobody listens to"), found
    assert says(found, GREEN, "broker: newcomers", "who comes later finds"), found
    assert says(found, GREEN, "broker: subscriptions", "may subscribe to all of its"), found


def test_a_missing_and_a_broken_model_are_told(door: Door, tmp_path: Path, models_dir: Path):
    copies = tmp_path / "models"
    shutil.copytree(models_dir, copies)
    installed_path(load_manifest("yunet"), copies).unlink()
    broken = installed_path(load_manifest("sface-int8"), copies)
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    found = looked("models", door(models_dir=copies))
    assert says(found, RED, "model yunet", "is not there"), found
    assert says(found, RED, "model sface-int8", "is not the pinned file"), found
    assert all("edge models fetch" in str(each.remedy) for each in found if each.light is RED)


def test_wide_rights_are_told(door: Door):
    config = door()
    state = config.parent / "state"
    (config.parent / "password").chmod(0o644)
    state.chmod(0o755)
    (state / "device.key").chmod(0o644)
    found = looked("rights", config)
    assert says(found, RED, "rights", f"everybody may read {config.parent / 'password'} (mode 0644)"), found
    assert says(found, RED, "rights", "others may read"), found


def test_a_key_that_is_gone_is_told(door: Door, tmp_path: Path):
    found = looked("keys", door(f'gallery.device_key = "{tmp_path / "none.key"}"'))
    assert says(found, RED, "device key", "there is no key"), found


@pytest.mark.parametrize(
    ("outcome", "hours", "light", "text"),
    [
        (SyncOutcome("current", 7, 42, None), 72, RED, "current 3 days ago"),
        (SyncOutcome("current", 7, 42, None), 3, YELLOW, "current 3 h ago"),
        (SyncOutcome("refused", 0, 0, None, "no", reason="expired"), 0, RED, "(expired): no"),
        (SyncOutcome("updated", 7, 42, None), 0, GREEN, "published version 7"),
        (None, 0, RED, "nothing was ever synchronised"),
    ],
)
def test_a_stale_synchronisation_is_told(
    door: Door, outcome: SyncOutcome | None, hours: int, light: Light, text: str
):
    fleet = '[sync]\nurl = "/srv/none"\ntrusted_root = "/none.json"\nsealing_key = "/none.key"'
    config = door(fleet)
    if outcome is not None:
        load(config).sync_path.mkdir(exist_ok=True)
        at = utc_now() - timedelta(hours=hours)
        save_outcome(load(config).sync_path, replace(outcome, at=at))
    assert says(looked("sync", config), light, "sync", text)


def test_that_no_settings_file_was_read_is_told(tmp_path: Path):
    found = list(configuration(Checkup(load(overrides={"state_dir": tmp_path}))))
    assert says(found, YELLOW, "settings", "no settings file was read")
    assert says(found, RED, "settings", "cameras: there is none")


def test_a_full_disk_is_told(door: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(board, "FULL_MB", 10**9)  # more than there is anywhere
    assert says(looked("disk", door()), RED, "disk", "MB free")


@pytest.mark.parametrize(
    ("mount", "light", "text"),
    [
        ("/dev/mmcblk0p2 {} ext4 rw,noatime 0 0", GREEN, "is read-write"),
        ("/dev/mmcblk0p2 {} ext4 ro,noatime,errors=remount-ro 0 0", RED, "(/dev/mmcblk0p2) is read-only"),
        ("/dev/mmcblk0p2 {} ext4 rw,sync 0 0", YELLOW, "writes everything at once"),
        ("tmpfs {} tmpfs rw 0 0", RED, "gone with the power"),
    ],
)
def test_how_the_disk_is_mounted_is_told(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: str, light: Light, text: str
):
    config = door()
    (tmp_path / "proc/self").mkdir(parents=True)
    above = mount.format(tmp_path.resolve())
    (tmp_path / "proc/self/mounts").write_text(f"/dev/sda1 / ext4 rw 0 0\n{above}\n")
    monkeypatch.setattr(board, "PROC", tmp_path / "proc")
    assert says(looked("disk", config), light, "disk: mount", text)


def test_cameras_of_a_running_daemon_are_left_to_it(door: Door):
    config = door()
    with sole_daemon(config.parent / "state"):
        checkup = Checkup(load(config))
        assert checkup.running
        (found,) = looked("cameras", config)
    assert "is the running daemon's" in found.told
    assert not Checkup(load(config)).running


def test_settings_that_cannot_be_read_are_a_red_line(door: Door):
    done = invoke("doctor", "--json", config=door("capture.stal_s = 1"))
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert said["light"] == "red"
    assert "did you mean stall_s?" in said["findings"][0]["told"]


def test_the_guide_names_every_check():
    guide = (ROOT / "deploy/README.md").read_text()
    for check in CHECKS:
        assert f"| {check.name} | {check.looks_at} |" in guide, check.name
