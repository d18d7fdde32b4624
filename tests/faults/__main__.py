"""`make faults`: every fault in its long form, as a table and as out/faults.json; exits 1 for a loss."""

import argparse
import json
import logging
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.ledger import Entry
from tests.faults.scenarios import SCENARIOS
from tests.support import leftovers


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument("--only", choices=SCENARIOS, action="append")
    parser.add_argument("--short", action="store_true")
    chosen = parser.parse_args()
    leftovers.watch()
    logging.disable(logging.CRITICAL)  # what is broken on purpose
    console, entries = Console(), list[Entry]()
    for name in chosen.only or SCENARIOS:
        scenario, long, short = SCENARIOS[name]
        rounds = short if chosen.short else long
        console.print(f"{name}: {rounds} round(s) ...", highlight=False)
        began_s = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            entry = scenario(Path(directory), rounds)
        entries.append(replace(entry, seconds=round(time.monotonic() - began_s, 1)))
    table = Table("fault", "rounds", "decided", "delivered", "lost", "wrong", "gaps", "repeated", "s", "note")
    for entry in entries:
        ended = (entry.lost, entry.wrong, entry.gaps, entry.repeated, entry.seconds)
        numbers = (entry.rounds, entry.decided, entry.delivered, *ended)
        table.add_row(entry.fault, *map(str, numbers), entry.note, style="" if entry.good else "red")
    console.print(table)
    out = Path("out")
    out.mkdir(exist_ok=True)
    (out / "faults.json").write_text(json.dumps([entry.to_json() for entry in entries], indent=2) + "\n")
    return 0 if all(entry.good for entry in entries) else 1


if __name__ == "__main__":
    sys.exit(main())
