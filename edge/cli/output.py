"""Tables for people: what has to be copied is never cut, and nothing in a cell is taken for mark-up."""

from collections.abc import Collection

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge.core.text import printable

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
