"""`make arm64-check`: the package for arm64 under an emulator, as a table and as out/arm64.json.

Exits 1 if a row fails. Where it cannot be tried it says why and exits 0: nothing was tried. It tells nothing
about speed.
"""

import argparse
import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console

from deploy.debian.build import unpack
from edge.device.settings.load import load
from edge.lab.demo.media import media_dir
from tests.arm64.board import Board, emulated
from tests.support import leftovers
from tests.support.broker import Mosquitto, subscriber
from tests.support.command_line import run_json
from tests.support.tried import NotHereError, tell, try_rows

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "3.11"
AS_EDGE = ("runuser", "-u", "edge", "--", "env", "STATE_DIRECTORY=/var/lib/edge", "/opt/edge/bin/edge")
CLIP, PHOTO = "single_face.mp4", "man.jpg"
SAME = 0.01
"""By which scores may differ: processors round float32 differently."""

SUITE = ("tests/core", "tests/face", "tests/gallery", "tests/recognition", "tests/mqtt/contract")
"""The core of the suite: those of its tests that need no broker, no camera and no models."""

NOT_HERE = "tests/mqtt/contract/test_encode.py::test_encoding_takes_a_fraction_of_a_millisecond"
"""Measures time, which an emulator does not have."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make arm64-check")
    parser.add_argument("package", type=Path, help="what `make deb ARCH=arm64` built")
    parser.add_argument("--base", type=Path, default=Path("/var/tmp/edge-arm64-check"))
    parser.add_argument("--without", choices=ROWS, nargs="+", default=(), help="rows that are not tried")
    chosen = parser.parse_args()
    leftovers.watch()
    console = Console()
    console.print("making an arm64 system ...", highlight=False)
    chosen.base.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=chosen.base.parent) as directory:
        try:
            with emulated(Board.emulator(chosen.base)):
                board = Board.make(Path(directory), chosen.base)
                rows = {
                    what: partial(row, board, chosen.package)
                    for what, row in ROWS.items()
                    if what not in chosen.without
                }
                results = try_rows(rows, console)
        except NotHereError as error:
            console.print(f"[yellow]NOTHING WAS TRIED: no arm64 system here: {error}", highlight=False)
            return 0
    return tell(results, Path("out/arm64.json"), console)


def install(board: Board, package: Path) -> str:
    """The package is installed; its scripts run, and everything in it is for this processor."""
    shutil.copy(package, board.tree / "root")
    board.run("dpkg", "--install", f"/root/{package.name}")
    owner = board.run("stat", "-c", "%U %a", "/var/lib/edge").stdout.strip()
    assert owner == "edge 700", owner
    assert (board.tree / "etc/systemd/system/multi-user.target.wants/edge.service").is_symlink()
    machine = board.run("/opt/edge/bin/python", "-c", "import platform; print(platform.machine())").stdout
    assert machine.strip() == "aarch64", machine
    media = media_dir(load())
    (board.tree / "srv/media").mkdir()
    shutil.copy(media / CLIP, board.tree / "srv/media")
    taken, frame = cv2.VideoCapture(str(media / CLIP)).read()
    assert taken
    cv2.imwrite(str(board.tree / "srv/media" / PHOTO), frame)
    _settings(board, 1883)
    board.run(*AS_EDGE, "check")
    return "installed; `edge check` finds nothing wrong"


def golden(board: Board, package: Path) -> str:
    """The models compute what they compute elsewhere."""
    return "; ".join(board.run(*AS_EDGE, "models", "verify", "yunet", "sface-int8").stdout.splitlines())


def replay(board: Board, package: Path) -> str:
    """A clip is decided on as on this machine."""
    enrol = (CLIP, "--enroll", f"p-man={PHOTO}", "--json")
    there = board.run("env", "-C", "/srv/media", *AS_EDGE, "replay", *enrol).stdout
    settings = _here(board)
    with contextlib.chdir(board.tree / "srv/media"):
        ours = run_json("replay", *enrol, config=settings)
    theirs = [json.loads(line) for line in there.splitlines()]
    assert [_decision(event) for event in ours] == [_decision(event) for event in theirs], (ours, theirs)
    assert any(event["event_type"] == "match" for event in theirs)
    scores = [
        abs(a["score"]["best"] - b["score"]["best"])
        for a, b in zip(ours, theirs, strict=True)
        if a["score"] is not None
    ]
    assert max(scores) <= SAME, scores
    told = ", ".join(str(event["event_type"]) for event in theirs)
    return f"the same events as on this machine ({told}); scores differ by {max(scores):.4f} at most"


def run(board: Board, package: Path) -> str:
    """The daemon connects to a real broker, decides, and ends when it is told to."""
    broker = Mosquitto(board.tree / "srv").start()
    try:
        _settings(board, broker.port)
        board.run(*AS_EDGE, "enroll", "p-man", f"/srv/media/{PHOTO}")
        with subscriber(broker.port) as heard:
            daemon = subprocess.Popen(
                board.command(*AS_EDGE, "run"), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
            )
            try:
                heard.wait(lambda: any(b'"match"' in text for text in heard.on("/journal")), limit_s=600)
            finally:
                board_pid = _daemon_pid(daemon.pid)
                subprocess.run(["kill", "-TERM", str(board_pid)], check=True)
                said = daemon.communicate(timeout=600)[1]
            assert daemon.returncode == 0, said[-600:]
            match = next(json.loads(text) for text in heard.on("/journal") if b'"match"' in text)
            assert match["subject"]["id"] == "p-man"
            assert heard.on("/status")[-1] == b"offline", heard.on("/status")
    finally:
        broker.stop(signal.SIGTERM)
    return f"a match in the journal, score {match['score']['best']}; SIGTERM ends it with 0"


def suite(board: Board, package: Path) -> str:
    """The core of the suite passes."""
    target = board.tree / "srv/site"
    unpack(target, "arm64", PYTHON, "--require-hashes", "-r", ROOT / "requirements-dev.lock")
    files = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], check=True, capture_output=True).stdout
    for name in files.decode().split("\0"):
        if name:
            place = board.tree / "srv/edge" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place)
    shutil.copytree(load().models_path, board.tree / "root/.local/state/edge/models")
    environment = ("HOME=/root", "PYTHONPATH=/srv/edge:/srv/site", "PYTHONDONTWRITEBYTECODE=1")
    pytest = ("python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not real", "-n", "2", *SUITE)
    pytest += ("--deselect", NOT_HERE)
    done = board.run("env", "-C", "/srv/edge", *environment, *pytest, expect=None)
    (Path("out") / "arm64-suite.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout[-1500:]
    last = [line for line in done.stdout.splitlines() if re.search(r"\d+ passed", line)]
    return last[-1].strip("= ")


ROWS = {
    "install the package": install,
    "golden vectors": golden,
    "replay of a clip": replay,
    "edge run, a real broker": run,
    "the core of the suite": suite,
}


def _settings(board: Board, port: int) -> None:
    """Write the door's settings: the clip as its camera, the broker at this port of this machine."""
    (board.tree / "etc/edge/edge.toml").write_text(
        f'site = "hq"\ndevice = "board"\n\n[cameras.front]\nsource = "/srv/media/{CLIP}"\nloop = true\n\n'
        f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
    )


def _here(board: Board) -> Path:
    """Write settings for a replay on this machine, with a state of its own; returns the file."""
    state = board.tree / "srv/here"
    state.mkdir()
    path = board.tree / "srv/here.toml"
    path.write_text(
        f'site = "hq"\ndevice = "here"\nstate_dir = "{state}"\nmodels_dir = "{load().models_path}"\n'
    )
    return path


def _decision(event: dict[str, Any]) -> tuple[object, ...]:
    return event["event_type"], event["reason"], (event["subject"] or {}).get("id")


def _daemon_pid(pid: int) -> int:
    """Return the id of the daemon below the container with this id: the youngest of its only line."""
    while children := subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True
    ).stdout.split():
        pid = int(children[-1])
    return pid


if __name__ == "__main__":
    sys.exit(main())
