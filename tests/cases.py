"""`python -m tests.cases`: inputs that were once taken wrongly; exits 1 where one still is.

The inputs are files in a folder of their own, which is not part of the project. Most of what they show is
held by tests that make their own input ("Attacks and troubles" in tests/README.md); here are the files
themselves.
"""

import argparse
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.camera.photo import read_photo
from edge.cli.output import Listing
from edge.core.errors import EdgeError
from edge.core.types import FloatArray
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_recognizer, with_photo_detector
from edge.device.settings.load import load
from edge.gallery.gallery import Gallery
from edge.lab.demo.media import media_dir, orl_photo
from edge.recognition.enrolment.enrol import encode_photo
from edge.recognition.recognizer import Recognizer
from tests.support import leftovers
from tests.support.broker import Mosquitto, subscriber
from tests.support.command_line import environment_of, write_config
from tests.support.places import ROOT
from tests.support.streams import MjpegServer
from tests.support.waits import LIMIT_S

FOLDER = "CASES_FOLDER"
"""Variable of the environment that names the folder of the inputs."""

ONLINE_S = 1.0
"""Seconds within which good cameras have to be online, whatever the others do."""

MORE_MB = 20.0
"""MiB that a picture of a few bytes may cost more than an honest one."""

ROLLS_DEG = (0, 30, 45, 60, 90, 180)
LARGEST_ROLL_DEG = 40
"""From here on a face is to be refused, at enrolment and at the door."""

TARGET = 0.001
"""Share of strangers that a gallery may name. Twice that share is right."""

CHANCE = 0.025
"""Less likely counts are not put down to chance."""


@dataclass(frozen=True)
class Found:
    """What became of an input; `right` is None where the program is known not to hold it yet."""

    right: bool | None
    told: str


Case = Callable[[Path, Path], Found]
"""Looks at one input; is given its path and an empty folder to work in."""


def _edge(folder: Path, *words: str | Path) -> tuple[int, str, float]:
    """Run a command with settings of its own; returns exit code, last line, and the most memory in MiB."""
    config = write_config(folder, state_dir=folder / "state", models_dir=load().models_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", *map(str, words), "--config", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment_of(config) | {"COLUMNS": "200"},
    )
    assert process.stdout is not None
    with process.stdout as output:
        lines = [line.strip() for line in output if line.strip()]
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, lines[-1] if lines else "", used.ru_maxrss / 1024


def _honest_photo() -> Path:
    return orl_photo(media_dir(load()), 1, 1)


def declared_length(path: Path, folder: Path) -> Found:
    """A PNG of a few bytes that declares gigabytes costs no more than a photo, and is damaged."""
    _, _, honest_mb = _edge(folder, "identify", _honest_photo())
    code, told, peak_mb = _edge(folder, "identify", path)
    right = code != 0 and "damaged" in told
    return Found(right and peak_mb < honest_mb + MORE_MB, f"{peak_mb - honest_mb:+.0f} MiB; {told}")


def _enrolled(path: Path, folder: Path) -> tuple[int, str]:
    shutil.copy(path, folder / "people.csv")
    cv2.imwrite(str(folder / "a.jpg"), read_photo(_honest_photo()))
    code, told, _ = _edge(folder, "enroll", "--csv", folder / "people.csv")
    return code, told


def enrols(path: Path, folder: Path) -> Found:
    """A table whose one subject is enrolled."""
    code, told = _enrolled(path, folder)
    return Found(code == 0, told)


def asks_for_utf8(path: Path, folder: Path) -> Found:
    """A table in another encoding is refused with what to do."""
    code, told = _enrolled(path, folder)
    return Found(code != 0 and "CSV UTF-8" in told, told)


def plays_on(path: Path, folder: Path) -> Found:
    """A clip whose clock jumps is played to its end and counts the seconds that it shows."""
    code, told, _ = _edge(folder, "replay", path)
    footage = re.search(r"([\d.,]+) s of footage", told)
    return Found(code == 0 and footage is not None and 5 < float(footage[1].replace(",", "")) < 7, told)


def plays(path: Path, folder: Path) -> Found:
    """A clip that is named without a directory is a file, whatever its name looks like."""
    shutil.copy(path, folder)
    code, told, _ = _edge(folder, "replay", path.name)
    return Found(code == 0, told)


def names_the_codec(path: Path, folder: Path) -> Found:
    """A clip whose codec nothing here decodes is neither damaged nor no video."""
    code, told, _ = _edge(folder, "replay", path)
    return Found(code != 0 and "AV1" in told, told)


def good_cameras_beside_dead_ones(path: Path, folder: Path) -> Found:
    """Cameras that answer and then say nothing hold up no other one."""
    broker = Mosquitto(folder)
    with MjpegServer(first_s=LIMIT_S) as hanging, MjpegServer(fps=10) as playing:
        text = path.read_text().replace("port = 18830", f"port = {broker.port}")
        text = text.replace("http://127.0.0.1:18080/hang", hanging.url)
        text = text.replace("http://127.0.0.1:18080/mjpeg", playing.url)
        directories = {"state_dir": folder / "state", "models_dir": load().models_path}
        config = write_config(folder, text, **directories)
        broker.start()
        try:
            with subscriber(broker.port) as heard:
                daemon = subprocess.Popen(
                    [sys.executable, "-m", "edge", "run", "--config", str(config)],
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment_of(config),
                )
                try:
                    heard.wait(lambda: b"online" in heard.on("door/status"))
                    begun_s = time.monotonic()
                    heard.wait(
                        lambda: all(
                            b"online" in heard.on(f"camera/mjpeg-{number}/status") for number in (1, 2)
                        )
                    )
                    spent_s = time.monotonic() - begun_s
                finally:
                    daemon.terminate()
                    daemon.wait(LIMIT_S)
        finally:
            broker.stop()
    return Found(spent_s < ONLINE_S, f"both online {spent_s:.2f} s after the door")


def rolled_faces(path: Path, folder: Path) -> Found:
    """Strangers against a gallery whose photos are rolled by the same angle; the file is not run.

    From LARGEST_ROLL_DEG on nobody may be enrolled or compared. Below, the gallery may name no more strangers
    than twice the target, and of single comparisons no more may pass than chance gives at twice the target.
    """
    settings = load()
    base = build_recognizer(settings, Gallery.empty("sface-int8"))
    looks = with_photo_detector(base, PHOTO_SIDE_PX)
    told, right = [], True
    for roll_deg in ROLLS_DEG:
        enrolled = _rolled(range(1, 21), range(1, 2), roll_deg, looks.for_enrolment())
        strangers = _rolled(range(21, 41), range(1, 6), roll_deg, looks)
        if not len(enrolled) or not len(strangers):
            told.append(f"{roll_deg} deg: none usable")
            continue
        scores = np.sort(np.concatenate([strangers @ enrolled.T, np.full((len(strangers), 1), -1.0)], axis=1))
        clear = scores[:, -1] - scores[:, -2] >= base.rule.margin
        named = float((clear & (scores[:, -1] >= base.rule.threshold_for(len(enrolled)))).mean())
        passed = int((scores[:, 1:] >= base.rule.threshold_for(1)).sum())
        pairs = len(strangers) * len(enrolled)
        held = named <= 2 * TARGET and at_least(passed, 2 * TARGET * pairs) >= CHANCE
        right = right and roll_deg < LARGEST_ROLL_DEG and held
        told.append(
            f"{roll_deg} deg: {len(enrolled)} of 20 enrolled, {len(strangers)} of 100 strangers usable, "
            f"{named:.3f} named, {passed} of {pairs} single comparisons pass"
        )
    return Found(right, "\n".join(told))


def at_least(count: int, expected: float) -> float:
    """Return how likely `count` or more are where `expected` are: the upper tail of Poisson."""
    return 1 - sum(math.exp(k * math.log(expected) - expected - math.lgamma(k + 1)) for k in range(count))


def _rolled(subjects: range, photos: range, roll_deg: float, recognizer: Recognizer) -> FloatArray:
    """Return the embeddings (n, d) of the photos in which a usable face is found after rolling them."""
    found = []
    for subject in subjects:
        for number in photos:
            photo = read_photo(orl_photo(media_dir(load()), subject, number))
            image = cv2.copyMakeBorder(photo, 40, 40, 40, 40, cv2.BORDER_REPLICATE)
            height, width = image.shape[:2]
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), roll_deg, 1)
            image = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
            try:
                found.append(encode_photo(image, "photo", recognizer).embedding)
            except EdgeError:
                continue  # no usable face at that angle, which is what is counted
    return np.stack(found) if found else np.empty((0, 0), np.float32)


CASES: dict[str, Case] = {
    "declares_4g.png": declared_length,
    "valid_forever.csv": enrols,
    "excel_trailing_rows.csv": enrols,
    "excel_sep_line.csv": enrols,
    "excel_cp1252.csv": asks_for_utf8,
    "clock_jumps_back.ts": plays_on,
    "clock_jumps_ahead.ts": plays_on,
    "2026-11-29T10:15:00.mp4": plays,
    "av1.mkv": names_the_codec,
    "one_dead_camera_blocks_others.toml": good_cameras_beside_dead_ones,
    "rolled_faces.py": rolled_faces,
}
"""Inputs by the name of their file."""


def main() -> int:
    """Look at every input, or those named; prints a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.cases", description=__doc__)
    default = Path(os.environ.get(FOLDER) or ROOT.parent / "shared" / "cases")
    parser.add_argument("folder", type=Path, nargs="?", default=default, help=f"{FOLDER} when left out")
    parser.add_argument("--only", choices=CASES, action="append")
    chosen = parser.parse_args()
    leftovers.watch()
    table = Listing("input", "right", "what became of it", copied=("input",))
    wrong, tried = False, False
    for name in chosen.only or CASES:
        path = chosen.folder / name
        if not path.exists():
            print(f"{path}: not there, skipped")
            continue
        print(f"{name} ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found = CASES[name](path.absolute(), Path(folder))
        wrong, tried = wrong or found.right is False, True
        table.add_row(name, {True: "yes", False: "NO", None: "not yet held"}[found.right], found.told)
    if tried:
        table.print()
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
