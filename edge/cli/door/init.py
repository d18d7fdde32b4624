"""`edge init`: write the first settings of a door, make its key, fetch its models, and try what was set."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.door.doctor import show
from edge.cli.options import load_settings
from edge.cli.output import progress
from edge.core.errors import EX_FAILURE, ConfigError, EdgeError, UsageError
from edge.core.ids import is_slug
from edge.core.text import printable
from edge.device.checkup.doctor import look_over, worst
from edge.device.checkup.finding import Checkup, Light
from edge.device.checkup.first_settings import (
    FirstAnswers,
    fetch_model,
    make_key,
    wanted_models,
    write_password,
    write_settings,
)

TRIED = ("settings", "cameras", "models", "broker")
"""Checks of `edge doctor` that say whether what was set works."""


def init(
    config_file: Annotated[Path, typer.Option("--config", "-c", help="Settings file to write.")] = Path(
        "edge.toml"
    ),
    site: Annotated[str, typer.Option(help="Site this door belongs to.")] = "home",
    device: Annotated[str, typer.Option(help="Name of this door, unique on its site.")] = "door",
    camera: Annotated[
        str,
        typer.Option(
            help="Device, stream, clip, or a program's command line; /dev/video0 where it is there."
        ),
    ] = "",
    broker: Annotated[str, typer.Option(help="HOST or HOST:PORT; TLS at port 8883.")] = "127.0.0.1",
    ca_file: Annotated[
        Path | None, typer.Option(help="Authority that signed the broker's certificate.")
    ] = None,
    username: Annotated[str, typer.Option(help="User at the broker; none when unset.")] = "",
    password_file: Annotated[Path | None, typer.Option(help="File that holds the password.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Directory for gallery, outbox and models.")] = None,
    recommended: Annotated[
        bool, typer.Option("--recommended", help="Fetch the models that tell a face from its picture, too.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a settings file; the old one is kept as FILE.old.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: options and defaults say it all.")] = False,
) -> None:
    """Set a door up: write edge.toml, make its key, fetch its models, and try camera and broker.

    On a terminal it asks for what no option says. Says plainly what does not work, and what to do about it;
    exits 1 then. What it has written stays, and may be edited.
    """
    asks = not yes
    if asks and not sys.stdin.isatty():
        raise UsageError(
            "--yes: nobody can be asked here; say it, and give options for what is not the default"
        )
    if config_file.exists() and not replace:
        if not (
            asks
            and typer.confirm(
                f"{config_file} is there already. Replace it (it is kept as {config_file}.old)?"
            )
        ):
            raise ConfigError(
                f"--config: {config_file} is there already; --replace keeps it as {config_file}.old"
            )
    password = ""
    camera = camera or next(map(str, sorted(Path("/dev").glob("video*"))), "")
    if asks:
        site, device = _slug("site", site), _slug("name of this door", device)
        camera = typer.prompt("camera: device, stream or clip", default=camera or None).strip()
        broker = typer.prompt("broker: HOST or HOST:PORT", default=broker).strip()
        username = typer.prompt(
            "user at the broker, empty for none", default=username, show_default=bool(username)
        )
        if username and password_file is None:
            password = typer.prompt(
                "password, empty for none", default="", hide_input=True, show_default=False
            )
    if not camera:
        raise UsageError("--camera: there is no /dev/video0; name a device, stream or clip")
    if password:
        password_file = config_file.with_name("mqtt.password")
    answers = FirstAnswers(site, device, camera, broker, ca_file, username or None, password_file, state_dir)
    kept = write_settings(config_file, answers.toml())
    if password and password_file is not None:
        write_password(password_file, password)
    typer.echo(f"{config_file} is written" + (f"; the one before is {kept}" if kept else ""))
    _set_up(config_file, recommended)


def _slug(what: str, default: str) -> str:
    while not is_slug(answer := str(typer.prompt(what, default=default)).strip()):
        typer.echo("use 1 to 32 of a-z, 0-9 and -")
    return answer


def _set_up(config_file: Path, recommended: bool) -> None:
    """Make the key, fetch models, try what was set, and say what to do next."""
    settings, failed = load_settings(config_file), False
    try:
        typer.echo(f"device key: {make_key(settings)}")
        for name in wanted_models(settings, recommended=recommended):
            with progress(name) as step:
                typer.echo(f"{name}: verified, {fetch_model(name, settings, step)}")
    except EdgeError as error:
        failed = True
        typer.echo(f"edge: {printable(str(error))}", err=True)
    checkup = Checkup(settings, config_file=config_file)
    with progress("try") as step:
        seen = look_over(checkup, step, only=TRIED)
    show(seen)
    option = f"--config {config_file}"
    typer.echo(f"enrol somebody: edge enroll p-1 PHOTO --label NAME {option}")
    typer.echo(f"then run the door: edge run {option}")
    if failed or worst(seen) is Light.RED:
        raise typer.Exit(EX_FAILURE)
