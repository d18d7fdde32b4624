"""Cells of tables that hold what came from elsewhere: shown as they are, obeyed by nobody."""

from rich.text import Text

from edge.redact import printable


def plain(value: object) -> Text:
    """Return a cell: no markup, no control characters; None is a dash."""
    return Text("-" if value is None else printable(str(value)))
