"""Builds the delivery of decisions as the settings say: outbox, connection, courier, Home Assistant."""

import json
import logging
import queue
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge import __version__
from edge.core import files
from edge.core.clock import Clock
from edge.core.errors import ConfigError, FileError, OutboxError
from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket
from edge.core.process import boot_id, clock_synced
from edge.core.threads import Beats
from edge.device.settings.load import Settings
from edge.device.settings.tables import MqttSettings
from edge.mqtt.broker import Broker, Will, tls_context
from edge.mqtt.connection import LinkThread
from edge.mqtt.contract.encode import EventEncoder
from edge.mqtt.contract.home_assistant import birth_topic, describes, documents
from edge.mqtt.contract.topics import Topics
from edge.mqtt.delivery.courier import CourierThread
from edge.mqtt.delivery.inbox import Request, RequestReader, subscriptions
from edge.mqtt.delivery.outbox import Outbox, Unopened, beyond
from edge.mqtt.delivery.outbox_thread import OutboxThread
from edge.mqtt.delivery.requests import Acknowledged

log = logging.getLogger(__name__)

MAX_ANNOUNCED_BYTES = 64 * 1024
ANNOUNCED = re.compile(r"[A-Za-z0-9_-]{1,64}/device/edge__[a-z0-9_-]{1,128}/config")
"""What may be taken back: nothing else, whatever the file of what was announced says."""

MAX_TAKEN_BACK = 64
"""Topics that go on being taken back: nobody says whether a broker has ever heard that they are gone."""

COMMANDS_PER_S, COMMANDS_AT_ONCE = 5.0, 20
"""More than any operator sends by hand; what is beyond is dropped and counted."""

ACK_BYTES_PER_S, ACK_BYTES_AT_ONCE = 1_000_000, 4_000_000
"""Ten times what a consumer sends while 10,000 decisions drain; what is dropped is sent, and named, again."""

COMPLAINTS_PER_S, COMPLAINTS_AT_ONCE = 0.2, 10
"""Lines about messages that are refused: whoever may publish does not fill the log."""


def build_courier(
    settings: Settings,
    ask: Callable[[Request], None],
    *,
    beats: Beats,
    metrics: Metrics,
    clock: Clock,
    behind: Callable[[], bool] = lambda: False,
) -> CourierThread:
    """Return what delivers events: outbox, connection and courier, not started yet.

    `ask` gets what others ask of this device, on the courier's thread; it only enqueues. `behind` says
    whether the clock shows a time that has passed already.

    Raises:
        ConfigError: A certificate or the password file cannot be used.
    """
    topics = Topics(settings.site, settings.device)
    consumer = settings.outbox.delivery == "consumer"
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    will = Will(topics.status, b"offline")
    link = LinkThread(
        inbox,
        build_broker(settings.mqtt),
        client_id=topics.client_id,
        will=will,
        subscriptions=listened_to(settings),
        older_subscriptions=(topics.canary,),
        for_now=(topics.commands,),
        metrics=metrics,
        clock=clock,
    )
    hours = settings.outbox.unclaimed_hours
    outbox = _outbox(settings, clock)
    writer = OutboxThread(outbox, inbox, beats=beats, metrics=metrics, clock=clock)
    encoder = EventEncoder(
        settings.site,
        settings.device,
        boot_id(),
        clock=lambda: "synced" if clock_synced() and not behind() else "unsynced",
        anonymous=settings.privacy.anonymous,
    )

    def acknowledge(event_ids: tuple[str, ...]) -> None:
        inbox.put(Acknowledged(event_ids))

    return CourierThread(
        inbox,
        link,
        writer,
        encoder,
        topics,
        cameras=settings.cameras,
        hear=RequestReader(
            topics,
            ask,
            metrics,
            _birth(settings),
            acknowledge if consumer else None,
            layers=_layers(settings),
            commands=TokenBucket(COMMANDS_PER_S, COMMANDS_AT_ONCE, clock.monotonic),
            acks=TokenBucket(ACK_BYTES_PER_S, ACK_BYTES_AT_ONCE, clock.monotonic),
            complaints=TokenBucket(COMPLAINTS_PER_S, COMPLAINTS_AT_ONCE, clock.monotonic),
        ).hear,
        beats=beats,
        metrics=metrics,
        clock=clock,
        consumer=consumer,
        unclaimed_s=None if hours is None else hours * 3600,
    )


def listened_to(settings: Settings) -> tuple[str, ...]:
    """Return the topics that the door subscribes to."""
    acks = settings.outbox.delivery == "consumer"
    return subscriptions(
        Topics(settings.site, settings.device), _birth(settings), _layers(settings), acks=acks
    )


def _birth(settings: Settings) -> str | None:
    assistant = settings.homeassistant
    return birth_topic(assistant.prefix) if assistant.discovery else None


def _layers(settings: Settings) -> tuple[str, ...]:
    return ("fleet", *(f"group:{group}" for group in settings.push.groups), "device")


def build_broker(values: MqttSettings) -> Broker:
    """Return where the broker is and how to speak to it.

    Raises:
        ConfigError: A certificate or the password file cannot be used.
    """
    return Broker(
        values.host,
        values.port,
        version=values.version,
        username=values.username,
        password=_password(values),
        tls=tls_context(values.ca_file, values.cert_file, values.key_file) if values.tls else None,
        keepalive_s=values.keepalive_s,
        backoff_max_s=values.backoff_max_s,
    )


def announcements(settings: Settings) -> dict[str, bytes]:
    """Return what Home Assistant is told now, and empty documents that take back what it was told before.

    What was told is remembered, so that a camera that is taken out of edge.toml goes from there as well, over
    restarts and broken connections: the last `MAX_TAKEN_BACK` of this device go on being taken back. Those
    of a name that it had before are taken back once: another device may have it now.
    """
    wanted, path = discovery_documents(settings), settings.state_dir / "announced.json"
    before: list[str] = []
    try:
        before = _announced(path)
        own = Topics(settings.site, settings.device)
        gone = [topic for topic in before if topic not in wanted and describes(own, topic)]
        remembered = gone[-MAX_TAKEN_BACK:] + sorted(wanted)
        if remembered != before:
            files.write_whole(path, json.dumps(remembered).encode())
    except FileError as error:
        log.warning("what Home Assistant is told cannot be remembered, or is not known: %s", error)
    return dict.fromkeys(before, b"") | wanted


def _announced(path: Path) -> list[str]:
    """Return what was announced under whatever prefix, what is gone first; nothing where it is damaged.

    Raises:
        FileError: The disk does not give it.
    """
    data = files.read_bounded(path, MAX_ANNOUNCED_BYTES)
    try:
        found = json.loads(data) if data else []
    except (ValueError, RecursionError) as error:
        log.warning("what Home Assistant was told before is not known: %s", error)
        return []
    texts = [topic for topic in found if isinstance(topic, str)] if isinstance(found, list) else []
    return [topic for topic in texts if ANNOUNCED.fullmatch(topic)]


def discovery_documents(settings: Settings) -> dict[str, bytes]:
    """Return what Home Assistant is told about this device by topic; nothing where it is not wanted."""
    if not settings.homeassistant.discovery:
        return {}
    assistant = settings.homeassistant
    return documents(
        Topics(settings.site, settings.device),
        tuple(settings.cameras),
        __version__,
        assistant.prefix,
        name=assistant.device_name,
        camera_names=assistant.camera_names,
        buttons=settings.commands.unsigned_reads,
        pictures=settings.pictured_cameras,
    )


def _outbox(settings: Settings, clock: Clock) -> Outbox | Unopened:
    """Open the outbox; where the disk refuses, it is opened later: the door goes on, and `health` says so."""
    max_rows, max_bytes = settings.outbox.max_rows, settings.outbox.max_mb * 1024 * 1024
    try:
        return Outbox.open(settings.outbox_path, max_rows=max_rows, max_bytes=max_bytes, now=clock.now)
    except OutboxError as error:
        log.error("events are kept in memory only: %s", error)
        return Unopened(settings.outbox_path, max_rows, max_bytes, beyond(clock.now()))


def _password(values: MqttSettings) -> str | None:
    if values.password_file is not None:
        try:
            return files.read_regular(values.password_file).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"mqtt.password_file: cannot read {values.password_file}: {error}") from None
    return values.password.get_secret_value() if values.password else None
