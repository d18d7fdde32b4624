"""The options and the file of commands that measure: `--json FILE`, `--plots DIR`. Measures nothing."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.errors import ConfigError


def _can_be_written(path: Path | None) -> Path | None:
    """Refuse, before minutes of work, a place that nothing can be written to."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ConfigError(f"--json: {path} cannot be written; name a file in a folder that exists")
    return path


ImagesOption = Annotated[
    Path, typer.Option(help="Folder with one sub-folder of photos per subject (as LFW).")
]
JsonFileOption = Annotated[
    Path | None,
    typer.Option("--json", callback=_can_be_written, help="Write the figures to this file."),
]
PlotsOption = Annotated[Path | None, typer.Option(help="Write plots into this directory.")]


def write_report(report: dict[str, Any], path: Path | None) -> None:
    """Write the figures as JSON; nothing where no file was named.

    Raises:
        ConfigError: The file cannot be written.
    """
    if path is None:
        return
    try:
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"--json: {path} cannot be written: {error.strerror}") from None
