"""What an open aiming view costs the decision loop: frames looked at with one and without, alternately."""

import http.client
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from time import perf_counter, sleep
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from edge.core.clock import SystemClock
from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.core.metrics import Metrics
from edge.core.process import child_environment
from edge.core.types import Frame, Image
from edge.device.assembly.recognizer import build_pipeline
from edge.device.cameras.feed import FrameFeed
from edge.device.settings.load import Settings
from edge.lab.bench.frames import FPS, SIZES, load_frames, recognizer_of
from edge.lab.demo.media import media_dir
from edge.recognition.recognizer import Recognizer

CAMERA = "bench"


def measure_view(settings: Settings, rounds: int, step: Progress) -> dict[str, Any]:
    """Run the clips at their own speed, once without and once with a view and a browser, `rounds` times.

    Returns, by size of the frames, p50 and p95 of the loop in ms and the ratios of p95, one per round.

    Raises:
        EdgeError: Models or clips are missing, or the view does not start.
    """
    media, report = media_dir(settings), dict[str, Any]()
    recognizer = recognizer_of("sface-int8", settings, media)
    for label, size in SIZES.items():
        images = load_frames(media, size, Metrics())
        spent: dict[str, list[list[float]]] = {"without": [], "with": []}
        with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
            feed = FrameFeed(Path(folder), anonymous=False, clock=SystemClock())
            feed.listen()
            for number in range(rounds):
                # Who goes first changes, so that a machine that grows slower favours neither.
                for name in ("without", "with") if number % 2 else ("with", "without"):
                    if name == "with":
                        with _open_view(Path(folder), feed):
                            spent[name].append(_looked_at(images, recognizer, settings, feed))
                    else:
                        spent[name].append(_looked_at(images, recognizer, settings, feed))
                step(label, number + 1, rounds)
            feed.close()
        p95 = {name: [float(np.percentile(run, 95)) for run in runs] for name, runs in spent.items()}
        ratios = [one / other for one, other in zip(p95["with"], p95["without"], strict=True)]
        report[label] = {
            "p50_ms": {
                name: round(float(np.median(np.concatenate(runs))), 2) for name, runs in spent.items()
            },
            "p95_ms": {name: round(float(np.median(values)), 2) for name, values in p95.items()},
            "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
            "ratio": round(float(np.median(ratios)), 3),
        }
    return report


def _looked_at(
    images: Sequence[Image], recognizer: Recognizer, settings: Settings, feed: FrameFeed
) -> list[float]:
    """Look at frames at the speed of life, as the daemon does; returns what each took, in ms."""
    pipeline = build_pipeline(CAMERA, settings, metrics=Metrics(), clock=SystemClock())
    spent, began_s, at = [], perf_counter(), datetime.now(UTC)
    for number, image in enumerate(images):
        sleep(max(0.0, began_s + number / FPS - perf_counter()))
        offset_s = number / FPS
        frame = Frame(CAMERA, image, at + timedelta(seconds=offset_s), began_s + offset_s, number)
        started_s = perf_counter()
        pipeline.process(frame, recognizer)
        feed.offer(frame, pipeline, recognizer)
        spent.append((perf_counter() - started_s) * 1e3)
        feed.tick()
    return spent


@contextmanager
def _open_view(state_dir: Path, feed: FrameFeed) -> Iterator[None]:
    """Run `edge view` with a browser's connection to its stream while the body runs."""
    config = state_dir / "edge.toml"
    config.write_text(f'state_dir = "{state_dir}"\n[cameras.{CAMERA}]\nsource = "{state_dir}"\n')
    command = [sys.executable, "-m", "edge", "view", "--port", "0", "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment())
    assert process.stdout is not None
    try:
        url = urlsplit(process.stdout.readline().partition("open ")[2].partition(" (")[0])
        if url.hostname is None:
            raise MediaError("the view did not start")
        connection = http.client.HTTPConnection(url.hostname, url.port)
        connection.request("GET", f"/?{url.query}")
        answer = connection.getresponse()
        answer.read()
        connection.request("GET", "/stream", headers={"Cookie": answer.getheader("Set-Cookie", "")})
        stream = connection.getresponse()
        feed.tick()
        Thread(target=lambda: [None for _ in iter(lambda: stream.read(65536), b"")], daemon=True).start()
        yield
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
