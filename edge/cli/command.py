"""What `edge fleet command` does: sign, send, wait for the answer."""

import base64
import json
import queue
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge.clock import Clock
from edge.config import Settings
from edge.delivery import build_broker
from edge.envelope import sign
from edge.errors import CommandError, ConfigError, LinkError
from edge.fleet.pushes import load_signing_key
from edge.mqtt.commanding import PAYLOAD_TYPE
from edge.mqtt.listener import Listener
from edge.mqtt.payloads_command import VERBS, ResponsePayload
from edge.mqtt.topics import Topics

LIFETIME = timedelta(minutes=5)


def read_args(verb: str, said: list[str], photo: Path | None) -> dict[str, Any]:
    """Return the arguments that `key=value` and a photo say.

    What the verb takes as text is text, whatever it looks like; other values are JSON where they can be.

    Raises:
        ConfigError: The verb is none, one is not key=value, or the photo cannot be read.
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
        try:
            args["photo"] = base64.b64encode(photo.read_bytes()).decode()
        except OSError as error:
            raise ConfigError(f"{photo}: cannot be read: {error.strerror}") from None
    return args


def send_command(
    settings: Settings,
    device: str,
    verb: str,
    args: dict[str, Any],
    key: Path | None,
    *,
    wait_s: float,
    clock: Clock,
) -> ResponsePayload:
    """Send a command and return the answer.

    Raises:
        LinkError: The broker cannot be reached, or nobody answered.
    """
    topics, transaction = Topics(settings.site, device), uuid.uuid4().hex
    document: dict[str, Any] = {"schema": "edge.command/1", "transaction": transaction, "args": args}
    document["expires_at"] = (clock.now() + LIFETIME).isoformat()
    if key is None:
        data = json.dumps(document).encode()
    else:
        document |= {"site": settings.site, "device": device, "verb": verb}
        data = sign(json.dumps(document).encode(), PAYLOAD_TYPE, [load_signing_key(key)])
    known = build_broker(settings.mqtt)
    with Listener(
        known.host,
        known.port,
        (f"{topics.root}/response/+",),
        username=known.username,
        password=known.password,
        tls=known.tls,
    ) as listener:
        listener.publish(topics.command(verb), data)
        until_s = clock.monotonic() + wait_s
        while (left_s := until_s - clock.monotonic()) > 0:
            try:
                message = listener.messages.get(timeout=left_s)
            except queue.Empty:
                break
            try:
                response = ResponsePayload.model_validate_json(message.payload)
            except ValidationError:
                continue  # somebody else's: whoever may publish there may publish anything
            if response.transaction == transaction:
                return response
    raise LinkError(
        f"{device} did not answer in {wait_s:.0f} s: it is offline, or does not believe this key; see its log"
    )


def _is_text(schema: dict[str, Any]) -> bool:
    return "string" in (schema.get("type"), *(each.get("type") for each in schema.get("anyOf", ())))


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def told(response: ResponsePayload) -> str:
    """Return an answer for people.

    Raises:
        CommandError: It is an error.
    """
    if response.error is not None:
        raise CommandError(response.error)
    message = response.data.get("message")
    return message if isinstance(message, str) else json.dumps(response.data, indent=2)
