"""The options and the file of commands that measure: `--json FILE`, `--plots DIR`. Measures nothing."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import CallbackParam

from edge.errors import ConfigError


def _can_be_written(parameter: CallbackParam, path: Path | None) -> Path | None:
    """Refuse, before minutes of work, a place that nothing can be written to."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        option = parameter.opts[0]
        raise ConfigError(f"{option}: {path} cannot be written; name a file in a folder that exists")
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
