"""Commands as they come in: who signed them, for whom, how old, and whether they can be read.

What changes state is believed only inside a signed envelope that names this device and the verb: a captured
command cannot be played to another device, nor as another verb, nor after its time. Executes nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from edge.envelope import opened
from edge.errors import CommandError, EnvelopeError
from edge.mqtt.broker import Received
from edge.mqtt.payloads_command import READS, VERBS, Args, CommandPayload
from edge.mqtt.topics import Topics
from edge.strictjson import strict_object

PAYLOAD_TYPE = "application/vnd.edge.command+json"
MAX_BYTES = 8 * 1024
MAX_PHOTO_BYTES = 512 * 1024
"""A photo of 256 KiB is 350 KiB in base64, and 467 KiB once more in an envelope."""

MAX_CORRELATION_BYTES = 128
MAX_RESPONSE_TOPIC_CHARS = 200
LONGEST = timedelta(hours=1)
"""How far ahead a signed command may expire: so long its answer must be remembered."""

WITH_PHOTO = ("enroll", "identify")


@dataclass(frozen=True, slots=True)
class Reply:
    """Where an answer goes."""

    topic: str
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One command that may be executed; `content` tells apart two that share a transaction.

    `expires_at` is None only for one that is not signed.
    """

    verb: str
    transaction: str
    args: Args
    reply: Reply
    content: str
    signed: bool
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a device believes: public keys, and whether reading verbs need a signature."""

    trusted: tuple[str, ...] = ()
    unsigned_reads: bool = False


def reply_of(received: Received, verb: str, topics: Topics) -> Reply:
    """Return where the answer goes: where the sender asks, as long as that is below our own responses.

    Raises:
        CommandError: It is not; the answer goes nowhere else than to the usual place.
    """
    correlation = received.correlation
    if correlation is not None and len(correlation) > MAX_CORRELATION_BYTES:
        raise CommandError(
            f"correlation data of {len(correlation)} bytes; {MAX_CORRELATION_BYTES} are allowed"
        )
    wanted = received.response_topic
    if wanted is None:
        return Reply(topics.response(verb), correlation)
    own = (
        wanted.startswith(f"{topics.root}/response/") and wanted.isprintable() and not set(wanted) & set("#+")
    )
    if not own or len(wanted) > MAX_RESPONSE_TOPIC_CHARS:
        raise CommandError("the response topic is not below this device's own response/")
    return Reply(wanted, correlation)


def parse(received: Received, verb: str, topics: Topics, rules: Rules, now: datetime) -> Command:
    """Return the command that a message is.

    Raises:
        CommandError: It is refused; names the transaction where that could be read.
    """
    if received.retained:
        raise CommandError("it was retained; a command is for now, publish it without the retain flag")
    if verb not in VERBS:
        raise CommandError(f"unknown verb; there are {', '.join(VERBS)}")
    payload, limit = received.payload, MAX_PHOTO_BYTES if verb in WITH_PHOTO else MAX_BYTES
    if len(payload) > limit:
        raise CommandError(f"{len(payload)} bytes are more than the {limit} allowed")
    document, signed = _document(payload), False
    if "payloadType" in document:
        try:
            content = opened(payload, PAYLOAD_TYPE, rules.trusted, limit)
        except EnvelopeError as error:
            raise CommandError(str(error)) from None
        document, signed = _document(content), True
    transaction = document.get("transaction")
    known = transaction if isinstance(transaction, str) and transaction.isprintable() else None
    try:
        return _checked(document, signed, verb, topics, rules, now, received)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:80] or "all of it"
        raise CommandError(f"{where}: {first['msg'][:120]}", known and known[:64]) from None
    except CommandError as error:
        raise CommandError(str(error), known and known[:64]) from None


def _checked(
    document: Mapping[str, Any],
    signed: bool,
    verb: str,
    topics: Topics,
    rules: Rules,
    now: datetime,
    received: Received,
) -> Command:
    said = CommandPayload.model_validate_json(json.dumps(document))
    args = VERBS[verb].model_validate(said.args)
    if signed:
        if (said.site, said.device, said.verb) != (topics.site, topics.device, verb):
            raise CommandError("it is signed for another device or another verb")
        if said.expires_at is None or said.expires_at > now + LONGEST:
            raise CommandError("a signed command needs expires_at, at most an hour ahead")
    elif verb not in READS:
        raise CommandError("it changes something and is not signed by a key that is trusted here")
    elif not rules.unsigned_reads:
        raise CommandError("it is not signed, and commands.unsigned_reads is off")
    if said.expires_at is not None and said.expires_at <= now:
        raise CommandError("it has expired")
    content = hashlib.sha256(json.dumps([verb, said.args], sort_keys=True).encode()).hexdigest()
    reply = reply_of(received, verb, topics)
    return Command(verb, said.transaction, args, reply, content, signed, said.expires_at)


def _document(data: bytes) -> dict[str, Any]:
    try:
        return strict_object(data)
    except ValueError as error:
        raise CommandError(str(error)) from None
