"""Commands about the journal: follow (for whoever keeps it), undeliverable (on the device)."""

import json
import logging
import queue
import sys
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Protocol

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
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Keep each once in this .jsonl or .sqlite file, or in postgresql://user@host/database.",
        ),
    ] = None,
    ack: Annotated[bool, typer.Option("--ack", help="Acknowledge to the devices what was kept.")] = False,
    session: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Let the broker keep what comes while this program is away."),
    ] = None,
    share: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Share the work with other programs of that name; needs --ack."),
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
    if share is not None:
        check_slug(share, "--share")
        if not ack or to is None or not _is_postgres(to):
            raise UsageError(
                "--share: needs --ack, and --to postgresql://..., where all of them keep decisions"
            )
    values = _mqtt(settings.mqtt, broker, user, password_file, tls, ca_file)
    clock, gaps, stop = SystemClock(), Gaps(), queue.SimpleQueue[str]()

    def show(decisions: Sequence[JournalDecision]) -> None:
        for each in decisions:
            sys.stdout.write(f"{each.text if as_json else each.line}\n")
        sys.stdout.flush()

    def tell(what: str) -> None:
        typer.echo(what, err=True)

    begun_s = clock.monotonic()
    with (
        signals_to(partial(stop.put, "stop"), partial(stop.put, "stop")),
        closing(_store(to, lambda source, seq: gaps.saw(source, seq, begun_s), clock)) as store,
        site_listener(build_broker(values), topics(site, device, share), session=session) as listener,
        site_listener(build_broker(values), ()) if ack else nullcontext(listener) as speaker,
    ):
        if ack and to is None:
            tell("--ack without --to: devices forget what is only printed here")
        tell(f"following {site}/{device} at {values.host}:{values.port}")
        publish = speaker.publish if ack else None
        follower = Follower(store, gaps, show=show, tell=tell, publish=publish)
        follow(listener, speaker, follower, clock, stop, tell)
    tell(follower.summary())


DatabaseArgument = Annotated[
    str, typer.Argument(metavar="FILE|URL", help="A .sqlite file, or postgresql://user@host/database.")
]


@app.command("erase")
def erase_command(
    where: Annotated[
        str, typer.Argument(metavar="FILE|URL", help="A .sqlite file or postgresql:// address.")
    ],
    subject: Annotated[list[str], typer.Argument(help="Who is to be erased.")],
) -> None:
    """Take subjects out of a journal: their decisions stay, without id and label."""
    with closing(_open_database(where, _nothing, SystemClock())) as database:
        for each in subject:
            typer.echo(f"{each}: erased from {database.erase(each)} decisions")


@app.command("prune")
def prune_command(
    where: Annotated[
        str, typer.Argument(metavar="FILE|URL", help="A .sqlite file or postgresql:// address.")
    ],
    keep_days: Annotated[float, typer.Option(min=1, help="Delete what was received longer ago.")],
) -> None:
    """Delete the decisions of a journal that were received too long ago."""
    with closing(_open_database(where, _nothing, SystemClock())) as database:
        before = SystemClock().now() - timedelta(days=keep_days)
        typer.echo(f"{database.prune(before)} decisions deleted")


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


def _store(where: str | None, saw: Saw, clock: Clock) -> Store:
    if where is None:
        return MemoryStore()
    path = Path(where)
    if not _is_postgres(where) and path.suffix == ".jsonl":
        return JsonLines.open(path, saw)
    return _open_database(where, saw, clock)


class _Database(Store, Protocol):
    """A store in which decisions can be found."""

    def erase(self, subject_id: str) -> int: ...

    def prune(self, before: datetime) -> int: ...


def _open_database(where: str, saw: Saw, clock: Clock) -> _Database:
    if _is_postgres(where):
        try:
            from edge.fleet.journal.postgres import Postgres
        except ImportError:
            raise UsageError(
                f"{where.split(':')[0]}: install the extra `postgres` to keep decisions there"
            ) from None
        return Postgres.open(where, saw, clock.now)
    if (path := Path(where)).suffix in (".sqlite", ".db"):
        return Database.open(path, saw, clock.now)
    raise UsageError(f"{where}: must end in .jsonl or .sqlite, or begin with postgresql://")


def _nothing(source: str, seq: int) -> None:
    """Take no notice of what a database holds already."""


def _is_postgres(where: str) -> bool:
    return where.startswith(("postgresql://", "postgres://"))


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
