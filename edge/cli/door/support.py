"""`edge support`: one file for whoever helps, shown before it is written."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.door.doctor import looked_over
from edge.cli.options import ConfigOption, config_path, settings_reader
from edge.core import files
from edge.core.clock import utc_now
from edge.core.errors import ConfigError, UsageError
from edge.device.checkup.support import CONTENTS, archive, contents
from edge.device.pushes.memory import with_pushes
from edge.device.settings.load import origin


def support(
    out: Annotated[
        Path | None, typer.Option(help="Where to write it; edge-support-SITE-DEVICE-DATE.tar.gz when unset.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="File that the daemon's log goes to; systemd's journal when unset.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print all that would be written, and end.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Write it without asking.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Write one file that may be sent to whoever helps: doctor, health, settings without secrets, log.

    No picture, template, name or subject's id is in it. What goes in is shown first, and written when that
    is confirmed.
    """
    if not (yes or show or sys.stdin.isatty()):
        raise UsageError("--yes: nobody can be asked here whether to write it; look at it first with --show")
    checkup, seen = looked_over(config_file)
    path, read = config_path(config_file), settings_reader(config_file)
    pushed = {} if checkup is None else with_pushes(read({}), read)[1]
    from_where = origin(path, pushed) if checkup is not None else str
    texts = contents(checkup, seen, from_where, log)
    if show:
        _print(texts)
        return
    for name, what in CONTENTS.items():
        size = f"{len(texts[name].encode()) / 1e3:.0f} kB" if name in texts else "not there"
        typer.echo(f"{name:<13}  {size:>9}  {what}")
    at = utc_now()
    about = "door" if checkup is None else f"{checkup.settings.site}-{checkup.settings.device}"
    out = out or Path(f"edge-support-{about}-{at:%Y%m%d-%H%M%S}.tar.gz")
    while not yes:
        answer = typer.prompt(f"write {out}? yes, no, or show all of it", default="show").strip().lower()
        if answer.startswith("n"):
            raise typer.Exit
        yes = answer.startswith("y")
        if answer.startswith("s"):
            _print(texts)
    if out.exists():
        raise ConfigError(f"--out: {out} is there already; name another file")
    files.write_whole(out, archive(texts, at.timestamp()))
    typer.echo(f"{out} is written")


def _print(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        typer.echo(f"--- {name}\n{text}")
