"""`python -m tests.fleet.journal.rates`: how many decisions a second SQLite and PostgreSQL keep, in turn.

Both keep what they acknowledge: SQLite with synchronous=FULL, PostgreSQL with fsync. The server, its client
and this program share the machine.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edge.core.clock import SystemClock
from edge.fleet.journal.database import Database
from edge.fleet.journal.decision import JournalDecision, read_decision
from edge.fleet.journal.postgres import Postgres
from edge.fleet.journal.store import Store
from edge.mqtt.contract.messages import MAX_ACK_IDS
from tests.support.events import sent_event, topic
from tests.support.postgres import running_postgres

DOORS = 1000
TURN = 20_000
"""Decisions that one store keeps before it is the other's turn."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows: int = parser.parse_args().rows
    clock, console = SystemClock(), Console(highlight=False)
    with tempfile.TemporaryDirectory() as directory, running_postgres(durable=True) as server:
        stores: dict[str, Store] = {
            "sqlite": Database.open(Path(directory) / "journal.sqlite", print, clock.now),
            "postgresql": Postgres.open(server.database(), print, clock.now),
        }
        times = {name: list[float]() for name in stores}
        for start in range(0, rows, TURN):
            turn = list(_batches(start))
            for name, store in stores.items():
                began_s = time.perf_counter()
                for batch in turn:
                    store.add(batch)
                    store.numbers(batch)
                times[name].append(time.perf_counter() - began_s)
            console.print(
                f"{start + TURN:>9} " + " ".join(f"{n} {TURN / t[-1]:.0f}/s" for n, t in times.items())
            )
        for store in stores.values():
            store.close()
    table = Table("kept in", "decisions", "a second", "slowest turn")
    report = {}
    for name, spent in times.items():
        report[name] = {"rows": rows, "per_s": rows / sum(spent), "slowest_per_s": TURN / max(spent)}
        table.add_row(name, str(rows), f"{rows / sum(spent):.0f}", f"{TURN / max(spent):.0f}")
    console.print(table)
    console.print(json.dumps(report))


def _batches(start: int) -> Iterator[list[JournalDecision]]:
    for first in range(start, start + TURN, MAX_ACK_IDS):
        numbers = range(first + 1, first + MAX_ACK_IDS + 1)
        yield [_decision(number) for number in numbers]


def _decision(number: int) -> JournalDecision:
    device = f"door-{number % DOORS:03}"
    return read_decision(topic(device), sent_event(number, number, device))


if __name__ == "__main__":
    main()
