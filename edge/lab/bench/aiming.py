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

BLOCK = 25
"""Frames in a row that a view gets pictures of, or none: one second."""

DRAWS = 1000
"""How often the blocks are drawn anew for the interval."""


def measure_view(settings: Settings, rounds: int, step: Progress) -> dict[str, Any]:
    """Run the clips at their own speed with `edge view` and a browser beside, which get pictures by turns.

    For `BLOCK` frames they get pictures, for as many none, as if nobody looked: so what else the machine does
    meets both alike. Returns, by size of the frames, p50 and p95 of the loop in ms, the ratio of p95, and
    the interval in which 95 % of the ratios lie that blocks drawn anew give.

    Raises:
        EdgeError: Models or clips are missing, or the view does not start.
    """
    media, report = media_dir(settings), dict[str, Any]()
    recognizer = recognizer_of("sface-int8", settings, media)
    for label, size in SIZES.items():
        images, looked = load_frames(media, size, Metrics()), _Looked(settings, recognizer)
        with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
            feed = FrameFeed(Path(folder), anonymous=False, clock=SystemClock())
            feed.listen()
            with _open_view(Path(folder), feed):
                for number in range(rounds):
                    looked.run(images, feed, first=number % 2)
                    step(label, number + 1, rounds)
            feed.close()
        report[label] = looked.figures()
    return report


class _Looked:
    """What looks at frames have taken, in ms, by blocks: without pictures for a view, and with."""

    def __init__(self, settings: Settings, recognizer: Recognizer) -> None:
        self._settings, self._recognizer = settings, recognizer
        self._blocks: dict[str, list[list[float]]] = {"without": [], "with": []}

    def run(self, images: Sequence[Image], feed: FrameFeed, *, first: int) -> None:
        """Look at frames at the speed of life; blocks of the same number get pictures in every other run."""
        pipeline = build_pipeline(CAMERA, self._settings, metrics=Metrics(), clock=SystemClock())
        began_s, at = perf_counter(), datetime.now(UTC)
        for number, image in enumerate(images):
            sleep(max(0.0, began_s + number / FPS - perf_counter()))
            offset_s, shown = number / FPS, bool((number // BLOCK + first) % 2)
            if number % BLOCK == 0:
                self._blocks["with" if shown else "without"].append([])
            frame = Frame(CAMERA, image, at + timedelta(seconds=offset_s), began_s + offset_s, number)
            started_s = perf_counter()
            pipeline.process(frame, self._recognizer)
            if shown:
                feed.offer(frame, pipeline, self._recognizer)
            self._blocks["with" if shown else "without"][-1].append((perf_counter() - started_s) * 1e3)
            feed.tick()

    def figures(self) -> dict[str, Any]:
        """Return p50, p95, their ratio and its interval."""
        random = np.random.default_rng(0)
        drawn = [
            _p95([with_[i] for i in random.integers(0, len(with_), len(with_))])
            / _p95([without[i] for i in random.integers(0, len(without), len(without))])
            for without, with_ in [(self._blocks["without"], self._blocks["with"])] * DRAWS
        ]
        p95 = {name: _p95(blocks) for name, blocks in self._blocks.items()}
        return {
            "p50_ms": {
                name: round(float(np.median(np.concatenate(blocks))), 2)
                for name, blocks in self._blocks.items()
            },
            "p95_ms": {name: round(value, 2) for name, value in p95.items()},
            "ratio": round(p95["with"] / p95["without"], 3),
            "interval": [round(float(each), 3) for each in np.percentile(drawn, [2.5, 97.5])],
        }


def _p95(blocks: Sequence[list[float]]) -> float:
    return float(np.percentile(np.concatenate(blocks), 95))


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
