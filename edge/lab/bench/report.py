"""All measurements of one run as one document, and as tables for people."""

import os
import platform
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from edge import __version__
from edge.core.download import Progress
from edge.device.settings.load import Settings
from edge.lab.bench.delivery import measure_delivery
from edge.lab.bench.frames import measure
from edge.lab.bench.startup import measure_start

STAGES = ("decode", "gate", "detect", "far", "track", "align", "embed", "match", "decide", "loop")


def machine() -> dict[str, Any]:
    """Return on what the figures of a bench were measured."""
    return {
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


def run_bench(settings: Settings, *, rounds: int, progress: Progress) -> dict[str, Any]:
    """Measure start-up, frames per second and delivery of an event; returns the JSON document.

    Raises:
        EdgeError: Models or clips are missing, or the daemon does not start.
    """
    return {
        "schema": "edge.bench/1",
        "version": __version__,
        "machine": machine()
        | {
            "opencv": cv2.__version__,
            "numpy": np.__version__,
            "threads": settings.recognition.threads,
        },
        "start": measure_start(settings, rounds, progress),
        "frames": measure(settings, rounds, progress),
        "delivery": measure_delivery(progress),
    }


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print a report as tables."""
    start = report["start"]
    console.print(
        f"start: ready in {start['ready_s']:.2f} s, connected in {start['connected_s']:.2f} s, "
        f"{start['rss_mb']:.0f} MB resident"
    )
    table = Table("frames/s", *report["frames"].keys(), title="pipeline beside the usual OpenCV loop")
    sizes = list(report["frames"].values())
    for name in dict.fromkeys(name for size in sizes for name in size["fps"]):
        table.add_row(name, *(f"{size['fps'][name]:.0f}" if name in size["fps"] else "-" for size in sizes))
    table.add_row("times the OpenCV loop", *(f"{size['times_opencv_loop']:.1f}" for size in sizes))
    table.add_row(
        "times the loop that sees as far",
        *(f"{size['times_at_equal_range']:.1f}" if size["equal_range"] else "-" for size in sizes),
    )
    seen = (size["equal_range"] for size in sizes)
    table.add_row("(faces from, width)", *(f"{s['face_px']} px, {s['width_px']}" if s else "-" for s in seen))
    table.add_row("same decisions", *("yes" if size["decisions_equal"] else "NO" for size in sizes))
    table.add_row("own overhead", *(f"{size['own_overhead']['sface-int8']:.2%}" for size in sizes))
    console.print(table)
    stages = Table("stage, ms p50 / p95", *report["frames"].keys(), title="sface-int8")
    for stage in STAGES:
        cells = [size["stages_ms"]["sface-int8"].get(stage) for size in sizes]
        if any(cells):
            stages.add_row(
                stage, *(f"{cell['p50']:.2f} / {cell['p95']:.2f}" if cell else "-" for cell in cells)
            )
    console.print(stages)
    delivery = report["delivery"]
    console.print(
        f"publish: encode {delivery['encode_ms']['p50']:.3f} ms, "
        f"commit {delivery['commit_ms']['p50']:.2f} ms (p50)"
    )
