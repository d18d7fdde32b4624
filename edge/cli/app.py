"""The command line: every command is a thin call into a function that a test can call.

What fails is told in one line, and the exit code says of which kind it is: deploy/OPERATING.md has a table.
A module is imported when one of its commands is asked for: the daemon carries neither the tools that measure
nor what they need, and the list of commands needs none of them.
"""

import logging
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from edge import __version__
from edge.core.errors import (
    EX_CONFIG,
    EX_FAILURE,
    EX_NO_FACE,
    EX_USAGE,
    NO_USABLE_FACE,
    REFUSE_TO_START,
    EdgeError,
    UsageError,
)
from edge.core.process import PlainFormatter, end_with_parent, quiet_interrupts
from edge.core.text import printable

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where a command, or a group of commands, is found, and what the list of commands says of it."""

    module: str
    """Below this package."""

    name: str
    """In the module: of a function or a `typer.Typer`."""

    help: str
    """The first sentence or two of its own help."""


COMMANDS = {
    "init": Place(
        "door.init",
        "init",
        "Set a door up: write edge.toml, make its key, fetch its models, and try camera and broker.",
    ),
    "run": Place("door.run", "run", "Run the daemon until SIGTERM or SIGINT."),
    "check": Place(
        "door.run",
        "check",
        "Say what this device would do, and what keeps it from that. Connects to nothing, changes nothing.",
    ),
    "doctor": Place(
        "door.doctor",
        "doctor",
        "Look this door over: cameras, models, gallery, broker, board; green, yellow or red, and what to do.",
    ),
    "view": Place(
        "door.view",
        "view",
        "Show a camera in the browser, for whoever aims it: faces, verdicts, sizes now and needed.",
    ),
    "support": Place(
        "door.support",
        "support",
        "Write one file that may be sent to whoever helps: doctor, health, settings without secrets, log.",
    ),
    "schema": Place("door.run", "schema", "Print what every topic and MQTT message looks like, or write it."),
    "enroll": Place(
        "enrol",
        "enroll",
        "Enrol a subject from a photo or a camera, or many; nothing is retrained, a running daemon follows.",
    ),
    "identify": Place(
        "enrol",
        "identify",
        "Say whose face a photo shows, or that it is nobody's. Exits 1 for a reject, 3 for no usable face.",
    ),
    "verify": Place(
        "enrol",
        "verify",
        "Compare the faces of two photos 1:1. Exits 1 when they are different, 3 for no usable face.",
    ),
    "subjects": Place("subjects", "app", "The enrolled subjects of this device."),
    "strangers": Place(
        "strangers",
        "app",
        "Visits of people whom nobody knew, and matches, kept while `strangers.keep_hours` says so.",
    ),
    "gallery": Place("gallery", "app", "The gallery as a whole."),
    "calibrate": Place(
        "lab.calibrate",
        "calibrate",
        "Measure the false match rate over threshold: for an embedder (--images) or for a site (--cohort).",
    ),
    "sync": Place(
        "door.sync",
        "sync",
        "Fetch the gallery that is published for this door; a running daemon follows at once.",
    ),
    "fleet": Place(
        "fleet.fleet",
        "app",
        "Galleries for many doors: signed, sealed for each scope, published as files.",
    ),
    "config": Place(
        "fleet.config",
        "app",
        "Push configuration to a fleet of devices: signed, tried by each device, rolled back where it fails.",
    ),
    "journal": Place(
        "fleet.journal",
        "app",
        "Keep what the devices of a building decide, and see what a device cannot deliver.",
    ),
    "models": Place("models", "app", "The models: where they come from and whether they are intact."),
    "evaluate": Place("lab.evaluate", "app", "How accurate this is, on photos of your own."),
    "bench": Place(
        "lab.bench",
        "app",
        "Measure this device: stages, frames per second, int8 and fp32, beside the usual OpenCV loop.",
    ),
    "replay": Place(
        "lab.try_out",
        "replay",
        "Run a clip through the same pipeline as the daemon, as fast as it goes, without a broker.",
    ),
    "demo": Place(
        "lab.try_out",
        "demo",
        "Run the daemon on real clips and show its decisions. Exits 1 if they are not the expected ones.",
    ),
}
"""Commands and groups of commands, in the order of the help."""


JSON_FILES = (["evaluate"], ["calibrate"])
"""Commands whose `--json` took a file in the last release; goes with the next."""


def with_json_file(words: list[str]) -> list[str]:
    """Return the words of a command with `--json FILE` as `--json-file FILE`.

    What follows is a file unless it is an option, or the labels of `edge evaluate clips`.
    """
    read = list(words)
    for at, (word, follows) in enumerate(zip(words, [*words[1:], "-"], strict=True)):
        if word.startswith("--json=") or (word == "--json" and not follows.startswith("-")):
            if word == "--json" and follows.endswith(".toml"):
                continue
            read[at] = word.replace("--json", "--json-file", 1)
            log.warning("--json FILE is called --json-file FILE; the old form goes with the next release")
    return read


class Commands(TyperGroup):
    """Finds commands in `COMMANDS` and imports them on demand."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the words apart; reads `--json FILE` as `--json-file FILE` where that was its name."""
        return super().parse_args(ctx, with_json_file(args) if args[:1] in JSON_FILES else args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, None for a name that is none."""
        if cmd_name not in COMMANDS:
            return None
        place = COMMANDS[cmd_name]
        found = getattr(import_module(f"edge.cli.{place.module}"), place.name)
        if isinstance(found, typer.Typer):
            command: Any = get_group(found)
        else:
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command()(found)
            command = get_command(single)
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help from what `COMMANDS` says of each command; imports none of them."""
        listed = TyperGroup(
            name=self.name,
            help=self.help,
            params=self.params,
            commands={name: TyperCommand(name, help=place.help) for name, place in COMMANDS.items()},
            rich_markup_mode=self.rich_markup_mode,
        )
        listed.format_help(ctx, formatter)


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


def command_line() -> None:
    """Run `edge` with the arguments of this process, and end it with a code that says what came of it."""
    end_with_parent()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a label that the terminal has no letters for
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PlainFormatter())
    try:
        with quiet_interrupts():
            app()
    except Exception as error:
        code = _told(error)
        if code is None:
            raise
        raise SystemExit(code) from None


def _told(error: Exception) -> int | None:
    """Say in one line what has failed; return the exit code, None for what nobody thought of."""
    match error:
        case BrokenPipeError():
            sys.stderr.close()  # the reader of our output has gone, `edge replay ... | head`
            return EX_FAILURE
        case EdgeError():
            text = str(error)
        case MemoryError():
            text = "there is not enough memory"
        case OSError():
            text = f"{error.filename or 'the system'}: {error.strerror or error}"
        case _:
            return None
    print(f"edge: {printable(text)}", file=sys.stderr)
    if isinstance(error, UsageError):
        return EX_USAGE
    if isinstance(error, NO_USABLE_FACE):
        return EX_NO_FACE
    return EX_CONFIG if isinstance(error, REFUSE_TO_START) else EX_FAILURE
