"""What is tried by hand row by row, not by pytest: one after the other, as a table and as a file."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

Result = dict[str, object]
"""Of one row: `what`, whether it is `good`, the seconds `s` that it took, and what was `seen`."""


class NotHereError(Exception):
    """What is needed cannot be had on this machine; says why."""


def try_rows(
    rows: Mapping[str, Callable[[], str]], console: Console, last_log: Callable[[], str] = str
) -> list[Result]:
    """Try every row in order, also after one that fails; then `last_log` is told with it."""
    results: list[Result] = []
    for what, row in rows.items():
        console.print(f"{what} ...", highlight=False)
        began_s = time.monotonic()
        try:
            good, seen = True, row()
        except (AssertionError, OSError) as error:
            good, seen = False, f"{error} | {last_log()}"
        results.append({"what": what, "good": good, "s": round(time.monotonic() - began_s, 1), "seen": seen})
        if not good:
            console.print(f"{what}: {seen}", style="red", highlight=False, markup=False)
    return results


def tell(results: list[Result], out: Path, console: Console) -> int:
    """Print the table, write it to `out` as JSON, and return the exit code: 1 if a row failed."""
    table = Table("what", "s", "seen")
    for result in results:
        style = "" if result["good"] else "red"
        table.add_row(str(result["what"]), str(result["s"]), str(result["seen"]), style=style)
    console.print(table)
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(result["good"] for result in results) else 1
