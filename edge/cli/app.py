"""The command line: every command is a thin call into a function that a test can call."""

from typing import Annotated

import typer

from edge import __version__
from edge.cli import bench, calibrate, evaluate, gallery, models, operate, tryout

app = typer.Typer(
    name="edge",
    help="Face recognition at an unattended door: one-shot gallery, decisions over MQTT.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(models.app, name="models")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(bench.app, name="bench")
app.add_typer(gallery.subjects, name="subjects")
app.add_typer(calibrate.gallery, name="gallery")
for command in (
    operate.run,
    operate.check,
    operate.schema,
    gallery.enroll,
    gallery.identify,
    gallery.verify,
    calibrate.calibrate,
    tryout.replay,
    tryout.demo,
):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edge {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Face recognition at an unattended door: one-shot gallery, decisions over MQTT."""
