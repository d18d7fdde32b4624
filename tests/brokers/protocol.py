"""What a broker does of MQTT, a row each: what the product relies on, and what it makes use of."""

import time
from collections.abc import Callable, Mapping

from edge.mqtt.broker import Protocol
from edge.mqtt.client import MAX_RECEIVED_BYTES
from tests.brokers.kinds import DOOR_ROOT, RunningBroker
from tests.brokers.probe import QUIET_S, Probe, probe

Row = Callable[[RunningBroker], str]
"""Returns `YES`, or what the broker does instead."""

YES = "yes"
NOBODY, DENIED = 16, 0x87
"""Reason codes. Source: MQTT 5.0, section 2.4."""

DELAY_S = 3
"""Of a will. Brokers count whole seconds."""

SHORT_S, LONGER_S = 1, 2.5
"""What expires after the one is gone after the other."""


class NewerOnlyError(Exception):
    """A row of MQTT 5 for a broker that does not speak it."""


def newest(broker: RunningBroker) -> Protocol:
    """Return what the product speaks with the broker."""
    return "3.1.1" if broker.speaks_5 is False else "5"


def needs_5(broker: RunningBroker) -> None:
    if newest(broker) != "5":
        raise NewerOnlyError


def _accepts(broker: RunningBroker, protocol: Protocol) -> str:
    try:
        with probe(broker, protocol) as each:
            if each.refusal is None and not each.lost:
                return YES
            return "hangs up" if each.refusal is None else f"refused, {each.refusal:#x}"
    except (AssertionError, OSError):
        return "no answer"


def accepts_5(broker: RunningBroker) -> str:
    told = _accepts(broker, "5")
    broker.speaks_5 = told == YES
    return told


def accepts_older(broker: RunningBroker) -> str:
    return _accepts(broker, "3.1.1")


def websockets(broker: RunningBroker) -> str:
    if not broker.kind.websockets:
        return "none"
    try:
        with probe(broker, newest(broker), websockets=True) as each:
            each.subscribe("t/ws")
            each.publish("t/ws")
            return YES if each.hear() else "no message"
    except (AssertionError, OSError):
        return "no answer"


def largest(broker: RunningBroker) -> str:
    """A command with a photo, the largest message there is."""
    with probe(broker, newest(broker)) as each:
        each.subscribe("t/large")
        each.publish("t/large", b"x" * MAX_RECEIVED_BYTES)
        return YES if each.hear() else "not passed on"


def will(broker: RunningBroker) -> str:
    """A device vanishes: who listens hears `offline`, and who comes later finds it."""
    with probe(broker, newest(broker)) as listener:
        listener.subscribe("t/+/will")
        with probe(broker, newest(broker), name="gone", will=("t/gone/will", 0)) as each:
            each.vanish()
        heard = listener.hear()
    if heard is None:
        return "not sent"
    return YES if _kept(broker, "t/gone/will", "t/gone/will") else "sent, not kept"


def delayed_will(broker: RunningBroker) -> str:
    """A will that is to wait, and that is not sent where the device is back in time."""
    needs_5(broker)
    with probe(broker) as listener:
        listener.subscribe("t/late")
        with probe(broker, name="late", session_s=60, will=("t/late", DELAY_S)) as each:
            each.vanish()
        began_s = time.monotonic()
        heard = listener.hear()
        waited_s = time.monotonic() - began_s
    if heard is None:
        return "not sent"
    return YES if waited_s > DELAY_S / 2 else "at once"


def _kept(broker: RunningBroker, topic: str, wanted: str) -> bool:
    """Whether a newcomer who subscribes to `topic` finds what is kept at `wanted`."""
    with probe(broker, newest(broker)) as newcomer:
        newcomer.subscribe(topic)
        while (each := newcomer.hear(QUIET_S)) is not None:
            if each.topic == wanted and each.retained:
                return True
    return False


def _keep(broker: RunningBroker, topic: str) -> None:
    with probe(broker, newest(broker)) as each:
        each.publish(topic, b"kept", retain=True)


def retained(broker: RunningBroker) -> str:
    _keep(broker, "t/kept/exact")
    return YES if _kept(broker, "t/kept/exact", "t/kept/exact") else "no"


def retained_by_wildcard(broker: RunningBroker) -> str:
    _keep(broker, "t/kept/wild")
    missing = [each for each in ("t/+/wild", "t/kept/#") if not _kept(broker, each, "t/kept/wild")]
    return f"not for {', '.join(missing)}" if missing else YES


def retained_taken_back(broker: RunningBroker) -> str:
    _keep(broker, "t/kept/back")
    with probe(broker, newest(broker)) as each:
        each.publish("t/kept/back", b"", retain=True)
    return "no" if _kept(broker, "t/kept/back", "t/kept/back") else YES


def retained_over_restart(broker: RunningBroker) -> str:
    _keep(broker, "t/kept/restart")
    broker.restart()
    return YES if _kept(broker, "t/kept/restart", "t/kept/restart") else "no"


def retained_flag(broker: RunningBroker) -> str:
    """Who listens is told that a message is to be kept: a command must not be."""
    needs_5(broker)
    with probe(broker) as each:
        each.subscribe("t/flag", keep_flag=True)
        each.publish("t/flag", retain=True)
        heard = each.hear()
    return YES if heard is not None and heard.retained else "no"


def expiry(broker: RunningBroker) -> str:
    """An event that nobody took within its time is never delivered."""
    needs_5(broker)
    with probe(broker, name="sleeper", session_s=60) as sleeper:
        sleeper.subscribe("t/expiry")
    with probe(broker) as each:
        each.publish("t/expiry", b"brief", MessageExpiryInterval=SHORT_S)
        each.publish("t/expiry", b"lasting", MessageExpiryInterval=3600)
    time.sleep(LONGER_S)
    with probe(broker, name="sleeper", session_s=60) as sleeper:
        heard = [each.payload for each in sleeper.hear_all()]
    if b"lasting" not in heard:
        return "keeps nothing for who is away"
    return YES if heard == [b"lasting"] else "delivered late"


def _session(broker: RunningBroker, name: str, between: Callable[[], None]) -> str:
    with probe(broker, newest(broker), name=name, session_s=3600) as each:
        each.subscribe(f"t/session/{name}")
    with probe(broker, newest(broker)) as each:
        each.publish(f"t/session/{name}")
    between()
    with probe(broker, newest(broker), name=name, session_s=3600) as each:
        return YES if each.hear(3.0) else "lost"


def session(broker: RunningBroker) -> str:
    """What comes while a consumer is away waits for it."""
    return _session(broker, "away", lambda: None)


def session_over_restart(broker: RunningBroker) -> str:
    return _session(broker, "away-restart", broker.restart)


def session_over_kill(broker: RunningBroker) -> str:
    return _session(broker, "away-kill", lambda: broker.restart(killed=True))


def session_expiry(broker: RunningBroker) -> str:
    needs_5(broker)
    with probe(broker, name="brief", session_s=SHORT_S) as each:
        each.subscribe("t/brief")
    time.sleep(LONGER_S)
    with probe(broker, name="brief", session_s=SHORT_S) as each:
        return "kept" if each.session_present else YES


def nobody_subscribes(broker: RunningBroker) -> str:
    needs_5(broker)
    with probe(broker) as each:
        answer = each.publish("t/nobody")
    return YES if answer == NOBODY else _code(answer)


def shared(broker: RunningBroker) -> str:
    """Two consumers of a share get each message once, and both get some."""
    needs_5(broker)
    with probe(broker) as one, probe(broker) as other, probe(broker) as sender:
        granted = [*one.subscribe("$share/keepers/t/shared/+"), *other.subscribe("$share/keepers/t/shared/+")]
        if any(code >= 0x80 for code in granted) or one.lost or other.lost:
            return "refused" if granted else "hangs up"
        for number in range(20):
            sender.publish(f"t/shared/{number}", b"%d" % number)
        both = [[each.payload for each in which.hear_all(QUIET_S)] for which in (one, other)]
    if sorted(both[0] + both[1]) != sorted(b"%d" % number for number in range(20)):
        return f"{len(both[0])} and {len(both[1])} of 20"
    return YES if all(both) else "all to one"


def shared_and_nobody(broker: RunningBroker) -> str:
    """0x10 only where there is nobody: a share counts as somebody."""
    needs_5(broker)
    with probe(broker) as one, probe(broker) as sender:
        if any(code >= 0x80 for code in one.subscribe("$share/keepers/t/sharing")) or one.lost:
            return "refused"
        answer = sender.publish("t/sharing")
    return YES if answer == 0 else _code(answer)


def correlation(broker: RunningBroker) -> str:
    """An answer tells which command it is of."""
    needs_5(broker)
    with probe(broker) as each:
        each.subscribe("t/answer")
        each.publish("t/answer", CorrelationData=b"which")
        heard = each.hear()
    return YES if heard is not None and heard.correlation == b"which" else "lost"


def order(broker: RunningBroker) -> str:
    with probe(broker, newest(broker)) as listener, probe(broker, newest(broker)) as sender:
        listener.subscribe("t/order")
        for number in range(200):
            sender.client.publish("t/order", b"%d" % number, 1)
        heard = [int(each.payload) for _ in range(200) if (each := listener.hear()) is not None]
    return YES if heard == list(range(200)) else f"{len(heard)} of 200, not in order"


def users(broker: RunningBroker) -> str:
    """A door logs in under a name with a slash."""
    with probe(broker, newest(broker), user="hq/door-03") as each:
        return YES if each.refusal is None and not each.lost else "refused"


def denied(broker: RunningBroker) -> str:
    """What a door may not write is answered with 0x87, and not passed on."""
    with probe(broker, newest(broker), user="operator") as operator:
        operator.subscribe("edge/v1/hq/other/status")
        with probe(broker, newest(broker), user="hq/door-03") as each:
            answer = each.publish("edge/v1/hq/other/status")
            ended = each.lost
        if operator.hear(1.0) is not None:
            return "passed on"
    if ended:
        return "hangs up"
    if not operator.newest:
        return "acknowledged and dropped"
    return YES if answer == DENIED else _code(answer)


def allowed(broker: RunningBroker) -> str:
    """What a door may write arrives."""
    topic = f"{DOOR_ROOT}/status"
    with probe(broker, newest(broker), user="operator") as operator:
        operator.subscribe(topic)
        with probe(broker, newest(broker), user="hq/door-03") as each:
            each.publish(topic)
        return YES if operator.hear(3.0) else "not passed on"


def denied_subscription(broker: RunningBroker) -> str:
    with probe(broker, newest(broker), user="hq/door-03") as each:
        codes = each.subscribe("edge/v1/hq/other/command/+")
        if codes and all(code >= 0x80 for code in codes):
            return YES
        with probe(broker, newest(broker), user="operator") as operator:
            operator.publish("edge/v1/hq/other/command/open")
        heard = each.hear(1.0)
        return "hangs up" if each.lost else "hears it" if heard else "granted, hears nothing"


def _code(answer: int | None) -> str:
    return "no answer" if answer is None else "accepted" if answer == 0 else f"{answer:#x}"


def limits(broker: RunningBroker) -> str:
    """What a broker says of itself when it accepts a connection."""
    needs_5(broker)
    with probe(broker, session_s=0xFFFFFFFF) as each:
        return _told(each)


def _told(each: Probe) -> str:
    names = {
        "SessionExpiryInterval": "session s",
        "ReceiveMaximum": "in flight",
        "MaximumPacketSize": "packet",
        "SharedSubscriptionAvailable": "shared",
        "RetainAvailable": "retain",
        "WildcardSubscriptionAvailable": "wildcards",
        "MaximumQoS": "QoS",
    }
    told = {said: getattr(each.greeting, name, None) for name, said in names.items()}
    return ", ".join(f"{said} {value}" for said, value in told.items() if value is not None) or "nothing"


ROWS: Mapping[str, Row] = {
    "MQTT 5": accepts_5,
    "MQTT 3.1.1": accepts_older,
    "websockets": websockets,
    "512 KiB in a message": largest,
    "order of one sender": order,
    "will, retained": will,
    "retained, exact topic": retained,
    "retained, taken back": retained_taken_back,
    "retained, by wildcard": retained_by_wildcard,
    "retained, after a restart": retained_over_restart,
    "retain flag told (for commands)": retained_flag,
    "session kept for who is away": session,
    "session kept over a restart": session_over_restart,
    "0x10: nobody subscribes": nobody_subscribes,
    "shared subscriptions": shared,
    "0x10 with shares": shared_and_nobody,
    "correlation data": correlation,
    "says of itself": limits,
}
"""What can be tried in an instant."""

SLOW_ROWS: Mapping[str, Row] = {
    "will delay": delayed_will,
    "message expiry": expiry,
    "session expiry": session_expiry,
    "session kept over kill -9": session_over_kill,
}
"""What time has to pass for."""

RULES_ROWS: Mapping[str, Row] = {
    "user hq/door-03": users,
    "its own topics": allowed,
    "0x87: denied to write": denied,
    "0x87: denied to subscribe": denied_subscription,
}
"""What is tried where there are users and rules."""
