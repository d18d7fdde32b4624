"""The options that name where a result goes, checked before the work: `--json FILE`, `--plots DIR`."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import CallbackParam

from edge.core.errors import ConfigError


def _can_be_written(parameter: CallbackParam, path: Path | None) -> Path | None:
    """Refuse, before minutes of work, a place that nothing can be written to; leaves no file there."""
    if path is None:
        return None
    try:
        is_new = not os.path.lexists(path)
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise ConfigError(
            f"{parameter.opts[0]}: {path} cannot be written: {error.strerror}; name a file in a folder that "
            "exists"
        ) from None
    return path


def _can_hold_files(path: Path | None) -> Path | None:
    if path is not None and path.exists() and not path.is_dir():
        raise ConfigError(f"--plots: {path} is a file; name a folder, also one that is to be made")
    return path


ImagesOption = Annotated[
    Path, typer.Option(help="Folder with one sub-folder of photos per subject (as LFW).")
]
JsonFileOption = Annotated[
    Path | None,
    typer.Option("--json", callback=_can_be_written, help="Write the figures to this file."),
]
PlotsOption = Annotated[
    Path | None, typer.Option(callback=_can_hold_files, help="Write plots into this directory.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", callback=_can_be_written, help="Also write the result as JSON here.")
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report", callback=_can_be_written, help="Write what became of each of many to this CSV file."
    ),
]


def write_report(report: dict[str, Any], path: Path | None, option: str = "--json") -> None:
    """Write the figures as JSON; nothing where no file was named.

    Raises:
        ConfigError: The file cannot be written.
    """
    if path is None:
        return
    try:
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be written: {error.strerror}") from None
