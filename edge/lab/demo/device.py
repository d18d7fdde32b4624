"""A device to play with: a gallery of real faces, a configuration, and the daemon as a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edge.core.clock import SystemClock
from edge.core.download import Progress
from edge.core.types import Template
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_recognizer, with_photo_detector
from edge.device.assembly.stores import gallery_store
from edge.device.settings.load import Settings, environment_without_settings
from edge.gallery.gallery import Gallery
from edge.lab.demo import scenario
from edge.recognition.enrolment.enrol import encode_photo
from edge.recognition.recognizer import Recognizer

SITE, DEVICE = "demo", "door-01"


def enrolled(recognizer: Recognizer, media: Path, step: Progress) -> Gallery:
    """Return a gallery of everybody in the scenario, one photo each.

    Raises:
        EdgeError: A photo cannot be read or enrolled.
    """
    photographer = with_photo_detector(recognizer, PHOTO_SIDE_PX).for_enrolment()
    at = SystemClock().now()
    entries = []
    for number, photo in enumerate(scenario.photos(media), start=1):
        probe = encode_photo(photo.image, photo.name, photographer)
        template = Template(probe.embedding, probe.model_id, probe.quality, "photo", at)
        entries.append((photo.subject, [template]))
        step("photos", number, scenario.SUBJECTS)
    return Gallery.empty(recognizer.embedder.model_id).with_subjects(entries)


def enrol_all(settings: Settings, state_dir: Path, media: Path, step: Progress) -> int:
    """Make that gallery the current one of `state_dir`; returns the number of subjects."""
    settings = settings.model_copy(update={"state_dir": state_dir, "models_dir": settings.models_path})
    return gallery_store(settings).commit(enrolled(build_recognizer(settings), media, step)).size


def write_config(
    work: Path, settings: Settings, sources: dict[str, Path], host: str, port: int, *, mqtt: str = "auto"
) -> Path:
    """Write a configuration with state below `work` and a camera per source; returns its path."""
    lines = [
        f'site = "{SITE}"',
        f'device = "{DEVICE}"',
        f"state_dir = {json.dumps(str(work / 'state'))}",
        f"models_dir = {json.dumps(str(settings.models_path.absolute()))}",
        "[log]",
        'format = "json"',
        "[mqtt]",
        f"host = {json.dumps(host)}",
        f"port = {port}",
        f'version = "{mqtt}"',
        "[recognition]",
        f"detector = {json.dumps(settings.recognition.detector)}",
        f"embedder = {json.dumps(settings.recognition.embedder)}",
    ]
    for camera, source in sources.items():
        lines += [f"[cameras.{camera}]", f"source = {json.dumps(str(source))}"]
    path = work / "edge.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def daemon_process(config: Path, *, stderr: IO[bytes] | int) -> Iterator[subprocess.Popen[bytes]]:
    """Run `edge run` on a configuration while the body runs; the environment adds no settings."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "run", "--config", str(config)],
        stdin=subprocess.DEVNULL,
        stderr=stderr,
        env=environment_without_settings(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
