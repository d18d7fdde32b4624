"""What several commands share: their options, checked before the work, and the settings of this device."""

import os
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import CallbackParam

from edge.camera.photo_store import photo_folder
from edge.core.errors import ConfigError
from edge.device.pushes.memory import effective
from edge.device.pushes.push import Patch
from edge.device.settings.load import Settings, load

SYSTEM_CONFIG = Path("/etc/edge/edge.toml")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help=f"Settings file; {SYSTEM_CONFIG} where it exists, else defaults."),
]


def load_settings(path: Path | None) -> Settings:
    """Read the settings file named, or the system's if there is one, or the defaults; and what was pushed."""
    read = settings_reader(path)
    return effective(read({}), read)


def config_path(path: Path | None) -> Path | None:
    """Return the settings file: the one named, or the system's if there is one."""
    return SYSTEM_CONFIG if path is None and SYSTEM_CONFIG.is_file() else path


def settings_reader(path: Path | None) -> Callable[[Patch], Settings]:
    """Return what reads the settings file anew, with a patch on top."""
    return partial(load, config_path(path))


def _can_be_written(parameter: CallbackParam, path: Path | None) -> Path | None:
    """Refuse, before minutes of work, a place that nothing can be written to; leaves no file there."""
    if path is None:
        return None
    try:
        is_new = not os.path.lexists(path)
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise ConfigError(
            f"{parameter.opts[0]}: {path} cannot be written: {error.strerror}; name a file in a folder that "
            "exists"
        ) from None
    return path


def _can_hold_files(path: Path | None) -> Path | None:
    if path is not None and path.exists() and not path.is_dir():
        raise ConfigError(f"--plots: {path} is a file; name a folder, also one that is to be made")
    return path


def photos_option(text: str) -> Any:
    """Return an option that takes a folder of photos, or the address of one in a store."""
    return typer.Option(parser=photo_folder, metavar="<path>", help=f"{text} Also in a store: s3://...")


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
ImagesOption = Annotated[Path, photos_option("Folder with one sub-folder of photos per subject (as LFW).")]
CohortOption = Annotated[
    Path | None,
    photos_option("Photos of people of this site who are not enrolled, one sub-folder each; 20 or more."),
]
JsonFileOption = Annotated[
    Path | None,
    typer.Option("--json-file", callback=_can_be_written, help="Also write the figures to this file."),
]
EmbedderOption = Annotated[
    str | None, typer.Option("--model", help="Embedder; the configured one when left out.")
]
EnrolOption = Annotated[int, typer.Option("--enroll", min=1, help="Photos enrolled per subject.")]
MinImagesOption = Annotated[int, typer.Option(min=2, help="Photos that a subject needs to be enrolled.")]
PlotsOption = Annotated[
    Path | None, typer.Option(callback=_can_hold_files, help="Write plots into this directory.")
]
OldOutOption = Annotated[Path | None, typer.Option("--out", callback=_can_be_written, hidden=True)]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        help="A Dask scheduler whose workers embed instead of this machine: tcp://HOST:8786, or tls://."
    ),
]
PictureOption = Annotated[
    Path | None,
    typer.Option("--out", callback=_can_be_written, help="snapshot: write the picture to this file."),
]
SheetOption = Annotated[
    Path, typer.Option("--sheet", callback=_can_be_written, help="Picture to write: .png or .jpg.")
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report", callback=_can_be_written, help="Write what became of each of many to this CSV file."
    ),
]

LargestOption = Annotated[
    bool, typer.Option("--largest", help="Where a photo shows several faces, use the largest.")
]
FaceOption = Annotated[
    int | None,
    typer.Option("--face", min=1, help="Where a photo shows several faces, use this one, from the left."),
]
ShowOption = Annotated[
    Path | None,
    typer.Option(
        "--show", callback=_can_be_written, help="Write the photo with a number at each face to this file."
    ),
]

SubjectArgument = Annotated[str, typer.Argument(help="Opaque id of the subject.")]
SubjectsArgument = Annotated[list[str], typer.Argument(help="Opaque ids of the subjects.")]
LabelOption = Annotated[str | None, typer.Option(help="What people read; the id when left out.")]
GroupOption = Annotated[
    list[str] | None, typer.Option(help="Door group; may be given several times; '' for none.")
]
FromOption = Annotated[
    str | None, typer.Option("--valid-from", help="First good day, 2026-12-31; '' for none.")
]
UntilOption = Annotated[str | None, typer.Option("--valid-until", help="Last good day; '' for none.")]
WindowOption = Annotated[
    list[str] | None,
    typer.Option(help="Weekly window, 'mon-fri 07:00-18:00'; may be given several times; '' for none."),
]
ZoneOption = Annotated[str | None, typer.Option(help="Time zone of the windows; the door's when left out.")]
ConsentOption = Annotated[str | None, typer.Option(help="Where the subject's consent is filed.")]
NotesOption = Annotated[str | None, typer.Option(help="One line for yourself.")]

FleetOption = Annotated[Path, typer.Option("--fleet", help="Directory of the fleet.")]
HERE = Path("fleet")


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """Where the keys of a fleet are."""

    fleet: FleetOption = HERE
    keys: Annotated[
        Path | None, typer.Option("--keys", help="Directory of its keys; FLEET/keys when unset.")
    ] = None

    @property
    def directory(self) -> Path:
        """The directory of the keys."""
        return self.keys or self.fleet / "keys"


@dataclass(frozen=True, slots=True)
class FleetOptions(KeyOptions):
    """A fleet that is to be changed, and what its keys are encrypted with."""

    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="Its first line encrypts the signing keys.")
    ] = None


@dataclass(frozen=True, slots=True)
class NudgeOptions:
    """Whether doors are asked to synchronise after a publication, which ones, and for how long."""

    nudge: Annotated[
        bool,
        typer.Option(
            "--nudge", help="Ask the doors over MQTT to synchronise now, and wait until they have it."
        ),
    ] = False
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="With --nudge: only this device; several times. All that serve the scope when unset."
        ),
    ] = None
    wait: Annotated[
        float,
        typer.Option(
            min=0, max=3600, help="With --nudge: seconds to wait for them after the last was asked."
        ),
    ] = 60.0


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses of options: every field of one is an option of the command."""
    parameters: list[Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in signature(command).parameters.values():
        kind = parameter.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            groups[parameter.name] = kind
            fields = signature(kind).parameters.values()
            parameters += [field.replace(kind=Parameter.KEYWORD_ONLY) for field in fields]
        else:
            parameters.append(parameter)

    @wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: group(**{field: given.pop(field) for field in signature(group).parameters})
            for name, group in groups.items()
        }
        command(**given, **made)

    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run
