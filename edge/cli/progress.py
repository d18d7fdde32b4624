"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from edge.core.download import Progress
from edge.core.text import printable

PLAIN_STEP = 0.25
"""Share of the work between two plain lines."""


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Show the progress of one piece of work on standard error."""
    console, title = Console(stderr=True, markup=False, emoji=False), printable(title)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
        )
        with ProgressBar(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
            task = bar.add_task(title, total=None)

            def draw(what: str, done: float, total: float) -> None:
                bar.update(task, description=f"{title}: {what}", completed=done, total=total or None)

            yield draw
        return
    told: dict[str, float] = {}

    def write(what: str, done: float, total: float) -> None:
        share = done / total if total else 0.0
        if what not in told or share - told[what] >= PLAIN_STEP:
            told[what] = share
            typer.echo(f"{title}: {what} {share:.0%}" if total else f"{title}: {what}", err=True)

    yield write
