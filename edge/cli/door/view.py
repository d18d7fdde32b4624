"""`edge view`: a page that shows what a camera sees, for whoever aims it."""

import ipaddress
import os
from typing import Annotated

import typer

from edge.cli.options import ConfigOption, load_settings
from edge.cli.output import warning
from edge.core.errors import UsageError
from edge.lab.view.live_view import pictures_of, show
from edge.lab.view.server import ViewServer

PORT = 8764
MOST_MINUTES = 10.0

NICENESS = 10
"""How much this process makes way for the door."""


def view(
    camera: Annotated[str, typer.Option(help="Which camera; may be left out where there is one.")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = PORT,
    minutes: Annotated[
        float, typer.Option(min=0.01, max=MOST_MINUTES, help="It ends by itself after so long.")
    ] = MOST_MINUTES,
    config_file: ConfigOption = None,
) -> None:
    """Show a camera in the browser, for whoever aims it: faces, verdicts, sizes now and needed.

    While the daemon runs its pictures are shown; else the camera is opened. The address that is printed lets
    one browser in. Nothing is recorded or published. Not in privacy mode.
    """
    settings = load_settings(config_file)
    if not camera and len(settings.cameras) != 1:
        raise UsageError(f"name a --camera (configured: {', '.join(settings.cameras) or 'none'})")
    name = camera or next(iter(settings.cameras))
    with ViewServer(host, port, name, minutes) as server:
        pictures, from_daemon = pictures_of(name, settings)
        if from_daemon:
            os.nice(NICENESS)
        if not _is_loopback(host):
            warning("Whoever is on the way can see the pictures: this is plain HTTP. `ssh -L` is safer.")
        source = "the daemon's pictures" if from_daemon else "the camera itself; no daemon runs here"
        show(
            server,
            pictures,
            minutes,
            lambda address: typer.echo(f"camera {name}, {source}: open {address} (Ctrl-C ends it)"),
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
