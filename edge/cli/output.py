"""How results are shown: tables, the progress of long work, reports written to files.

In a table what has to be copied is never cut, and nothing in a cell is taken for mark-up. Progress is a
bar on a terminal and plain lines elsewhere.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table
from rich.text import Text

from edge.core.errors import ConfigError
from edge.core.text import printable
from edge.gallery.alike.shift import MIN_SUBJECTS
from edge.gallery.decision import ThresholdShift

PLAIN_STEP = 0.25
"""Share of the work between two plain lines."""


def shift_told(shift: ThresholdShift | None) -> str:
    """Say what is added to the calibrated threshold here, and why."""
    if shift is None:
        return "none: a raw threshold does not follow how alike people are here"
    if shift.gallery is None:
        shown = (
            f"fewer than {MIN_SUBJECTS} people can be compared: the gallery does not tell how alike they are"
        )
    else:
        alike = f"are {shift.gallery:.3f} more alike" if shift.gallery else "are not more alike"
        kept = f" and {shift.strangers} strangers kept" if shift.strangers else ""
        shown = f"the {shift.compared} enrolled{kept} {alike} than the calibration's faces"
        shown += f" (95 % interval {shift.low:.3f} to {shift.high:.3f})"
        if shift.look_alikes:
            shown += f"; for {shift.look_alikes} who look like several others up to +{shift.highest:.3f}"
    of_site = "decision.site_shift; " if shift.site > (shift.gallery or 0.0) else ""
    return f"+{shift.value:.3f}: {of_site}{shown}"


class Shown:
    """The progress of one piece of work on standard error; call it as a `core.download.Progress`.

    A bar on a terminal, elsewhere a line for each quarter.
    """

    def __init__(self, title: str, bar: ProgressBar | None) -> None:
        self._title, self._bar = title, bar
        self._task = None if bar is None else bar.add_task(title, total=None)
        self._told: dict[str, float] = {}

    def __call__(self, what: str, done: float, total: float) -> None:
        """Show how much is done, of `total`; 0: nobody knows."""
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, description=f"{self._title}: {what}", completed=done, total=total or None
            )
            return
        share = done / total if total else 0.0
        if what not in self._told or share - self._told[what] >= PLAIN_STEP:
            self._told[what] = share
            typer.echo(f"{self._title}: {what} {share:.0%}" if total else f"{self._title}: {what}", err=True)

    def echo(self, line: str) -> None:
        """Write a line to standard output while the bar is shown; it keeps below."""
        if self._bar is None:
            typer.echo(line)
            return
        self._bar.stop()  # takes it off the terminal
        typer.echo(line)
        self._bar.start()


@contextmanager
def progress(title: str) -> Iterator[Shown]:
    """Show the progress of one piece of work on standard error."""
    console, title = Console(stderr=True, markup=False, emoji=False), printable(title)
    if not console.is_terminal:
        yield Shown(title, None)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
    )
    with ProgressBar(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        yield Shown(title, bar)


def tell(
    report: dict[str, Any], show: Callable[[], object], *, as_json: bool, json_file: Path | None = None
) -> None:
    """Write the figures, as JSON, to a file where one is named; print them as JSON, or as `show` does.

    Raises:
        ConfigError: The file cannot be written.
    """
    document = json.dumps(report, indent=2)
    if json_file is not None:
        try:
            json_file.write_text(f"{document}\n")
        except OSError as error:
            raise ConfigError(f"--json-file: {json_file} cannot be written: {error.strerror}") from None
    if as_json:
        typer.echo(document)
    else:
        show()


def show_table(table: Table) -> None:
    """Print a table of figures."""
    Console().print(table)


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Print what is so, under a name each; on a terminal lines are broken beside the names, paths are not."""
    console = Console(highlight=False)
    width = console.width if console.is_terminal else UNLIMITED
    for name, text in rows:
        indent = " " * FACT_CHARS
        shown = f"{name:{FACT_CHARS}}{printable(text)}"
        typer.echo(
            fill(shown, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
        )


def warning(text: str) -> None:
    """Print what somebody should know before it hurts, in yellow where there are colours."""
    console = Console()
    width = console.width if console.is_terminal else UNLIMITED
    shown = fill(printable(text), width, break_on_hyphens=False, break_long_words=False)
    typer.secho(shown, fg=typer.colors.YELLOW)


def descriptions(rows: Iterable[tuple[str, str]]) -> None:
    """Print on a terminal what each of many things is, below its name."""
    width = Console().width
    for name, text in rows:
        typer.echo(fill(printable(name), width, subsequent_indent="    ", break_long_words=False))
        typer.echo(fill(printable(text), width, initial_indent="    ", subsequent_indent="    "))


FACT_CHARS = 11
"""Columns that the name of a fact takes."""

UNLIMITED = 10_000
"""Columns of what is no terminal: one line per row, for `grep` and files."""

LEAST = 8
"""Columns that text which may be folded gets at the least."""


class Listing:
    """A table; the columns `copied` hold ids, paths and the like, which are printed whole."""

    def __init__(self, *columns: str, copied: Collection[str] = (), title: str | None = None) -> None:
        self._table = Table(title=None if title is None else Text(printable(title)))
        self._copied = copied
        for column in columns:
            self._table.add_column(Text(column), overflow="fold", no_wrap=column in copied)

    def add_row(self, *cells: str) -> None:
        """Add a row; a cell may have several lines."""
        shown = ["\n".join(map(printable, cell.split("\n"))) for cell in cells]
        for column, cell in zip(self._table.columns, shown, strict=False):
            if str(column.header) in self._copied:
                longest = max(map(len, cell.split("\n")))
                column.min_width = max(column.min_width or 0, longest)
        self._table.add_row(*map(Text, shown))

    def print(self) -> None:
        """Print it to standard output; on a terminal too narrow for an id lines are broken, not ids."""
        console = Console(highlight=False)
        widths = [max(column.min_width or LEAST, len(str(column.header))) for column in self._table.columns]
        needed = sum(width + 3 for width in widths) + 1
        console.width = max(console.width, needed) if console.is_terminal else UNLIMITED
        console.print(self._table, crop=False, no_wrap=True)
