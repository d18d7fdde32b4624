"""The broker as this door finds it: whether it lets the door in, what it may write there, and who listens.

Nothing is left at the broker: what is sent to try a right is empty and not retained, and what it is to keep
for a moment, on `canary`, is taken back. While the daemon runs nothing is sent but to `canary`: the daemon
itself says whether the broker takes its journal.
"""

import json
import queue
from collections.abc import Iterator
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from time import perf_counter

from cryptography import x509

from edge.core import files
from edge.core.errors import LinkError
from edge.device.assembly.delivery import build_broker, listened_to
from edge.device.checkup.finding import Checkup, Finding, Light, green, red, yellow
from edge.device.settings.load import Settings
from edge.mqtt.broker import Broker
from edge.mqtt.contract.problems import DoorProblem
from edge.mqtt.contract.topics import CANARY, CHANNELS, JOURNAL, SNAPSHOT, Channel, Topics
from edge.mqtt.subscriber import Listener

ANSWER_S = 5.0
"""How long the canary may take."""

SLOW_MS = 1000.0
"""A round trip that takes longer leaves an actuator little of the 10 s that an event is good for."""

SOON_DAYS = 30
"""A certificate that runs out within so many days is told."""

FIND_S = 1.5
"""What a broker keeps comes at once; after this long without it there is none."""

NOBODY, DENIED = 16, 0x87
"""PUBACK reasons "no matching subscribers" and "not authorized". Source: MQTT 5.0, section 3.4.2.1."""

DECISION_BYTES = 1200
"""About what a decision takes up."""

ACL = DoorProblem.JOURNAL_REFUSED.remedy
JOURNAL_KEEPER = (
    "run `edge journal follow` somewhere, or set outbox.unclaimed_hours if nobody needs a journal"
)


def broker(checkup: Checkup) -> Iterator[Finding]:
    """Connect as the door does, send a message around, and try the rights of each topic."""
    settings = checkup.settings
    found = build_broker(settings.mqtt)
    topics = Topics(settings.site, settings.device)
    where = f"{found.host}:{found.port}"
    if settings.mqtt.cert_file is not None:
        yield from _own_certificate(checkup, settings.mqtt.cert_file)
    try:
        with _listener(found, topics.canary) as listener:
            yield _let_in(found, where, listener)
            if listener.certificate_until is not None:
                yield _until(checkup, "the broker's certificate", listener.certificate_until)
            came_back = _round_trip(listener, topics)
            yield came_back
            if came_back.light is not Light.RED:
                yield _newcomers(found, topics)
                yield _subscriptions(found, checkup)
            if checkup.running:
                yield _told_by_daemon(checkup)
            else:
                yield from _rights(listener, checkup)
    except LinkError as error:
        told, _, remedy = str(error).rpartition("; ")
        yield red(
            "broker",
            told or remedy,
            remedy if told else "see that it runs, and correct mqtt.host and mqtt.port",
        )


def _listener(found: Broker, *topics: str) -> Listener:
    return Listener(
        found.host,
        found.port,
        topics,
        version=found.version,
        username=found.username,
        password=found.password,
        tls=found.tls,
    )


def _let_in(found: Broker, where: str, listener: Listener) -> Finding:
    told = f"{where} lets the door in with MQTT {listener.protocol}"
    if found.username is None and found.tls is None and not _is_here(found.host):
        mend = "set up the broker with passwords and TLS, as in deploy/mosquitto"
        return yellow("broker", f"{told}, and everybody else: it asks for no name", mend)
    if found.tls is None and not _is_here(found.host):
        return yellow(
            "broker", f"{told}; the password and decisions travel in the clear", "set mqtt.tls = true"
        )
    return green("broker", told)


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _own_certificate(checkup: Checkup, path: Path) -> Iterator[Finding]:
    try:
        until = x509.load_pem_x509_certificate(files.read_regular(path)).not_valid_after_utc
    except (OSError, ValueError) as error:
        yield red(
            "broker: certificate",
            f"{path} cannot be read: {error}",
            "make it again: `edge fleet enroll-device`",
        )
    else:
        yield _until(checkup, f"this door's certificate {path}", until)


def _until(checkup: Checkup, what: str, until: datetime) -> Finding:
    about, left = "broker: certificate", until - checkup.clock.now()
    told = f"{what} is good until {until:%Y-%m-%d}"
    if left <= timedelta(0):
        return red(about, told, "bring a new one (`edge fleet enroll-device`)")
    if left <= timedelta(days=SOON_DAYS):
        return yellow(about, told, f"bring a new one within {left.days} days (`edge fleet enroll-device`)")
    return green(about, told)


def _round_trip(listener: Listener, topics: Topics) -> Finding:
    """Send something as large as a decision to the door's own topic, and wait for it."""
    payload = json.dumps({"canary": "x" * DECISION_BYTES}).encode()
    begun_s = perf_counter()
    if listener.ask(topics.canary, payload) == DENIED:
        return red("broker: canary", f"may not write {topics.canary}", ACL)
    left_s = ANSWER_S
    while left_s > 0:
        try:
            heard = listener.messages.get(timeout=left_s)
        except queue.Empty:
            break
        taken_s = perf_counter() - begun_s
        if heard.payload == payload:
            told = f"a message as large as a decision came back after {taken_s * 1e3:.0f} ms"
            if taken_s * 1e3 > SLOW_MS:
                return yellow("broker: canary", told, "look at the network: an event is good for 10 s")
            return green("broker: canary", told)
        left_s = ANSWER_S - taken_s
    told = f"takes a message on {topics.canary} and does not pass it on"
    return red("broker: canary", told, ACL)


def _subscriptions(found: Broker, checkup: Checkup) -> Finding:
    """Subscribe to what the door listens to; some brokers hang up where they deny it."""
    about, wanted = "broker: subscriptions", listened_to(checkup.settings)
    try:
        with _listener(found, *wanted):
            return green(about, f"the door may subscribe to all of its {len(wanted)} topics")
    except LinkError as error:
        return red(about, str(error), ACL)


def _newcomers(found: Broker, topics: Topics) -> Finding:
    """Let the broker keep a message, see who finds it that comes later, and take it back."""
    about, own = "broker: newcomers", f"{topics.root}/+"
    with _listener(found, topics.canary) as keeper:
        keeper.publish(topics.canary, b"kept", retain=True)
        keeper.flush()
        by_wildcard = _finds(found, own, topics.canary)
        by_name = by_wildcard or _finds(found, topics.canary, topics.canary)
        keeper.publish(topics.canary, b"", retain=True)
    if by_wildcard:
        return green(about, "who comes later finds what the door has said")
    if by_name:
        told = f"what the door has said is found by its exact topics, and not by {own}"
        mend = "name the door in `edge config` and `edge fleet`, or use another broker (deploy/MQTT.md)"
        return yellow(about, told, mend)
    told = "the broker keeps nothing for who comes later: a push to a door that is off is lost"
    return red(about, told, "let it keep retained messages, or use another (deploy/MQTT.md)")


def _finds(found: Broker, topic: str, wanted: str) -> bool:
    """Whether somebody who subscribes to `topic` now is given what the broker keeps at `wanted`."""
    try:
        with _listener(found, topic) as newcomer:
            left_s, begun_s = FIND_S, perf_counter()
            while left_s > 0:
                heard = newcomer.messages.get(timeout=left_s)
                if heard.topic == wanted and heard.retained:
                    return True
                left_s = FIND_S - (perf_counter() - begun_s)
    except (queue.Empty, LinkError):  # some brokers refuse a wildcard that they do not serve
        pass
    return False


def _told_by_daemon(checkup: Checkup) -> Finding:
    about, health = "broker: rights", checkup.health
    if health is None:
        mend = "stop the daemon and run `edge doctor` again to have each topic tried"
        return yellow(about, "the daemon runs and leaves no health here", mend)
    if not health.mqtt.connected:
        return checkup.missing(about, "the daemon had no connection to the broker", "its log says why")
    if health.outbox.refused:
        return red(about, "the broker refuses the daemon's journal", ACL)
    if health.outbox.unclaimed:
        return yellow(
            "broker: journal", "nobody listened to the journal when it was sent last", JOURNAL_KEEPER
        )
    return green(about, "the daemon is connected, and the broker takes its journal")


def _rights(listener: Listener, checkup: Checkup) -> Iterator[Finding]:
    """Send an empty message to each topic that the door writes, and say which the broker denies."""
    settings = checkup.settings
    if listener.protocol != "5":
        mend = "use a broker of MQTT 5: it says what it denies, and whether anybody listens"
        yield yellow(
            "broker: rights", f"a broker of MQTT {listener.protocol} does not tell what it denies", mend
        )
        return
    answers = {
        topic: listener.ask(topic, b"")
        for channel in CHANNELS
        if channel.sent and channel is not CANARY
        for topic in _topics(channel, settings)
    }
    denied = [topic for topic, answer in answers.items() if answer == DENIED]
    silent = [topic for topic, answer in answers.items() if answer is None]
    yield from (red("broker: rights", f"may not write {topic}", ACL) for topic in denied)
    if silent:
        yield red(
            "broker: rights",
            f"the broker does not answer what is sent to {silent[0]}, or hangs up",
            f"look at its log; {ACL}",
        )
    if not denied and not silent:
        yield green("broker: rights", f"the door may write all of its {len(answers)} topics")
    unheard = [topic for topic in _topics(JOURNAL, settings) if answers[topic] == NOBODY]
    if unheard:
        told = f"nobody listens to {unheard[0]}"
        yield yellow("broker: journal", f"{told}: decisions wait on the disk", JOURNAL_KEEPER)
    elif not denied and settings.cameras:
        yield green("broker: journal", "somebody listens to the journal")


def _topics(channel: Channel, settings: Settings) -> list[str]:
    """Return the topics of a channel: one for each camera, where it is a camera's."""
    names = {"site": settings.site, "device": settings.device, "verb": "doctor"}
    if "{camera}" not in channel.path:
        return [channel.topic(**names)]
    cameras = [
        name for name, each in settings.cameras.items() if channel is not SNAPSHOT or each.snapshot != "off"
    ]
    return [channel.topic(**names, camera=camera) for camera in cameras]
