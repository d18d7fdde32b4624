"""`make test-system`: the package in a real system, as a table and as out/system.json; 1 if a row fails.

Where such a system cannot be made it says why and exits 0: nothing was tried. Without a package it only says
whether one can be made here, and exits 1 where not.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from rich.console import Console

from tests.support import leftovers
from tests.support.tried import NotHereError, tell, try_rows
from tests.system.machine import NEEDS, Machine, check_containers
from tests.system.rows import ROWS, Door


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test-system")
    parser.add_argument("package", type=Path, nargs="?", help="what `make deb` built; none: only say whether")
    parser.add_argument("--base", type=Path, default=Path("/var/tmp/edge-test-system"))
    chosen = parser.parse_args()
    leftovers.watch()
    console = Console()
    if chosen.package is None:
        try:
            check_containers(NEEDS)
        except NotHereError as error:
            console.print(f"test-system is skipped: no system can be made here: {error}", highlight=False)
            return 1
        return 0
    console.print("making a Debian system ...", highlight=False)
    with tempfile.TemporaryDirectory(dir=chosen.base.parent) as directory:
        try:
            machine = Machine.make(Path(directory), chosen.base)
            machine.boot()
        except NotHereError as error:
            console.print(f"[yellow]NOTHING WAS TRIED: no system can be made here: {error}", highlight=False)
            return 0
        door = Door(machine, chosen.package)
        try:
            rows = {what: partial(row, door) for what, row in ROWS.items()}
            results = try_rows(rows, console, door.last_log)
        finally:
            door.close()
            machine.stop()
    console.print("Not tried: limits on memory and the device policy; they are not enforced in a container.")
    return tell(results, Path("out/system.json"), console)


if __name__ == "__main__":
    sys.exit(main())
