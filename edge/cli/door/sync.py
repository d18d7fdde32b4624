"""The command that a device fetches its gallery with: started by a timer, by the daemon, or by hand."""

from typing import Annotated

import typer

from edge.cli.options import ConfigOption, load_settings
from edge.core.clock import SystemClock
from edge.core.errors import EdgeError
from edge.device.sync.outcome import refusal
from edge.device.upkeep.synchronisation import synchronise


def sync(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document, also when it is refused.")
    ] = False,
    config_file: ConfigOption = None,
) -> None:
    """Fetch the gallery that is published for this door; a running daemon follows at once.

    Exits 0 when the published gallery serves, 1 when it is refused or cannot be had: the last one serves on.
    """
    try:
        settings = load_settings(config_file)
    except EdgeError as error:
        if as_json:
            typer.echo(refusal(error, SystemClock().now()).to_json())
        raise
    outcome, why = synchronise(settings, SystemClock())
    if as_json:
        typer.echo(outcome.to_json())
    if why is not None:
        raise why
    if as_json:
        return
    what = "installed" if outcome.status == "updated" else "serves already"
    typer.echo(f"gallery version {outcome.version} with {outcome.count} subject(s) {what}")
    if outcome.error is not None:
        typer.echo(f"error: {outcome.error}", err=True)
