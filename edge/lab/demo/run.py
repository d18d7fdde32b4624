"""The demo: the real daemon as a process of its own, on real clips, heard by a real MQTT subscriber.

Prints decisions as they arrive, then compares what was seen with what had to be seen.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from edge.core.download import Progress
from edge.core.errors import ConfigError, EdgeError
from edge.core.process import rss_mb
from edge.device.settings.load import Settings
from edge.face.choice import accurate_enough
from edge.face.manifest import AUTO, load_manifest
from edge.face.weights import fetch
from edge.lab.demo import scenario
from edge.lab.demo.broker import VERSION, embedded_broker
from edge.lab.demo.device import DEVICE, SITE, daemon_process, enrol_all, write_config
from edge.lab.demo.media import media_dir
from edge.lab.demo.page import page_dir, served, write_page
from edge.lab.demo.watch import DemoResult, Watcher
from edge.mqtt.contract.topics import Topics
from edge.mqtt.subscriber import Listener

READY_S = 20.0
"""More than a daemon needs to start, on any board."""

STOP_S = 10.0

ProgressOf = Callable[[str], AbstractContextManager[Progress]]


def run_demo(settings: Settings, *, broker: str | None, console: Console, progress: ProgressOf) -> DemoResult:
    """Fetch the models, enrol, start the daemon on the clips, listen, compare.

    Raises:
        EdgeError: Something the demo needs cannot be had.
    """
    media = media_dir(settings)
    embedder = settings.recognition.embedder
    embedders = [m.name for m in accurate_enough() if not m.optional] if embedder == AUTO else [embedder]
    for name in (settings.recognition.detector, *embedders):
        with progress(name) as step:
            fetch(load_manifest(name), settings.models_path, mirror=settings.models_mirror, progress=step)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-demo-")))
        host, port, websockets = stack.enter_context(_broker(broker))
        with progress("clips") as step:
            folders = scenario.lay_out(media, work, step)
        config = write_config(work, settings, folders, host, port, mqtt="auto" if broker else VERSION)
        with progress("enrol") as step:
            enrolled = enrol_all(settings, work / "state", media, step)
        topics = Topics(SITE, DEVICE)
        console.print(f"{enrolled} subjects enrolled, one photo each; the broker listens at {host}:{port}")
        page = stack.enter_context(_page(work / "page", page_dir(settings), websockets))
        console.print(page, soft_wrap=True)
        for camera, shown in scenario.SHOWN.items():
            console.print(f"camera {camera:6} {shown}", soft_wrap=True)
        listener = stack.enter_context(
            Listener(host, port, (f"{topics.root}/#",), version="auto" if broker else VERSION)
        )
        watcher = Watcher(listener.messages, topics, console)
        log = stack.enter_context((work / "daemon.log").open("wb"))
        daemon = stack.enter_context(daemon_process(config, stderr=log))
        watcher.watch(scenario.seconds(folders) + READY_S)
        rss = rss_mb(daemon.pid) if daemon.poll() is None else 0.0
        daemon.terminate()
        exit_code = daemon.wait(STOP_S)
        result = watcher.result(exit_code, rss)
        if not result.as_expected:
            console.print((work / "daemon.log").read_text()[-4000:], markup=False)
    console.print(result.table())
    console.print(result.scenes(), markup=False, soft_wrap=True)
    console.print(result.summary())
    console.print("page                 for a broker of yours: make page (deploy/README.md#the-page)")
    return result


@contextmanager
def _page(folder: Path, kept: Path, websockets: int | None) -> Iterator[str]:
    """Serve the page while the body runs; yields a line that says where, or why there is none."""
    if websockets is None:
        yield "page                 only with the demo's own broker; for others see deploy/README.md"
        return
    try:
        write_page(folder, kept, f"ws://127.0.0.1:{websockets}/")
    except EdgeError as error:
        yield f"page                 not now: {error}; later: make page"
        return
    with served(folder) as address:
        yield f"page                 {address} shows this door in a browser while it runs"


@contextmanager
def _broker(address: str | None) -> Iterator[tuple[str, int, int | None]]:
    """Yield host and port of the broker, and the port of its websockets where it is the demo's own."""
    if address is None:
        with embedded_broker() as (port, websockets):
            yield "127.0.0.1", port, websockets
        return
    host, separator, port_text = address.rpartition(":")
    if not (separator and host and port_text.isdigit()):
        raise ConfigError(f"--broker {address!r}: write HOST:PORT")
    yield host, int(port_text), None
