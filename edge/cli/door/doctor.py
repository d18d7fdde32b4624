"""`edge doctor`: look one door over, and say what is right, what is not, and what to do about it."""

from pathlib import Path
from typing import Annotated

import typer

from edge.cli.options import ConfigOption, JsonOption, config_path, load_settings
from edge.cli.output import progress, tell
from edge.core.errors import EX_FAILURE, ConfigError
from edge.core.text import printable
from edge.device.checkup.doctor import Findings, document, every, look_over, unreadable, worst
from edge.device.checkup.finding import LENS_DEG, Checkup, Light

COLOURS = {Light.GREEN: typer.colors.GREEN, Light.YELLOW: typer.colors.YELLOW, Light.RED: typer.colors.RED}


def doctor(
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Write what each camera shows, with faces, distances and advice on where to hang it, into "
            "this directory. The pictures show whoever stands there."
        ),
    ] = None,
    lens: Annotated[
        float, typer.Option(min=5, max=170, help="Horizontal view of the cameras' lenses in degrees.")
    ] = LENS_DEG,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """Look this door over: cameras, models, gallery, broker, board; green, yellow or red, and what to do.

    Changes nothing, and may be run while the daemon runs: cameras are then left to it. Somebody who stands
    before a camera lets it say whether it hangs the right way up. Where the daemon does not run, an empty
    message is sent to each of the door's topics, to see whether the broker lets the door write there.
    Exits 1 where something is red.
    """
    checkup, seen = looked_over(config_file, lens, pictures)
    tell(document(seen, checkup), lambda: show(seen), as_json=as_json)
    if worst(seen) is Light.RED:
        raise typer.Exit(EX_FAILURE)


def looked_over(
    config_file: Path | None, lens_deg: float = LENS_DEG, pictures: Path | None = None
) -> tuple[Checkup | None, Findings]:
    """Look a door over, with progress; None and why where not even its settings can be read."""
    path = config_path(config_file)
    try:
        settings = load_settings(path)
    except ConfigError as error:
        return None, unreadable(error)
    checkup = Checkup(settings, config_file=path, lens_deg=lens_deg, pictures=pictures)
    with progress("doctor") as step:
        return checkup, look_over(checkup, step)


def show(seen: Findings) -> None:
    """Print a line for each finding, and below it what to do."""
    width = max(len(each.about) for each in every(seen))
    for found in every(seen):
        light = typer.style(f"{found.light:<6}", fg=COLOURS[found.light])
        typer.echo(f"{light}  {found.about:<{width}}  {printable(found.told)}")
        if found.remedy is not None:
            typer.echo(f"{'':{width + 10}}-> {printable(found.remedy)}")
