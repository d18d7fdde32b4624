"""Have a device do something: check the arguments of a verb, sign the command, send it, await the answer."""

import base64
import json
import queue
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge.camera.photo import fit_photo
from edge.core.clock import Clock
from edge.core.errors import ConfigError, LinkError, MediaError
from edge.core.text import printable, problems
from edge.device.commands.parse import PAYLOAD_TYPE
from edge.fleet.rollout.config import load_signing_key
from edge.fleet.rollout.listen import LOOK_S, QUIET_S, check_accepted, nobody_heard, of_devices, site_listener
from edge.mqtt.broker import Broker
from edge.mqtt.contract.envelope import sign
from edge.mqtt.contract.messages import MAX_PHOTO_CHARS, VERBS, ResponsePayload
from edge.mqtt.contract.topics import STATUS, Topics

LIFETIME = timedelta(minutes=5)
"""How long a device may still do what it is told."""

SHOWN_DEVICES = 10
"""Of those that a message names."""

MAX_PHOTO_BYTES = MAX_PHOTO_CHARS // 4 * 3


def read_args(
    verb: str, said: list[str], photo: Path | None, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Return the arguments that `key=value` and a photo say.

    What the verb takes as text is text, whatever it looks like; other values are JSON where they can be. A
    photo that is too large is made smaller, and `tell` is told.

    Raises:
        ConfigError: The verb is none, or one is not key=value.
        MediaError: The photo cannot be read, or is none.
    """
    if verb not in VERBS:
        raise ConfigError(f"{verb!r} is no verb; there are {', '.join(VERBS)}")
    known = VERBS[verb].model_json_schema()["properties"] if VERBS[verb].model_fields else {}
    args: dict[str, Any] = {}
    for each in said:
        key, separator, value = each.partition("=")
        if not separator:
            raise ConfigError(f"--arg {each!r}: write key=value")
        args[key] = value if _is_text(known.get(key, {})) else _json_or_text(value)
    if photo is not None:
        args["photo"] = base64.b64encode(_fitting(photo, tell)).decode()
    return args


def check_args(verb: str, args: dict[str, Any]) -> None:
    """Accept what a verb takes.

    Raises:
        ConfigError: It does not; says which argument is wrong.
    """
    try:
        VERBS[verb].model_validate(args)
    except ValidationError as error:
        first = problems(error)[0]
        raise ConfigError(f"{verb}: {first.where}: {first.what.lower()}") from None


def _fitting(photo: Path, tell: Callable[[str], None]) -> bytes:
    try:
        data = photo.read_bytes()
    except OSError as error:
        raise MediaError(f"{photo}: cannot be read: {error.strerror}") from None
    small = fit_photo(data, str(photo), MAX_PHOTO_BYTES)
    if small is not data:
        what = f"{len(data) >> 10} KiB" if len(data) > MAX_PHOTO_BYTES else "its pixels"
        tell(f"{photo}: {what} are too many for a message; sent as {len(small) >> 10} KiB")
    return small


def send_command(
    broker: Broker,
    site: str,
    device: str,
    verb: str,
    args: dict[str, Any],
    key: Path | None,
    *,
    wait_s: float,
    clock: Clock,
) -> ResponsePayload:
    """Send a command, signed where there is a `key`, and return the answer.

    Raises:
        FleetError: The key cannot be used.
        LinkError: The broker cannot be reached, refuses it, there is no such device, or nobody answered.
    """
    topics, transaction = Topics(site, device), uuid.uuid4().hex
    document: dict[str, Any] = {"schema": "edge.command/1", "transaction": transaction, "args": args}
    document["expires_at"] = (clock.now() + LIFETIME).isoformat()
    if key is None:
        data = json.dumps(document).encode()
    else:
        document |= {"site": site, "device": device, "verb": verb}
        data = sign(json.dumps(document).encode(), PAYLOAD_TYPE, [load_signing_key(key)])
    seen: dict[str, bytes] = {}
    statuses = of_devices((STATUS,), site, (device,))
    with site_listener(broker, (f"{topics.root}/response/+", *statuses)) as listener:
        correlation = transaction.encode()
        listener.publish(topics.command(verb), data, correlation=correlation)
        now_s = clock.monotonic()
        until_s, known_s = now_s + wait_s, now_s + QUIET_S
        while (left_s := until_s - clock.monotonic()) > 0:
            check_accepted(listener)
            if topics.status not in seen and clock.monotonic() > known_s:
                raise LinkError(_unknown(broker, site, device, seen))
            try:
                message = listener.messages.get(timeout=min(left_s, LOOK_S))
            except queue.Empty:
                continue
            if message.topic.endswith("/status"):
                seen[message.topic] = message.payload
                if message.retained:
                    known_s = clock.monotonic() + QUIET_S
                continue
            try:
                response = ResponsePayload.model_validate_json(message.payload, extra="ignore")
            except ValidationError:
                continue  # somebody else's: whoever may publish there may publish anything
            if transaction == response.transaction or message.correlation == correlation:
                return response
    why = "it is busy" if seen.get(topics.status) == b"online" else "it is offline"
    raise LinkError(f"{device} did not answer in {wait_s:.0f} s: {why}")


def _unknown(broker: Broker, site: str, device: str, seen: Mapping[str, bytes]) -> str:
    """Say that there is no such device among those of which the broker has a status, by topic."""
    if not seen:
        return nobody_heard(broker, site)
    names = sorted(topic.split("/")[3] for topic in seen)
    more = f" and {len(names) - SHOWN_DEVICES} more" if len(names) > SHOWN_DEVICES else ""
    there = ", ".join(names[:SHOWN_DEVICES])
    return f"no device {device!r} was ever at site {site}; there are: {printable(there)}{more}"


def verbs_and_arguments() -> str:
    """Return every verb with what it takes, for people; in brackets what may be left out."""

    def taken(verb: str) -> str:
        fields = VERBS[verb].model_fields.items()
        return " ".join(name if field.is_required() else f"[{name}]" for name, field in fields)

    return "; ".join(f"{verb}: {taken(verb)}" if taken(verb) else verb for verb in VERBS)


def _is_text(schema: dict[str, Any]) -> bool:
    return "string" in (schema.get("type"), *(each.get("type") for each in schema.get("anyOf", ())))


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
