"""Commands of `edge fleet` about devices and users of the broker: enroll-device, enroll-user, command."""

import base64
import binascii
import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli.options import (
    ConfigOption,
    KeyOptions,
    PictureOption,
    load_settings,
    with_option_groups,
)
from edge.core import files
from edge.core.clock import SystemClock
from edge.core.errors import CommandError, ConfigError
from edge.core.ids import is_slug
from edge.core.text import printable
from edge.device.assembly.delivery import build_broker
from edge.fleet.certificates import Authority
from edge.fleet.rollout.command import check_args, read_args, send_command, verbs_and_arguments
from edge.fleet.rollout.config import make_signing_key
from edge.fleet.rollout.forget import forget_device
from edge.mqtt.contract.topics import Party, Topics

USERS = tuple(party.value for party in Party if party is not Party.DEVICE)
"""The users that the access rules know beside the devices."""


@with_option_groups
def enroll_device(
    device: Annotated[str, typer.Argument(help="Which device of the site; or the broker, with --host.")],
    out: Annotated[Path, typer.Option(help="Directory for ca.crt, device.crt and device.key.")],
    host: Annotated[
        list[str] | None, typer.Option(help="Make the broker's certificate for these names and addresses.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long it is valid.")] = 825,
    *,
    options: KeyOptions,
    config_file: ConfigOption = None,
) -> None:
    """Make the certificate by which a device is known to the broker, and print its settings."""
    settings, clock = load_settings(config_file), SystemClock()
    authority = Authority(options.directory, clock.now())
    if host:
        ends = authority.issue(device, out, "broker", days=days, hosts=host)
        typer.echo(f"{out}: the broker's certificate, valid until {ends:%Y-%m-%d}")
        return
    Topics(settings.site, device)
    ends = authority.issue(f"{settings.site}/{device}", out, "device", days=days)
    typer.echo(f"# {out}: valid until {ends:%Y-%m-%d}; bring these files to the device")
    _tell_settings(Path("/etc/edge"), "device")


@with_option_groups
def enroll_user(
    user: Annotated[str, typer.Argument(help=f"Who logs in at the broker, such as {', '.join(USERS)}.")],
    out: Annotated[Path, typer.Option(help="Directory for ca.crt, USER.crt and USER.key.")],
    days: Annotated[int, typer.Option(min=1, help="How long it is valid.")] = 825,
    *,
    options: KeyOptions,
) -> None:
    """Make the certificate of a user of the broker that is no device, and print its settings for `edge`."""
    if not is_slug(user):
        raise ConfigError(f"{user[:40]!r} is no user that is not a device; use 1 to 32 of a-z, 0-9 and -")
    if user == "broker":
        raise ConfigError("the broker is no user; make its certificate with enroll-device and --host")
    ends = Authority(options.directory, SystemClock().now()).issue(user, out, user, days=days)
    if user not in USERS:
        typer.echo(f"warning: the access rules have to know {user}; they know {', '.join(USERS)}", err=True)
    typer.echo(f"# {out}: valid until {ends:%Y-%m-%d}; as edge.toml takes it, on this machine")
    _tell_settings(out.absolute(), user)


def _tell_settings(directory: Path, file: str) -> None:
    """Print the settings that show a certificate at the broker, from where it will lie."""
    paths = {"ca_file": "ca.crt", "cert_file": f"{file}.crt", "key_file": f"{file}.key"}
    lines = [f"{key} = {json.dumps(str(directory / name))}" for key, name in paths.items()]
    typer.echo("\n".join(["[mqtt]", "tls = true", *lines]))


def command_key(file: Annotated[Path, typer.Argument(help="New file for the private key.")]) -> None:
    """Make a key that signs commands, and print what devices have to trust."""
    typer.echo(f"[commands]\ntrusted_keys = [{json.dumps(make_signing_key(file))}]")


def forget(
    device: Annotated[str, typer.Argument(help="Which device of the site.")],
    running: Annotated[
        bool, typer.Option("--running", help="Also a device that is online; it says most of it again.")
    ] = False,
    config_file: ConfigOption = None,
) -> None:
    """Take back what the broker keeps of a device that is gone, or that has another name now."""
    settings = load_settings(config_file)
    assistant = settings.homeassistant
    gone = forget_device(
        build_broker(settings.mqtt),
        settings.site,
        device,
        discovery_prefix=assistant.prefix if assistant.discovery else None,
        running=running,
    )
    typer.echo(
        f"{device}: {len(gone)} retained message(s) taken back" if gone else f"{device}: nothing is kept"
    )


def command(
    device: Annotated[str, typer.Argument(help="Which device of the site.")],
    verb: Annotated[
        str,
        typer.Argument(
            help=f"One of these, each with its arguments: {verbs_and_arguments()}.".replace("[", "\\[")
        ),
    ],
    arg: Annotated[
        list[str] | None,
        typer.Option(help="An argument as key=value, such as subject=p-8f21; several times."),
    ] = None,
    photo: Annotated[Path | None, typer.Option(help="The argument photo, for enroll and identify.")] = None,
    out: PictureOption = None,
    key: Annotated[Path | None, typer.Option(help="File of `edge fleet command-key`; signs it.")] = None,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait for the answer.")] = 60.0,
    config_file: ConfigOption = None,
) -> None:
    """Have a device do something, over MQTT, and print its answer."""
    if out is not None and verb != "snapshot":
        raise typer.BadParameter(f"--out is for the picture of snapshot; {verb} has none")
    settings = load_settings(config_file)
    args = read_args(verb, arg or [], photo, partial(typer.echo, err=True))
    check_args(verb, args)
    broker, clock = build_broker(settings.mqtt), SystemClock()
    response = send_command(broker, settings.site, device, verb, args, key, wait_s=wait, clock=clock)
    if response.error is not None:
        raise CommandError(response.error)
    if out is not None:
        _write_picture(response.data, out)
        return
    message = response.data.get("message")
    typer.echo(printable(message) if isinstance(message, str) else json.dumps(response.data, indent=2))


def _write_picture(data: dict[str, Any], path: Path) -> None:
    """Write the picture of an answer.

    Raises:
        CommandError: There is none in it.
        FileError: It cannot be written.
    """
    try:
        picture = base64.b64decode(data["jpeg"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise CommandError("the device answered without a picture") from None
    files.write_whole(path, picture)
    typer.echo(f"{path}: {len(picture)} bytes")
