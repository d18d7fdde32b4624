"""`python -m tests.brokers`: which brokers the product works with, as a table and as out/brokers.json.

Starts each broker that can be had: Debian's in trees of their own (which needs root), others from their
registries of packages. What could not be had is said. `--only` names some;
`--protocol` leaves the product out.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from edge.device.settings.load import load
from edge.lab.demo.device import enrol_all
from edge.lab.demo.media import media_dir
from tests.brokers import product, protocol
from tests.brokers.kinds import KINDS, Kind, RunningBroker
from tests.support import leftovers
from tests.support.tried import NotHereError

SHORT = 9
"""Characters that stand in the table; what is longer is a note below it."""

Tried = TypeVar("Tried")
Cells = dict[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.brokers")
    parser.add_argument("--base", type=Path, default=Path("/var/tmp/edge-brokers"))
    parser.add_argument("--only", nargs="+", default=[""], metavar="PART", help="of the brokers' names")
    parser.add_argument("--protocol", action="store_true", help="only what a broker does of MQTT")
    chosen = parser.parse_args()
    leftovers.watch()
    console = Console(highlight=False)
    kinds = [kind for kind in KINDS if any(part.lower() in kind.name.lower() for part in chosen.only)]
    chosen.base.mkdir(parents=True, exist_ok=True)
    table: dict[str, Cells] = {}
    for kind in kinds:
        console.print(f"{kind.name} ...")
        began_s = time.monotonic()
        try:
            kind.prepare(chosen.base)
            table[kind.name] = _try(kind, chosen.base, console, whole=not chosen.protocol)
        except NotHereError as error:
            console.print(f"[yellow]{kind.name} was NOT TRIED, it cannot be had here: {error}")
        else:
            console.print(f"{kind.name}: {time.monotonic() - began_s:.0f} s")
    show(table, console)
    out = Path("out/brokers.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(table, indent=2) + "\n")
    return 0


def _try(kind: Kind, base: Path, console: Console, *, whole: bool) -> Cells:
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        try:
            broker = RunningBroker(kind, base, here / "open").start()
            speaks_5 = None
            try:
                cells = tried({**protocol.ROWS, **protocol.SLOW_ROWS}, broker, console)
                speaks_5 = broker.speaks_5
                if whole:
                    site = _site(broker, here)
                    try:
                        cells |= tried(product.ROWS, site, console)
                    finally:
                        site.door.stop(9)
            finally:
                broker.stop()
            if kind.rules:
                broker = RunningBroker(kind, base, here / "guarded", rules=True)
                broker.speaks_5 = speaks_5
                try:
                    cells |= tried(protocol.RULES_ROWS, broker.start(), console)
                finally:
                    broker.stop()
        finally:
            shutil.rmtree(base / "forky/srv" / here.name, ignore_errors=True)
            shutil.rmtree(base / "trixie/srv" / here.name, ignore_errors=True)
    return cells


def _site(broker: RunningBroker, directory: Path) -> product.Site:
    settings = load()
    media, state = media_dir(settings), directory / "state"
    enrol_all(settings, state, media, lambda what, done, total: None)
    return product.Site(broker, directory, state, settings.models_path, media / "face_noface.mov")


def tried(rows: Mapping[str, Callable[[Tried], str]], what: Tried, console: Console | None = None) -> Cells:
    """Try every row in order, also after one that fails."""
    cells: Cells = {}
    for name, row in rows.items():
        try:
            cells[name] = row(what)
        except protocol.NewerOnlyError:
            cells[name] = "-"
        except (AssertionError, OSError, ValueError, KeyError) as error:
            cells[name] = f"{type(error).__name__}: {error}"
        if console is not None:
            console.print(f"    {name}: {cells[name]}", markup=False)
    return cells


def show(found: Mapping[str, Cells], console: Console) -> None:
    """Print a row for each thing that was tried, a column for each broker, and below what is not plain."""
    table, notes = Table("", *found), dict[str, int]()

    def short(said: str) -> str:
        said = re.sub(r"127\.0\.0\.1:\d+", "HOST:PORT", said)
        return said if len(said) <= SHORT else f"({notes.setdefault(said, len(notes) + 1)})"

    for name in dict.fromkeys(name for cells in found.values() for name in cells):
        table.add_row(name, *(short(cells.get(name, "")) for cells in found.values()))
    console.print(table)
    for said, number in notes.items():
        console.print(f"({number}) {said}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
