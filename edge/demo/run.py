"""The demo: the real daemon as a process of its own, on real clips, heard by a real MQTT subscriber.

Prints decisions as they arrive, then compares what was seen with what had to be seen.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from edge.assembly import PHOTO_SIDE_PX, build_recognizer, gallery_store, with_photo_detector
from edge.clock import SystemClock
from edge.config import Settings
from edge.demo import scenario
from edge.demo.broker import embedded_broker
from edge.demo.media import media_dir
from edge.demo.watch import DemoResult, Watcher
from edge.enroll import encode_photo
from edge.errors import ConfigError
from edge.face import manifest as manifests
from edge.face.weights import fetch
from edge.health import rss_mb
from edge.mqtt.listener import Listener
from edge.mqtt.topics import Topics
from edge.types import Template

SITE, DEVICE = "demo", "door-01"
READY_S = 20.0
"""More than a daemon needs to start, on any board."""

STOP_S = 10.0

ProgressOf = Callable[[str], AbstractContextManager[Callable[[str, float, float], None]]]


def run_demo(settings: Settings, *, broker: str | None, console: Console, progress: ProgressOf) -> DemoResult:
    """Fetch the models, enrol, start the daemon on the clips, listen, compare.

    Raises:
        EdgeError: Something the demo needs cannot be had.
    """
    media = media_dir(settings)
    for name in manifests.needed(settings.recognition.detector, settings.recognition.embedder):
        with progress(name) as step:
            fetch(manifests.load(name), settings.models_path, mirror=settings.models_mirror, progress=step)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-demo-")))
        host, port = stack.enter_context(_broker(broker))
        folders = scenario.lay_out(media, work)
        config = _write_config(work, settings, folders, host, port)
        enrolled = _enrol_all(settings.model_copy(update={"state_dir": work / "state"}), media, progress)
        topics = Topics(SITE, DEVICE)
        console.print(f"{enrolled} subjects enrolled, one photo each; the broker listens at {host}:{port}")
        listener = stack.enter_context(Listener(host, port, (f"{topics.root}/#",)))
        watcher = Watcher(listener.messages, topics, console)
        daemon = stack.enter_context(_daemon(config, work / "daemon.log"))
        watcher.watch(scenario.seconds(folders) + READY_S)
        rss = rss_mb(daemon.pid) if daemon.poll() is None else 0.0
        daemon.terminate()
        exit_code = daemon.wait(STOP_S)
        result = watcher.result(exit_code, rss)
        if not result.as_expected:
            console.print((work / "daemon.log").read_text()[-4000:], markup=False)
    console.print(result.table())
    console.print(result.summary())
    return result


def _enrol_all(settings: Settings, media: Path, progress: ProgressOf) -> int:
    recognizer = build_recognizer(settings)
    photographer = with_photo_detector(recognizer, PHOTO_SIDE_PX)
    embedder, at = recognizer.embedder, SystemClock().now()
    entries = []
    with progress("enrol") as step:
        for number, photo in enumerate(scenario.photos(media), start=1):
            probe = encode_photo(photo.image, photo.name, photographer)
            template = Template(probe.embedding, probe.model_id, probe.quality, "photo", at)
            entries.append((photo.subject, [template]))
            step(photo.subject.subject_id, number, scenario.SUBJECTS)
    with gallery_store(settings).edit(embedder.model_id, embedder.dim) as edit:
        return edit.commit(edit.gallery.with_subjects(entries)).size


def _write_config(work: Path, settings: Settings, folders: dict[str, Path], host: str, port: int) -> Path:
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
    ]
    for camera, folder in folders.items():
        lines += [f"[cameras.{camera}]", f"source = {json.dumps(str(folder))}"]
    path = work / "edge.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def _broker(address: str | None) -> Iterator[tuple[str, int]]:
    if address is None:
        with embedded_broker() as port:
            yield "127.0.0.1", port
        return
    host, separator, port_text = address.rpartition(":")
    if not (separator and host and port_text.isdigit()):
        raise ConfigError(f"--broker {address!r}: write HOST:PORT")
    yield host, int(port_text)


@contextmanager
def _daemon(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", "run", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
