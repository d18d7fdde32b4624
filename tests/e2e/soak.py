"""A door at full rate while all around it restarts: what its process holds, and what it writes."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edge.core.process import rss_mb
from edge.lab.photos.plots import new_figure, save
from tests.e2e.device import Device
from tests.e2e.test_fleet import Operator
from tests.support.broker import Mosquitto
from tests.support.waits import wait_until

WARM_SHARE = 0.2
"""Of the time: caches fill. It lasts until every disturbance has come once: from then on is compared."""

LEAST_ROUNDS = 4
"""One to warm up, and two between those that are compared: each builds the recognizer twice."""

SAMPLE_S = 0.5
"""Between two looks at the process."""


@dataclass(frozen=True)
class Sample:
    """What the daemon holds at a moment, and what it and its children have written so far."""

    at_s: float
    rss_mb: float
    fds: int
    threads: int
    written_mb: float


@dataclass(frozen=True)
class Soak:
    """What a run has shown. Rates are of the time after the warm-up.

    `rounds_s` tells when a round of all disturbances was over, each time.
    """

    samples: tuple[Sample, ...]
    disturbed: dict[str, int]
    rounds_s: tuple[float, ...]

    @property
    def warm_s(self) -> float:
        """When the warm-up ended."""
        return max(WARM_SHARE * self.samples[-1].at_s, self.rounds_s[0])

    @property
    def settled(self) -> tuple[Sample, ...]:
        """The samples after the warm-up."""
        return tuple(each for each in self.samples if each.at_s >= self.warm_s)

    def grown(self, kind: str) -> float:
        """By how much the least of the last quarter of the rounds lies above that of the first.

        The least, because what a disturbance takes is given back before the round is over.
        """
        rounds = [span for span in pairwise(self.rounds_s) if span[0] >= self.warm_s]
        quarter = max(1, len(rounds) // 4)

        def least(begin_s: float, end_s: float) -> float:
            return float(min(getattr(each, kind) for each in self.samples if begin_s <= each.at_s < end_s))

        return least(rounds[-quarter][0], rounds[-1][1]) - least(rounds[0][0], rounds[quarter - 1][1])

    def report(self) -> dict[str, Any]:
        """The figures, for people and for out/soak.json."""
        settled = self.settled
        hours = (settled[-1].at_s - settled[0].at_s) / 3600
        spans = {
            kind: {
                "min": min(getattr(each, kind) for each in settled),
                "max": max(getattr(each, kind) for each in settled),
                "grown": round(self.grown(kind), 2),
            }
            for kind in ("rss_mb", "fds", "threads")
        }
        low, slope, high = slope_per_hour(settled)
        return {
            "schema": "edge.soak/1",
            "minutes": round(self.samples[-1].at_s / 60, 1),
            "disturbed": self.disturbed,
            **spans,
            "rss_mb_per_hour": {"slope": round(slope, 2), "low": round(low, 2), "high": round(high, 2)},
            "written_mb_per_hour": round((settled[-1].written_mb - settled[0].written_mb) / hours, 1),
            "samples": [asdict(each) for each in self.samples],
        }


def slope_per_hour(samples: tuple[Sample, ...]) -> tuple[float, float, float]:
    """Return the median slope of resident memory between all pairs of a thinned run, with its quartiles.

    Source: Theil-Sen estimator. One peak, or one step back, does not move it.
    """
    thinned = samples[:: max(1, len(samples) // 200)]
    at, mb = (np.array([getattr(each, kind) for each in thinned]) for kind in ("at_s", "rss_mb"))
    first, second = np.triu_indices(len(thinned), max(1, len(thinned) // 4))
    slopes = (mb[second] - mb[first]) / (at[second] - at[first]) * 3600
    low, middle, high = np.percentile(slopes, [25, 50, 75])
    return float(low), float(middle), float(high)


def sample(pid: int, began_s: float) -> Sample:
    """Look at a process. Source: proc(5); `io` counts children that were waited for, too."""
    proc = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    io = dict(line.split(": ") for line in (proc / "io").read_text().splitlines())
    written = int(io["write_bytes"]) - int(io["cancelled_write_bytes"])
    fds = len(list((proc / "fd").iterdir()))
    return Sample(time.monotonic() - began_s, rss_mb(pid), fds, int(status["Threads"]), written / 1e6)


def disturbances(device: Device, broker: Mosquitto, operator: Operator) -> dict[str, Callable[[], object]]:
    """What happens around the door, in turn."""
    days = cycle(("30", "31"))
    assert device.process

    def reload() -> None:
        before = len(device.said("reloaded"))
        device.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(device.said("reloaded")) > before, "a reload")

    return {
        "broker restarts": broker.restart,
        "reloads": reload,
        "galleries": lambda: operator.publish("front", "--valid-days", next(days), "--nudge"),
    }


def soak(
    device: Device,
    broker: Mosquitto,
    operator: Operator,
    *,
    seconds: float,
    pause_s: float,
    tell: Callable[[Sample], None] = lambda _: None,
) -> Soak:
    """Watch a device for so long, and `LEAST_ROUNDS` at least; `pause_s` lie between two disturbances."""
    assert device.process
    around = disturbances(device, broker, operator)
    counts, turns = dict.fromkeys(around, 0), cycle(around)
    pid, began_s, samples, over = device.process.pid, time.monotonic(), list[Sample](), threading.Event()
    rounds_s = list[float]()

    def watch() -> None:
        while not over.wait(SAMPLE_S):
            samples.append(sample(pid, began_s))
            tell(samples[-1])

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        while time.monotonic() - began_s < seconds or len(rounds_s) < LEAST_ROUNDS:
            kind = next(turns)
            around[kind]()
            counts[kind] += 1
            time.sleep(pause_s)
            if min(counts.values()) > len(rounds_s):
                rounds_s.append(time.monotonic() - began_s)
    finally:
        over.set()
        watching.join()
    return Soak(tuple(samples), counts, tuple(rounds_s))


def plot(run: Soak, path: Path) -> None:
    """Draw what the process held over time."""
    figure = new_figure((8, 8))
    axes = figure.subplots(4, 1, sharex=True)
    minutes = [each.at_s / 60 for each in run.samples]
    titles = {"rss_mb": "resident MB", "fds": "open files", "threads": "threads", "written_mb": "MB written"}
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        axis.plot(minutes, [getattr(each, kind) for each in run.samples], linewidth=0.8)
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("minutes")
    save(figure, path)
