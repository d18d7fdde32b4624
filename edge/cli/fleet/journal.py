"""Commands about the journal: follow (for whoever keeps it), undeliverable (on the device)."""

import json
import logging
import queue
import sys
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from edge.cli.options import ConfigOption, load_settings
from edge.core.clock import Clock, SystemClock
from edge.core.errors import ConfigError, UsageError
from edge.core.files import sole_daemon
from edge.core.process import signals_to
from edge.core.text import problems
from edge.device.assembly.delivery import build_broker
from edge.device.settings.tables import MqttSettings
from edge.fleet.journal.database import Database
from edge.fleet.journal.decision import JournalDecision
from edge.fleet.journal.follow import Follower, follow, topics
from edge.fleet.journal.gaps import Gaps
from edge.fleet.journal.store import JsonLines, MemoryStore, Saw, Store
from edge.fleet.rollout.listen import site_listener
from edge.mqtt.contract.topics import Topics, check_slug
from edge.mqtt.delivery.outbox import Changes, Outbox, list_undeliverable

log = logging.getLogger(__name__)

app = typer.Typer(no_args_is_help=True)


@app.callback()
def journal() -> None:
    """Keep what the devices of a building decide, and see what a device cannot deliver."""


@app.command("follow")
def follow_command(
    site: Annotated[str | None, typer.Option(help="Site, or + for all; this device's when left out.")] = None,
    device: Annotated[str, typer.Option(help="Device, or + for all.")] = "+",
    broker: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Instead of the settings'.")] = None,
    user: Annotated[str | None, typer.Option(help="User at the broker, instead of the settings'.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="File that holds the user's password.")] = None,
    tls: Annotated[bool | None, typer.Option(help="Speak TLS, instead of what the settings say.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Certificates to trust.")] = None,
    to: Annotated[Path | None, typer.Option(help="Append to this .jsonl or .sqlite file, each once.")] = None,
    ack: Annotated[bool, typer.Option("--ack", help="Acknowledge to the devices what was kept.")] = False,
    session: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Let the broker keep what comes while this program is away."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per decision.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Print every decision once; keep and acknowledge them where asked. Ctrl-C ends it with a summary."""
    settings = load_settings(config_file)
    site = settings.site if site is None else site
    for what, name in (("--site", site), ("--device", device)):
        if name != "+":
            check_slug(name, what)
    values = _mqtt(settings.mqtt, broker, user, password_file, tls, ca_file)
    clock, gaps, stop = SystemClock(), Gaps(), queue.SimpleQueue[str]()

    def show(decision: JournalDecision) -> None:
        typer.echo(decision.text if as_json else decision.line)
        sys.stdout.flush()

    def tell(what: str) -> None:
        typer.echo(what, err=True)

    begun_s = clock.monotonic()
    with (
        signals_to(partial(stop.put, "stop"), partial(stop.put, "stop")),
        closing(_store(to, lambda source, seq: gaps.saw(source, seq, begun_s), clock)) as store,
        site_listener(build_broker(values), topics(site, device), session=session) as listener,
    ):
        if ack and to is None:
            tell("--ack without --to: devices forget what is only printed here")
        tell(f"following {site}/{device} at {values.host}:{values.port}")
        publish = listener.publish if ack else None
        follower = Follower(store, gaps, show=show, tell=tell, publish=publish)
        follow(listener, follower, clock, stop, tell)
    tell(follower.summary())


RetryOption = Annotated[bool, typer.Option("--retry", help="Let them wait for the broker again.")]
DropOption = Annotated[bool, typer.Option("--drop", help="Delete them for good, and count them.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON line per decision.")]


@app.command("held", hidden=True)
def held_command(
    retry: RetryOption = False,
    drop: DropOption = False,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """The old name of `undeliverable`."""
    log.warning(
        "edge journal held is called edge journal undeliverable; the old name goes with the next release"
    )
    undeliverable_command(retry, drop, as_json, config_file)


@app.command("undeliverable")
def undeliverable_command(
    retry: RetryOption = False,
    drop: DropOption = False,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """List this device's decisions that no broker takes as they are; put them back, or drop them.

    The broker refused them for what they are, or they were decided under another site or
    device name. The daemon must not run.
    """
    if retry and drop:
        raise UsageError("--retry, --drop: choose one")
    settings, clock = load_settings(config_file), SystemClock()
    if not settings.outbox_path.exists():
        raise ConfigError(f"{settings.outbox_path}: there is no outbox; nothing was ever decided here")
    values = settings.outbox
    limits = {"max_rows": values.max_rows, "max_bytes": values.max_mb * 1024 * 1024}
    with (
        sole_daemon(settings.state_dir),
        closing(Outbox.open(settings.outbox_path, now=clock.now, **limits)) as outbox,
    ):
        found = list_undeliverable(outbox, Topics(settings.site, settings.device))
        if retry:
            outbox.take_back()
        elif drop:
            outbox.take_back()
            outbox.write(Changes(done={each.seq for each in found}, dropped=len(found)))
    for each in found:
        line = f"{each.seq:>8}  {each.event_id}  {each.topic}  {each.why}"
        typer.echo(json.dumps(asdict(each)) if as_json else line)
    done = "dropped" if drop else "will be tried again" if retry else "undeliverable; --retry or --drop"
    typer.echo(f"{len(found)} {done}", err=True)


def _store(path: Path | None, saw: Saw, clock: Clock) -> Store:
    if path is None:
        return MemoryStore()
    if path.suffix == ".jsonl":
        return JsonLines.open(path, saw)
    if path.suffix in (".sqlite", ".db"):
        return Database.open(path, saw, clock.now)
    raise UsageError(f"--to: {path} must end in .jsonl or .sqlite")


def _mqtt(
    values: MqttSettings,
    broker: str | None,
    user: str | None,
    password_file: Path | None,
    tls: bool | None,
    ca_file: Path | None,
) -> MqttSettings:
    """Return the settings of the broker with what was said on the command line."""
    said: dict[str, object] = {}
    if broker is not None:
        host, _, port = broker.rpartition(":")
        if not (host and port.isdigit()):
            raise UsageError(f"--broker {broker!r}: write HOST:PORT")
        said |= {"host": host.strip("[]"), "port": int(port)}
    if user is not None:
        said |= {"username": user, "password": None, "password_file": None}
    if password_file is not None:
        said |= {"password": None, "password_file": password_file}
    if tls is not None:
        said |= {"tls": tls} if tls else {"tls": False, "ca_file": None, "cert_file": None, "key_file": None}
    if ca_file is not None:
        said["ca_file"] = ca_file
    try:
        return MqttSettings.model_validate(values.model_dump() | said)
    except ValidationError as error:
        raise ConfigError(f"broker: {problems(error)[0].what.removeprefix('Value error, ')}") from None
