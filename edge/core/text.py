"""Text from elsewhere, as names of files and answers of devices, fit for a terminal and a spreadsheet."""

FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes for the beginning of a formula. Source: OWASP, CSV injection."""


def printable(text: str) -> str:
    """Return a text as one line that drives no terminal: what cannot be printed is told as an escape."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def cell(text: str) -> str:
    """Return a text for a CSV file: printable, and with a `'` before what a spreadsheet would compute."""
    shown = printable(text)
    return f"'{shown}" if shown.startswith(FORMULA) else shown
