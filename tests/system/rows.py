"""What is tried with the package in a real system, in this order: each row builds on those before it."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cv2

from edge.core.errors import EX_CONFIG
from edge.device.settings.load import load
from edge.lab.demo.media import media_dir
from tests.support.waits import Stopwatch
from tests.system.machine import Machine, Messages

PACKAGE = "edge-recognizer"
CONFIG = "/etc/edge/edge.toml"
SETTINGS = """
site = "hq"
device = "door"

[cameras.front]
source = "/srv/edge/door.mp4"
loop = true

[cameras.pipe]
command = ["/bin/sh", "-c", "while true; do cat /srv/edge/door.mjpeg; sleep 0.5; done"]

[mqtt]
host = "localhost"
"""
AS_EDGE = ("runuser", "-u", "edge", "--", "env", "STATE_DIRECTORY=/var/lib/edge", "/opt/edge/bin/edge")
CREDENTIALS = "/etc/credstore.encrypted"

KEY = '\n[gallery]\ndevice_key = "device.key"\n'
KEYS = ("device.key", "sealing.key")
SYNC = """
[sync]
url = "http://localhost:8000"
tenant = "acme"
scope = "front"
trusted_root = "/etc/edge/root.json"
sealing_key = "sealing.key"
"""
OFFICE = """
site = "hq"
state_dir = "/srv/office/state"
models_dir = "/opt/edge/models"

[mqtt]
host = "localhost"
"""
OFFICE_EDGE = ("/opt/edge/bin/edge",)
OFFICE_CONFIG = ("--config", "/srv/office/office.toml")
FLEET = ("--fleet", "/srv/fleet")


class Door:
    """The machine with the package, its broker's messages, and what the rows share."""

    def __init__(self, machine: Machine, package: Path):
        self.machine = machine
        self.package = package
        self.messages: Messages | None = None

    @property
    def heard(self) -> Messages:
        """What the broker forwards; listens from the first use on."""
        if self.messages is None:
            self.machine.run("systemctl", "start", "mosquitto")
            self.messages = Messages(self.machine)
        return self.messages

    def matches(self, camera: str, mark: int) -> list[str]:
        """Return the matches of a camera after a mark."""
        return self.heard.after(mark, f"camera/{camera}/event", '"event_type":"match"')

    def next_match_s(self, camera: str = "front", limit_s: float = 60) -> float:
        """Wait for the next match of a camera; returns how long that took."""
        mark = self.heard.mark()
        return self.machine.wait_for(lambda: self.matches(camera, mark), f"{camera}: a match", limit_s)

    def is_active(self) -> bool:
        """Say whether the service runs and has said that it is ready."""
        return self.machine.unit("edge", "ActiveState") == "active"

    def last_log(self) -> str:
        """Return the last lines of the service's log."""
        return self.machine.ask("journalctl", "-u", "edge", "-n", "6", "-o", "cat")[-600:]

    def close(self) -> None:
        """Stop listening to the broker."""
        if self.messages is not None:
            self.messages.close()


def install(door: Door) -> str:
    """Installed on a machine without a camera it is not started, and says what to do."""
    place = f"/root/{door.package.name}"
    shutil.copy(door.package, door.machine.tree / place.lstrip("/"))
    done = door.machine.run("dpkg", "--install", place)
    assert "not started yet" in done.stderr, done.stderr
    assert door.machine.unit("edge", "ActiveState") == "inactive"
    assert door.machine.unit("edge", "UnitFileState") == "enabled"
    assert "sface-int8 verified" in door.machine.ask("edge-command", "check")
    owner = door.machine.ask("stat", "-c", "%U %a", "/var/lib/edge", "/var/lib/edge/models")
    assert owner.splitlines()[0] == "edge 700", owner
    size = door.machine.ask("du", "-sm", "/opt/edge").split()[0]
    return f"not started, says what to set; {size} MB in /opt/edge, the default models are there"


def start(door: Door) -> str:
    """A clip and a program that writes frames are read through the sandbox, and decided on."""
    media = media_dir(load())
    shutil.copytree(media, door.machine.tree / "srv/edge-media", dirs_exist_ok=True)
    (door.machine.tree / "srv/edge").mkdir()
    _with_pauses(media / "single_face.mp4", media / "no_face.mp4", door.machine.tree / "srv/edge/door.mp4")
    frames, first = _jpegs(media / "single_face.mp4")
    door.machine.write("/srv/edge/door.mjpeg", b"".join(frames))
    door.machine.write("/srv/edge/man.jpg", first)
    door.machine.write(CONFIG, SETTINGS, 0o640)
    door.machine.run("edge-command", "enroll", "p-man", "/srv/edge/man.jpg", "--label", "Man")
    mark = door.heard.mark()
    began_s = time.monotonic()
    door.machine.run("systemctl", "start", "edge")
    ready_s = time.monotonic() - began_s
    for camera in ("front", "pipe"):
        door.machine.wait_for(
            lambda camera=camera: any("p-man" in text for text in door.matches(camera, mark)),
            f"{camera} recognizes",
        )
    exposure = door.machine.ask("systemd-analyze", "security", "--no-pager", "edge")
    return f"ready after {ready_s:.1f} s; both cameras match; {exposure.splitlines()[-1].strip()}"


def killed(door: Door) -> str:
    """The daemon is killed."""
    pid = door.machine.unit("edge", "MainPID")
    door.machine.run("kill", "-KILL", pid)
    took_s = door.next_match_s()
    assert door.machine.unit("edge", "MainPID") != pid
    return f"decides again after {took_s:.1f} s"


def hangs_s(door: Door) -> str:
    """How long a door that hangs is away: from the signal to the next decision."""
    pid, mark = door.machine.unit("edge", "MainPID"), door.heard.mark()
    door.machine.run("kill", "-STOP", pid)
    watch = Stopwatch()
    door.machine.wait_for(lambda: door.machine.unit("edge", "MainPID") not in ("0", pid), "it is restarted")
    restarted_s, mark = watch.wall_s, door.heard.mark()
    door.machine.wait_for(lambda: door.matches("front", mark), "a match")
    total_s = watch.wall_s
    assert watch.undisturbed_s <= 20, f"{total_s:.1f} s"
    return f"restarted after {restarted_s:.1f} s, decides again after {total_s:.1f} s"


def bad_reload(door: Door) -> str:
    """A mistake in the settings is refused on reload, and the door goes on."""
    pid = door.machine.unit("edge", "MainPID")
    door.machine.write(CONFIG, SETTINGS.replace("host", "hots"), 0o640)
    door.machine.run("systemctl", "reload", "edge", expect=None)
    door.machine.wait_for(lambda: "hots" in door.last_log(), "the log names the mistake")
    door.next_match_s()
    assert door.machine.unit("edge", "MainPID") == pid
    log = door.machine.ask("journalctl", "-u", "edge", "-o", "cat", "-n", "40")
    refused = next(json.loads(line) for line in log.splitlines() if "hots" in line)["message"]
    return f"{refused.partition(': ')[2]}; decides on"


def bad_restart(door: Door) -> str:
    """A restart with that mistake ends in 78, once."""
    done = door.machine.run("systemctl", "restart", "edge", expect=None)
    assert done.returncode != 0
    time.sleep(6)  # three times the pause before a restart
    assert door.machine.unit("edge", "ExecMainStatus") == str(EX_CONFIG)
    assert door.machine.unit("edge", "ActiveState") == "failed"
    assert door.machine.unit("edge", "NRestarts") == "0"
    door.machine.write(CONFIG, SETTINGS, 0o640)
    door.machine.run("systemctl", "start", "edge")
    door.next_match_s()
    return f"failed with {EX_CONFIG}, no restart; mended, it starts"


def stop(door: Door) -> str:
    """The service is stopped."""
    watch = Stopwatch()
    door.machine.run("systemctl", "stop", "edge")
    took_s, undisturbed_s = watch.wall_s, watch.undisturbed_s
    assert door.machine.unit("edge", "Result") == "success"
    assert undisturbed_s <= 10, f"{took_s:.1f} s"
    door.machine.run("systemctl", "start", "edge")
    door.next_match_s()
    return f"stopped after {took_s:.1f} s"


def credentials(door: Door) -> str:
    """The gallery's key is a credential of systemd; enrolment and service both have it."""
    machine = door.machine
    machine.run("systemctl", "stop", "edge")
    _encrypt(machine, "device.key", (machine.tree / "var/lib/edge/device.key").read_bytes())
    machine.write(CONFIG, SETTINGS + KEY, 0o640)
    machine.run("rm", "/var/lib/edge/device.key")
    machine.write("/etc/systemd/system/edge.service.d/keys.conf", f"[Service]\n{_load('device.key')}")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "edge")
    door.next_match_s()
    machine.run("edge-command", "enroll", "p-orl", "/srv/edge-media/orl-s01-01.pgm")
    plain = machine.run(*AS_EDGE, "subjects", "list", expect=None)
    assert plain.returncode == EX_CONFIG, plain.stderr
    return "opens the gallery for the service and for edge-command, and for nobody without it"


def timer(door: Door) -> str:
    """The timer fetches the gallery that a fleet has published; its key is a credential, too."""
    machine = door.machine
    machine.write("/srv/office/office.toml", OFFICE)
    for subject, photo in (("p-man", "edge/man.jpg"), ("p-orl", "edge-media/orl-s01-01.pgm")):
        machine.run(*OFFICE_EDGE, "enroll", subject, f"/srv/{photo}", *OFFICE_CONFIG)
    machine.run(*OFFICE_EDGE, "fleet", "init", "acme", "--scope", "front", *FLEET)
    machine.run(*OFFICE_EDGE, "fleet", "publish", "front", "--everybody", *FLEET, *OFFICE_CONFIG)
    web = ("/opt/edge/bin/python", "-m", "http.server", "8000", "--directory", "/srv/fleet/published")
    machine.run("systemd-run", "--quiet", "--unit=web", *web)
    machine.run("cp", "/srv/fleet/published/metadata/1.root.json", "/etc/edge/root.json")
    machine.run("chmod", "644", "/etc/edge/root.json")
    _encrypt(machine, "sealing.key", (machine.tree / "srv/fleet/keys/sealing/front.key").read_bytes())
    machine.write(CONFIG, SETTINGS + KEY + SYNC, 0o640)
    for unit in ("edge", "edge-sync"):
        machine.write(
            f"/etc/systemd/system/{unit}.service.d/keys.conf", "[Service]\n" + "".join(map(_load, KEYS))
        )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "edge")
    mark, began_s = door.heard.mark(), time.monotonic()
    machine.run("systemctl", "enable", "--now", "edge-sync.timer")
    machine.wait_for(
        lambda: any(json.loads(text).get("published") for text in door.heard.after(mark, "gallery/reported")),
        "the door reports what was published",
    )
    took_s = time.monotonic() - began_s
    door.next_match_s()
    return f"taken {took_s:.0f} s after the timer's start, which spreads doors over a minute"


def revoke(door: Door) -> str:
    """Somebody is revoked with a nudge, and not let in any more."""
    machine, mark, began_s = door.machine, door.heard.mark(), time.monotonic()
    machine.run(*OFFICE_EDGE, "fleet", "revoke", "p-man", "--nudge", *FLEET, *OFFICE_CONFIG)
    told_s = time.monotonic() - began_s
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    mark = door.heard.mark()
    machine.wait_for(
        lambda: door.heard.after(mark, "camera/front/event", '"event_type":"reject"'), "a reject"
    )
    late = [text for text in door.matches("front", mark) if json.loads(text)["captured_at"] > at]
    assert not late, f"told at {at}, and then {late}"
    return f"the command knows after {told_s:.1f} s that the door has it; the next visit is rejected"


def upgrade(door: Door) -> str:
    """A newer package is installed while the door decides: settings, gallery and keys stay."""
    machine = door.machine
    newer = _newer(door.package, machine.tree / "root")
    before, pid = machine.ask("sha256sum", CONFIG), machine.unit("edge", "MainPID")
    machine.run("dpkg", "--install", f"/root/{newer.name}")
    assert machine.ask("sha256sum", CONFIG) == before
    assert machine.unit("edge", "MainPID") != pid, "the new release runs"
    door.next_match_s()
    version = machine.ask("dpkg-query", "-W", "-f", "${Version}", PACKAGE)
    return f"{version} decides; settings, gallery and keys as before"


def full_disk(door: Door) -> str:
    """The disk with the state is full: the door goes on deciding and says so."""
    machine = door.machine
    machine.run("systemctl", "stop", "edge")
    machine.run("cp", "-a", "/var/lib/edge", "/srv/kept")
    machine.run("mount", "-t", "tmpfs", "-o", "size=64M,mode=700", "tmpfs", "/var/lib/edge")
    try:
        machine.run("sh", "-c", "cp -a /srv/kept/. /var/lib/edge/ && chown edge: /var/lib/edge")
        machine.run("systemctl", "start", "edge")
        door.next_match_s()
        mark = door.heard.mark()

        def says_so() -> bool:
            # Again and again: the door gives up its ballast first.
            machine.run("sh", "-c", "cat /dev/zero >>/var/lib/edge/full 2>/dev/null || true")
            heard = door.heard.after(mark, "/health")
            return any("disk_refused" in json.loads(text)["problems"] for text in heard)

        machine.wait_for(says_so, "health says that the disk takes nothing")
        door.next_match_s()
    finally:
        machine.run("systemctl", "stop", "edge", expect=None)
        machine.run("umount", "/var/lib/edge", expect=None)
    machine.run("systemctl", "start", "edge")
    door.next_match_s()
    return "decides on; health says disk_refused"


def remove_and_purge(door: Door) -> str:
    """Removing keeps the state; purging erases templates and keys."""
    machine = door.machine
    machine.run("dpkg", "--remove", PACKAGE)
    assert machine.unit("edge", "ActiveState") != "active"
    assert not (machine.tree / "opt/edge/lib").exists(), "nothing is left of the program"
    assert (machine.tree / "var/lib/edge/gallery").exists()
    assert (machine.tree / CONFIG.lstrip("/")).exists()
    machine.run("dpkg", "--purge", PACKAGE)
    left = [path for path in ("var/lib/edge", "etc/edge", f"{CREDENTIALS[1:]}/device.key")]
    assert not [path for path in left if (machine.tree / path).exists()]
    return "removed: state and settings stay; purged: no template, key or setting is left"


ROWS: dict[str, Callable[[Door], str]] = {
    "install on a clean machine": install,
    "start: a clip and a pipe through the sandbox": start,
    "SIGKILL": killed,
    "SIGSTOP: the watchdog": hangs_s,
    "reload with a mistake": bad_reload,
    "restart with that mistake": bad_restart,
    "stop": stop,
    "the gallery's key as a credential": credentials,
    "upgrade while running": upgrade,
    "a full disk": full_disk,
    "the timer fetches a published gallery": timer,
    "revoke --nudge": revoke,
    "remove, then purge": remove_and_purge,
}


def _encrypt(machine: Machine, name: str, key: bytes) -> None:
    """Make a key a credential of systemd, as the guide does; the container has no TPM."""
    machine.run("mkdir", "-p", CREDENTIALS)
    machine.write("/root/plain.key", key, 0o600)
    creds = ("systemd-creds", "encrypt", "--with-key=host", f"--name={name}")
    machine.run(*creds, "/root/plain.key", f"{CREDENTIALS}/{name}")
    machine.run("shred", "--remove", "/root/plain.key")


def _load(name: str) -> str:
    return f"LoadCredentialEncrypted={name}:{CREDENTIALS}/{name}\n"


def _jpegs(clip: Path) -> tuple[list[bytes], bytes]:
    """Return the frames of a clip as JPEG files, and the first of them."""
    frames, capture = [], cv2.VideoCapture(str(clip))
    while True:
        there, image = capture.read()
        if not there:
            break
        frames.append(cv2.imencode(".jpg", image)[1].tobytes())
    capture.release()
    return frames, frames[0]


def _with_pauses(clip: Path, empty: Path, visit: Path) -> None:
    """Write a clip in which the man of `clip` comes for three seconds and nobody for three, to be looped."""
    fps, writer = 15, None
    for source, seconds in ((clip, 3), (empty, 3)):
        capture = cv2.VideoCapture(str(source))
        for _ in range(fps * seconds):
            there, image = capture.read()
            if not there:
                capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
                there, image = capture.read()
            if writer is None:
                size = image.shape[1], image.shape[0]
                writer = cv2.VideoWriter(str(visit), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
            writer.write(cv2.resize(image, size))
        capture.release()
    assert writer is not None
    writer.release()


def _newer(package: Path, directory: Path) -> Path:
    """Make the package of the release after from a package: all that differs is the version."""
    tree = directory / "newer"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    version = next(line for line in control.read_text().splitlines() if line.startswith("Version: "))
    control.write_text(control.read_text().replace(version, f"{version}+1"))
    newer = directory / "newer.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zzstd", "-z1", "--build", tree, newer],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(tree)
    return newer
