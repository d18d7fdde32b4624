"""Commands about configuration pushes: keygen, sign, push, status, diff, schema.

What devices say of themselves is shown as text and not trusted.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from edge.cli.options import ConfigOption, JsonOption, load_settings, settings_reader
from edge.cli.output import Listing, progress
from edge.core.clock import SystemClock
from edge.core.errors import CommandError, ConfigError, LinkError, UsageError
from edge.core.text import first_problem, printable
from edge.device.assembly.delivery import build_broker
from edge.device.pushes.push import (
    MAX_VERSION,
    Desired,
    Patch,
    document,
    keys_of,
    marks,
    mistakes,
    refusals,
    value_of,
)
from edge.device.settings.load import Settings
from edge.fleet.rollout.command import send_command
from edge.fleet.rollout.config import (
    OPEN,
    Device,
    SiteView,
    load_signing_key,
    make_signing_key,
    read_patch,
    signed_push,
    watched,
)
from edge.fleet.rollout.listen import check_accepted, gathered, hear_kept, nobody_heard, site_listener
from edge.mqtt.contract.topics import Topics, check_slug
from edge.mqtt.subscriber import Message


def push_table(title: str, states: Mapping[str, tuple[str, str]]) -> Listing:
    """Return what became of a push at each device, and why."""
    table = Listing("device", "came to", "why", copied=("device",), title=title)
    for device, (state, why) in sorted(states.items()):
        table.add_row(device, state, why)
    return table


def row(device: Device) -> dict[str, Any]:
    """Return what a list of devices tells of one."""
    report = device.report
    return {
        "online": "yes" if device.online else "no" if device.seen else "never seen",
        "desired": device.desired,
        "last": f"{report.layer or ''} {report.version or ''} {report.status}".strip() if report else None,
        "in_force": ", ".join(f"{layer} {v}" for layer, v in report.versions.items()) if report else None,
        "effective": report.effective[:12] if report else None,
        "error": report.error if report else None,
        "refused": f"{report.refused.count}: {report.refused.error}" if report and report.refused else None,
    }


def status_table(site: str, rows: Mapping[str, Mapping[str, Any]]) -> Listing:
    """Return all devices of a site, one `row` each."""
    columns = ("online", "desired", "last push", "in force", "effective", "why", "not believed")
    table = Listing("device", *columns, copied=("device",), title=site)
    for name, values in rows.items():
        table.add_row(name, *("-" if value is None else str(value) for value in values.values()))
    return table


def detail(device: Device) -> dict[str, Any]:
    """Return everything that is known of one device."""
    reported = device.report.model_dump(mode="json") if device.report else None
    return {"online": device.online, "desired": device.desired, "reported": reported}


def detail_table(name: str, device: Device) -> Listing:
    """Return everything that is known of one device, a line for each setting and layer."""
    table, report = Listing("", " ", title=name), device.report
    told: dict[str, Any] = row(device)
    if report is not None:
        told |= {"groups": ", ".join(report.groups) or None, "reported": report.at.isoformat()}
        told |= {f"layer {layer}": f"version {version}" for layer, version in report.versions.items()}
        told |= report.keys
    for key, value in told.items():
        table.add_row(key, "-" if value is None else str(value))
    return table


app = typer.Typer(no_args_is_help=True)

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
    """Push configuration to a fleet of devices: signed, tried by each device, rolled back where it fails."""


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
    offline_ok: Annotated[
        bool, typer.Option("--offline-ok", help="Publish it also where no such device was ever seen.")
    ] = False,
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
    named = [name] if scope == "device" and name is not None else []
    with (
        site_listener(build_broker(settings.mqtt), watched(settings.site, *named)) as listener,
        progress("push") as told,
    ):
        hear_kept(listener, partial(_hear, view), clock)
        if not offline_ok and not view.concerned(desired.layer, name):
            raise ConfigError(
                f"nothing is published: no device of {desired.layer} {name or ''} was ever seen at site "
                f"{settings.site}; check --name, or give --offline-ok to leave it for when one comes"
            )
        pushed = view.push(desired.layer, name, desired.version, data)
        listener.publish(topic, data, retain=True)
        until_s = clock.monotonic() + wait
        while clock.monotonic() < until_s:
            for message in gathered(listener, clock):
                _hear(view, message)
            check_accepted(listener)
            states = view.came_to(pushed)
            open_ = sum(state in OPEN for state, _ in states.values())
            told("devices", len(states) - open_, len(states))
            if not open_:
                break
    states = view.came_to(pushed)
    push_table(f"{desired.layer} version {desired.version}", states).print()
    raise typer.Exit(0 if {state for state, _ in states.values()} <= {"applied", "offline"} else 1)


@app.command()
def status(
    device: Annotated[
        str | None, typer.Argument(help="One device, in detail; all of the site if unset.")
    ] = None,
    fleet: Annotated[
        bool, typer.Option("--fleet", help="All devices of the site, as without a name.")
    ] = False,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """Show the devices of the site: what is desired of each, what is in force, and what it refused."""
    if fleet and device is not None:
        raise UsageError("--fleet: this shows all devices; name one, or give --fleet")
    settings = load_settings(config_file)
    view, broker = SiteView(), build_broker(settings.mqtt)
    named = [] if device is None else [check_slug(device, "device")]
    with site_listener(broker, watched(settings.site, *named)) as listener:
        hear_kept(listener, partial(_hear, view), SystemClock())
    if not view.devices:
        raise LinkError(nobody_heard(broker, settings.site))
    if device is not None:
        shown = view.devices.get(device)
        if shown is None:
            raise ConfigError(f"{device!r} was never seen at site {settings.site}; see `edge config status`")
        if as_json:
            typer.echo(json.dumps(detail(shown), indent=2))
        else:
            detail_table(device, shown).print()
        return
    rows = {each: row(device) for each, device in sorted(view.devices.items())}
    if as_json:
        typer.echo(json.dumps({"layers": view.layers, "devices": rows}, indent=2))
        return
    status_table(settings.site, rows).print()
    for layer, version in view.layers.items():
        typer.echo(f"{printable(layer)}: version {version} is published")


@app.command()
def diff(
    patch: PatchArgument,
    name: Annotated[
        str | None, typer.Option(help="Ask this device for what is in force there; --config when unset.")
    ] = None,
    command_key: Annotated[
        Path | None,
        typer.Option("--command-key", help="With --name: signs the question (`edge fleet command-key`)."),
    ] = None,
    wait: Annotated[float, typer.Option(min=1, help="With --name: seconds to wait for the answer.")] = 60.0,
    config_file: ConfigOption = None,
) -> None:
    """Compare a patch with a device's settings: what would change, when, and what would be refused."""
    settings, read = load_settings(config_file), settings_reader(config_file)
    changes = read_patch(patch)
    if name is not None:
        there = _in_force(settings, name, command_key, wait)
        read = partial(_over, read, there)
        settings = read({})
    known, refused = marks(), refusals(changes, settings)
    wrong = refused | mistakes(changes)
    table = Listing("setting", "now", "pushed", "takes effect", copied=("setting",))
    for key, value in keys_of(changes).items():
        now = "-" if key in refused else str(value_of(settings, key))
        table.add_row(key, now, str(value), wrong.get(key) or known[key])
    table.print()
    if not wrong:
        read(changes)  # whether it goes together with the rest
    raise typer.Exit(1 if wrong else 0)


def _in_force(settings: Settings, device: str, key: Path | None, wait_s: float) -> Patch:
    """Return what may be pushed to a device as it is in force there.

    Raises:
        LinkError, CommandError: It does not answer, or not with that.
    """
    broker, clock = build_broker(settings.mqtt), SystemClock()
    response = send_command(broker, settings.site, device, "diagnostics", {}, key, wait_s=wait_s, clock=clock)
    if response.error is not None:
        raise CommandError(response.error)
    told = response.data.get("settings")
    if not isinstance(told, dict):
        raise CommandError(f"{device} does not say what is in force there; it has an earlier release")
    found: dict[str, Any] = {}
    for name, value in told.items():
        *sections, leaf = name.split(".")
        table = found
        for section in sections:
            table = table.setdefault(section, {})
        table[leaf] = value
    return found


def _over(read: Callable[[Patch], Settings], below: Patch, patch: Patch) -> Settings:
    """Return the settings with two patches on top, `patch` above the other."""
    merged: dict[str, Any] = {section: dict(values) for section, values in below.items()}
    for key, value in keys_of(patch).items():
        section, _, leaf = key.partition(".")
        merged.setdefault(section, {})[leaf] = value
    return read(merged)


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
        raise UsageError("--name: a device or a group has one, a fleet has none")
    values = read_patch(patch)
    refused = refusals(values, settings) or mistakes(values)
    if refused:
        raise ConfigError(f"{patch}: " + "; ".join(f"{key}: {why}" for key, why in refused.items()))
    number = int(SystemClock().now().timestamp()) if version is None else version
    if not 1 <= number <= MAX_VERSION:
        raise UsageError(f"--version: {number} is not in 1 to {MAX_VERSION}")
    Topics(settings.site, name or settings.device)
    try:
        return Desired.model_validate(
            {"scope": scope, "site": settings.site, "name": name, "version": number, "patch": values}
        )
    except ValidationError as error:
        raise ConfigError(first_problem(error, "the push")) from None


def _hear(view: SiteView, message: Message) -> None:
    view.hear(message.topic, message.payload)
