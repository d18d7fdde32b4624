"""`python -m tests.fleet.cdn`: what doors cost a web server and a cache, with and without differences.

Each door is the real synchronisation, in a few processes. nginx has the example configuration, another nginx
is the cache, and their logs are counted. Doors, servers and this program share the machine: without a pace it
is what bounds the worst second. Plain HTTP: each connection costs a handshake more with TLS.
"""

import argparse
import json
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from edge.device.sync.sync import TIMEOUT_S, SyncSource
from edge.fleet.rollout.gallery import NUDGES_PER_S, REMOVALS_PER_S
from edge.gallery.format.published import delta_path, scope_role
from tests.support.fleets import Device, make_device, make_fleet, people
from tests.support.nginx import Answer, Nginx, running_cache, running_nginx

SCOPE = "front"
PAPER_DOORS = 10_000
PAPER_BYTES = 10**9
TIMER_S, TIMER_SPREAD_S, BOOT_S = 300.0, 60.0, 30.0
"""Source: systemd/edge-sync.timer."""

SLOW_DOORS, SLOW_KB_PER_S, SLOW_TIMEOUT_S, MOST_GOES = 20, 600, 3.0, 20
"""Doors at a slow line, whose synchronisation ends before the model is there; how often each may try."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one round of all doors came to; bytes with the heads of requests and answers."""

    what: str
    doors: int
    requests: int
    kb_a_door: float
    worst_second: int
    seconds: float
    door_s: float
    """Median of one synchronisation."""

    origin_requests: int
    origin_kb: float


def main() -> None:
    """Measure, and print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--doors", type=int, default=200)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--model-mb", type=int, default=4)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--pace", type=float, default=5.0, help="Doors a second, in the rounds with a pace.")
    options = parser.parse_args()
    console = Console(highlight=False)
    with (
        tempfile.TemporaryDirectory() as directory,
        ProcessPoolExecutor(options.processes) as pool,
        running_nginx(Path(directory) / "origin", Path(directory) / "fleet" / "published") as origin,
        running_cache(Path(directory) / "edge", origin.url) as cache,
        running_cache(Path(directory) / "slow", origin.url, f"limit_rate {SLOW_KB_PER_S}k;") as slow,
    ):
        measured = Rounds(pool, origin, cache, slow, console)
        rows = list(rounds(Path(directory), options, measured))
    table = Table("round", "requests", "kB a door", "worst second", "s", "s a door", "origin", "origin kB")
    for row in rows:
        table.add_row(
            row.what,
            str(row.requests),
            f"{row.kb_a_door:.1f}",
            str(row.worst_second),
            f"{row.seconds:.1f}",
            f"{row.door_s:.2f}",
            str(row.origin_requests),
            f"{row.origin_kb:.0f}",
        )
    console.print(table)
    console.print_json(json.dumps({"rounds": [asdict(row) for row in rows], "paper": paper(rows)}))


class Rounds:
    """Lets all doors synchronise, and counts what the servers answered meanwhile."""

    def __init__(
        self, pool: ProcessPoolExecutor, origin: Nginx, cache: Nginx, slow: Nginx, console: Console
    ) -> None:
        self._pool, self._origin, self._cache, self._slow = pool, origin, cache, slow
        self._console = console

    @property
    def url(self) -> str:
        """Where doors ask."""
        return self._cache.url

    def round(self, what: str, doors: list[Device], pace: float | None = None, *, slow: bool = False) -> Row:
        """Synchronise each door, `pace` of them a second or all at once; `slow`: until it has it."""
        cache = self._slow if slow else self._cache
        before = len(cache.answers()), len(self._origin.answers())
        began_s, running = time.monotonic(), list[Future[float]]()
        for number, door in enumerate(doors):
            if pace is not None:
                time.sleep(max(0.0, began_s + number / pace - time.monotonic()))
            source = replace(door.source, url=cache.url)
            running.append(self._pool.submit(synchronised, door.directory, source, MOST_GOES if slow else 1))
        spent = [each.result() for each in running]
        seconds = time.monotonic() - began_s
        asked, origin = cache.answers()[before[0] :], self._origin.answers()[before[1] :]
        row = Row(
            what,
            len(doors),
            len(asked),
            total_bytes(asked) / len(doors) / 1e3,
            worst_second(each.at_s for each in asked),
            seconds,
            statistics.median(spent),
            len(origin),
            total_bytes(origin) / 1e3,
        )
        self._console.print(f"{what}: {len(asked)} requests, {row.kb_a_door:.1f} kB a door, {seconds:.1f} s")
        return row


def rounds(directory: Path, options: argparse.Namespace, measured: Rounds) -> Iterable[Row]:
    """Yield the rounds, one after the other, of one fleet."""
    names = [f"p-{number:05}" for number in range(options.people)]
    fleet = make_fleet(directory / "fleet", SCOPE)
    gallery = people(*names)

    def one_more(*, whole: bool = False) -> None:
        nonlocal gallery
        newcomer = people(f"n-{gallery.size}")
        gallery = gallery.with_subjects([(newcomer.subjects[0], newcomer.templates_of(f"n-{gallery.size}"))])
        published = fleet.publish_gallery(SCOPE, gallery)
        if whole:
            fleet.repository.publish(scope_role(SCOPE), {}, [delta_path(SCOPE, published.version - 1)])

    fleet.publish_gallery(SCOPE, gallery)
    url = measured.url
    doors = [
        make_device(directory / f"door-{n}", fleet, SCOPE, url, timeout_s=90.0) for n in range(options.doors)
    ]
    yield measured.round("first time", doors)
    yield measured.round("nothing new", doors)
    yield measured.round(f"nothing new, {options.pace:g} doors/s", doors, options.pace)
    one_more(whole=True)
    yield measured.round("one person more, whole gallery", doors)
    one_more()
    yield measured.round("one person more, difference", doors)
    one_more()
    yield measured.round(f"one person more, difference, {options.pace:g} doors/s", doors, options.pace)
    for _ in range(5):
        one_more()
    yield measured.round("five versions missed, differences", doors)
    fleet.revoke(names[7])
    yield measured.round("one person revoked, difference", doors)

    weights = random.Random(0).randbytes(options.model_mb << 20)
    fleet.publish_model("net", {"manifest.toml": b"", "net.onnx": weights})
    fleet.publish_gallery(SCOPE, people(*names[:10], model_id="net@12345678"), model="net")
    some = [
        replace(door, source=replace(door.source, timeout_s=SLOW_TIMEOUT_S)) for door in doors[:SLOW_DOORS]
    ]
    yield measured.round(
        f"a model of {options.model_mb} MiB, {SLOW_KB_PER_S} kB/s, {SLOW_TIMEOUT_S:g} s a go", some, slow=True
    )
    yield measured.round(f"a model of {options.model_mb} MiB and its gallery", doors[SLOW_DOORS:])


def synchronised(directory: Path, source: SyncSource, times: int) -> float:
    """Synchronise one door, again up to `times` times where it was refused; returns the seconds."""
    logging.disable()  # what a simulated door complains of is in what it came to
    began_s = time.monotonic()
    door = Device(directory, source)
    for _ in range(times):
        outcome = replace(door.syncer(), adopt=taken).run()
        if outcome.status != "refused":
            return time.monotonic() - began_s
    raise AssertionError(f"{directory}: {outcome.error}")


def taken(name: str, fetch: Callable[[str], bytes]) -> tuple[str, int]:
    """Stand for the installation of a model, which needs no network."""
    fetch("net.onnx")
    return "net@12345678", 128


def paper(rows: list[Row]) -> dict[str, float]:
    """Return what the rounds come to for `PAPER_DOORS`, a model of `PAPER_BYTES`, and a simulated timer."""
    kb = {row.what: row.kb_a_door for row in rows}
    dice = np.random.default_rng(0)
    at_s = BOOT_S + dice.uniform(0, TIMER_SPREAD_S, PAPER_DOORS)
    after_boot = worst_second(at_s)
    looks = []
    while at_s.min() < 86_400:
        at_s = at_s + 1.0 + TIMER_S + dice.uniform(0, TIMER_SPREAD_S, PAPER_DOORS)
        looks.append(at_s)
    day = np.concatenate(looks)
    return {
        "doors": PAPER_DOORS,
        "doors in the worst second, after a power cut": after_boot,
        "doors in the worst second, timer, after half a day": worst_second(day[day > 43_200]),
        "seconds to ask all, published": PAPER_DOORS / NUDGES_PER_S,
        "seconds to ask all, revoked": PAPER_DOORS / REMOVALS_PER_S,
        "doors in the worst second, nudge": 2 * NUDGES_PER_S,
        "doors in the worst second, nudge of a revocation": 2 * REMOVALS_PER_S,
        "GB a day, nothing new": kb["nothing new"]
        * PAPER_DOORS
        * 86_400
        / (TIMER_S + TIMER_SPREAD_S / 2)
        / 1e6,
        "GB, one person more, whole gallery": kb["one person more, whole gallery"] * PAPER_DOORS / 1e6,
        "GB, one person more, difference": kb["one person more, difference"] * PAPER_DOORS / 1e6,
        "TB of a model": PAPER_DOORS * PAPER_BYTES / 1e12,
        "hours of a model from one server with 1 Gbit/s": PAPER_DOORS * PAPER_BYTES * 8 / 1e9 / 3600,
        "GB of a model from the origin for 100 caches": 100 * PAPER_BYTES / 1e9,
        "hours of a model at a door with 10 Mbit/s": goes_s(PAPER_BYTES * 8 / 10e6) / 3600,
    }


def goes_s(fetch_s: float) -> float:
    """Return how long a door takes for what takes `fetch_s` in all, 90 s a synchronisation."""
    goes = int(fetch_s // TIMEOUT_S)
    return goes * (TIMEOUT_S + TIMER_S + TIMER_SPREAD_S / 2) + fetch_s % TIMEOUT_S


def total_bytes(answers: list[Answer]) -> int:
    return sum(each.sent_bytes + each.asked_bytes for each in answers)


def worst_second(at_s: Iterable[float]) -> int:
    """Return how many fall into the second that has the most, wherever it begins."""
    times = np.sort(np.fromiter(at_s, float))
    return int((np.searchsorted(times, times + 1.0) - np.arange(len(times))).max())


if __name__ == "__main__":
    main()
