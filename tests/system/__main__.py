"""`make test-system`: the package in a real system, as a table and as out/system.json; 1 if a row fails.

Where such a system cannot be made it says why and exits 0: nothing was tried.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.support import leftovers
from tests.system.machine import Machine, NotHereError
from tests.system.rows import ROWS, Door


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test-system")
    parser.add_argument("package", type=Path, help="what `make deb` built")
    parser.add_argument("--base", type=Path, default=Path("/var/tmp/edge-test-system"))
    chosen = parser.parse_args()
    leftovers.watch()
    console = Console()
    console.print("making a Debian system ...", highlight=False)
    with tempfile.TemporaryDirectory(dir=chosen.base.parent) as directory:
        try:
            machine = Machine.make(Path(directory), chosen.base)
            machine.boot()
        except NotHereError as error:
            console.print(f"[yellow]NOTHING WAS TRIED: no system can be made here: {error}", highlight=False)
            return 0
        try:
            results = try_rows(Door(machine, chosen.package), console)
        finally:
            machine.stop()
    table = Table("what", "s", "seen")
    for result in results:
        table.add_row(result["what"], str(result["s"]), result["seen"], style="" if result["good"] else "red")
    console.print(table)
    console.print("Not tried: limits on memory and the device policy; they are not enforced in a container.")
    out = Path("out")
    out.mkdir(exist_ok=True)
    (out / "system.json").write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(result["good"] for result in results) else 1


def try_rows(door: Door, console: Console) -> list[dict[str, object]]:
    """Try every row in order; after one that fails the next are tried all the same."""
    results: list[dict[str, object]] = []
    try:
        for what, row in ROWS.items():
            console.print(f"{what} ...", highlight=False)
            began_s = time.monotonic()
            try:
                good, seen = True, row(door)
            except (AssertionError, OSError) as error:
                good, seen = False, f"{error} | {door.last_log()}"
            took_s = round(time.monotonic() - began_s, 1)
            results.append({"what": what, "good": good, "s": took_s, "seen": seen})
            if not good:
                console.print(f"[red]{what}: {seen}", highlight=False)
    finally:
        door.close()
    return results


if __name__ == "__main__":
    sys.exit(main())
