"""The command line: every command is a thin call into a function that a test can call.

A module is imported when one of its commands is asked for: the daemon carries neither the tools that measure
nor what they need.
"""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from edge import __version__

COMMANDS = {
    "run": ("run", "run"),
    "check": ("run", "check"),
    "schema": ("run", "schema"),
    "enroll": ("enrol", "enroll"),
    "identify": ("enrol", "identify"),
    "verify": ("enrol", "verify"),
    "subjects": ("subjects", "app"),
    "strangers": ("strangers", "app"),
    "gallery": ("lab.calibrate", "gallery"),
    "calibrate": ("lab.calibrate", "calibrate"),
    "sync": ("sync", "sync"),
    "fleet": ("fleet.devices", "app"),
    "config": ("fleet.config", "app"),
    "journal": ("fleet.journal", "app"),
    "models": ("models", "app"),
    "evaluate": ("lab.evaluate", "app"),
    "bench": ("lab.bench", "app"),
    "replay": ("lab.try_out", "replay"),
    "demo": ("lab.try_out", "demo"),
}
"""Commands and groups of commands: the module of this package and the name in it."""


class Commands(TyperGroup):
    """Finds commands in `COMMANDS` and imports them on demand."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, None for a name that is none."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        found = getattr(import_module(f"edge.cli.{module}"), name)
        if isinstance(found, typer.Typer):
            command: Any = get_group(found)
        else:
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command()(found)
            command = get_command(single)
        command.name = cmd_name
        return command


app = typer.Typer(
    name="edge",
    help="Face recognition at an unattended door: one-shot gallery, decisions over MQTT.",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


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
