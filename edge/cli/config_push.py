"""Commands about pushed configuration: keygen, sign, push, status, diff, schema."""

import json
import queue
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from edge.cli.operate import ConfigOption, load_settings
from edge.cli.progress import progress
from edge.clock import SystemClock
from edge.config import Settings
from edge.delivery import build_broker
from edge.errors import ConfigError
from edge.fleet.pushes import load_signing_key, make_signing_key, read_patch, signed_push
from edge.mqtt.listener import Listener
from edge.mqtt.topics import Topics
from edge.rollout import SETTLED, Device, SiteView, came_to, watched
from edge.twin import Desired, document, keys_of, marks, refusals, value_of

app = typer.Typer(no_args_is_help=True)

QUIET_S = 1.5
"""Retained messages come at once; after this long without one there are no more."""

WAITING = ("waiting", "pending", "none")
"""What may still come to something else."""

Scope = Literal["fleet", "group", "device"]
PatchArgument = Annotated[Path, typer.Argument(help="Settings to push, written like edge.toml, or JSON.")]
ScopeOption = Annotated[Scope, typer.Option(help="Whom it is for.")]
NameOption = Annotated[str | None, typer.Option(help="The device or the group.")]
VersionOption = Annotated[
    int | None, typer.Option(help="Higher than any before for this scope; seconds since 1970 when unset.")
]
KeyOption = Annotated[Path, typer.Option("--key", help="File of `edge config keygen`.")]


@app.callback()
def config() -> None:
    """Push configuration to a fleet of devices: signed, tried by each device, taken back where it fails."""


@app.command()
def keygen(file: Annotated[Path, typer.Argument(help="New file for the private key.")]) -> None:
    """Make a key that signs pushes, and print what devices have to trust."""
    public = make_signing_key(file)
    typer.echo(f"[push]\ntrusted_keys = [{json.dumps(public)}]")


@app.command()
def sign(
    patch: PatchArgument,
    key: KeyOption,
    scope: ScopeOption = "device",
    name: NameOption = None,
    version: VersionOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Print the signed envelope of a push, to be published retained by other means."""
    desired = _desired(load_settings(config_file), patch, scope, name, version)
    typer.echo(signed_push(desired, load_signing_key(key)).decode())


@app.command()
def push(
    patch: PatchArgument,
    key: KeyOption,
    scope: ScopeOption = "device",
    name: NameOption = None,
    version: VersionOption = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the devices' reports.")] = 90.0,
    config_file: ConfigOption = None,
) -> None:
    """Sign and publish a push, and wait until the devices that are online have tried it.

    Exits 1 where one refused it, took it back, or did not answer; what is offline gets it when it is back.
    """
    settings = load_settings(config_file)
    desired = _desired(settings, patch, scope, name, version)
    data = signed_push(desired, load_signing_key(key))
    topic = Topics(settings.site, settings.device if scope != "device" else name or "").config_desired(
        desired.layer
    )
    view, clock = SiteView(), SystemClock()
    with _listener(settings) as listener, progress("push") as told:
        _collect(listener, view, QUIET_S)
        listener.publish(topic, data, retain=True)
        until_s = clock.monotonic() + wait
        while clock.monotonic() < until_s:
            _collect(listener, view, 0.5, one=True)
            concerned = view.concerned(desired.layer, name)
            open_ = [d for d in concerned.values() if came_to(d, desired.layer, desired.version) in WAITING]
            told("devices", len(concerned) - len(open_), len(concerned))
            if concerned and not open_:
                break
    concerned = view.concerned(desired.layer, name)
    states = {each: came_to(device, desired.layer, desired.version) for each, device in concerned.items()}
    table = Table("device", "came to", "why", title=f"{desired.layer} version {desired.version}")
    for each, state in sorted(states.items()):
        report = concerned[each].report
        table.add_row(each, state, (report.error or "") if report and state in SETTLED else "")
    Console(markup=False, emoji=False).print(table)
    raise typer.Exit(0 if states and set(states.values()) <= {"applied", "offline"} else 1)


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Show the devices of the site: what is desired of each, what is in force, and what it refused."""
    settings = load_settings(config_file)
    view = SiteView()
    with _listener(settings) as listener:
        _collect(listener, view, QUIET_S)
    rows = {each: _row(device) for each, device in sorted(view.devices.items())}
    if as_json:
        typer.echo(json.dumps({"layers": view.layers, "devices": rows}, indent=2))
        return
    table = Table(
        "device", "online", "desired", "last push", "in force", "effective", "why", title=settings.site
    )
    for each, row in rows.items():
        table.add_row(each, *(str(value) if value is not None else "-" for value in row.values()))
    Console(markup=False, emoji=False).print(table)
    for layer, version in view.layers.items():
        typer.echo(f"{layer}: version {version} is published")


@app.command()
def diff(patch: PatchArgument, config_file: ConfigOption = None) -> None:
    """Compare a patch with a device's settings: what would change, when, and what would be refused."""
    settings = load_settings(config_file)
    changes = read_patch(patch)
    known, refused = marks(), refusals(changes, settings)
    table = Table("setting", "now", "pushed", "takes effect")
    for key, value in keys_of(changes).items():
        now = "-" if key in refused else str(value_of(settings, key))
        table.add_row(key, now, str(value), refused.get(key) or known[key])
    Console(markup=False, emoji=False).print(table)
    raise typer.Exit(1 if refused else 0)


@app.command()
def schema() -> None:
    """Print the JSON Schema of edge.toml for editors; `push` says what a push may do to each setting."""
    typer.echo(json.dumps(document(), indent=2))


def _desired(settings: Settings, patch: Path, scope: Scope, name: str | None, version: int | None) -> Desired:
    """Return what is to be signed.

    Raises:
        ConfigError, FleetError: It cannot be pushed; says why.
    """
    if (name is None) != (scope == "fleet"):
        raise ConfigError("--name: a device or a group has one, a fleet has none")
    values = read_patch(patch)
    refused = refusals(values, settings)
    if refused:
        raise ConfigError(f"{patch}: " + "; ".join(f"{key}: {why}" for key, why in refused.items()))
    number = int(SystemClock().now().timestamp()) if version is None else version
    Topics(settings.site, name or settings.device)
    try:
        return Desired.model_validate(
            {"scope": scope, "site": settings.site, "name": name, "version": number, "patch": values}
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc'])) or 'the push'}: {first['msg']}") from None


def _listener(settings: Settings) -> Listener:
    known = build_broker(settings.mqtt)
    return Listener(
        known.host,
        known.port,
        watched(settings.site),
        username=known.username,
        password=known.password,
        tls=known.tls,
    )


def _collect(listener: Listener, view: SiteView, quiet_s: float, *, one: bool = False) -> None:
    """Hear what comes until nothing has for `quiet_s`, or `one` message."""
    while True:
        try:
            message = listener.messages.get(timeout=quiet_s)
        except queue.Empty:
            return
        view.hear(message.topic, message.payload)
        if one:
            return


def _row(device: Device) -> dict[str, Any]:
    report = device.report
    return {
        "online": "yes" if device.online else "no",
        "desired": device.desired,
        "last": f"{report.layer or ''} {report.version or ''} {report.status}".strip() if report else None,
        "in_force": ", ".join(f"{layer} {v}" for layer, v in report.versions.items()) if report else None,
        "effective": report.effective[:12] if report else None,
        "error": report.error if report else None,
    }
