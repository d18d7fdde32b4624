"""Commands as they come in: who signed them, for whom, how old, and whether they can be read.

What changes state is believed only inside a signed envelope that names this device and the verb: a captured
command cannot be played to another device, nor as another verb, nor after its time. Executes nothing.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from edge.core.errors import CommandError, EnvelopeError
from edge.core.text import first_problem, strict_object
from edge.mqtt.broker import Received
from edge.mqtt.contract.envelope import opened_by
from edge.mqtt.contract.messages import READS, VERBS, Args, CommandPayload
from edge.mqtt.contract.topics import Topics

PAYLOAD_TYPE = "application/vnd.edge.command+json"
MAX_BYTES = 8 * 1024
MAX_PHOTO_BYTES = 512 * 1024
"""A photo of 256 KiB is 350 KiB in base64, and 467 KiB once more in an envelope."""

MAX_CORRELATION_BYTES = 128
MAX_RESPONSE_TOPIC_CHARS = 200
LONGEST = timedelta(hours=1)
"""How far ahead a signed command may expire: so long its answer must be remembered."""

REFUSED = "refused"
"""In the place of a verb that is none."""

WITH_PHOTO = ("enroll", "identify")


@dataclass(frozen=True, slots=True)
class Reply:
    """Where an answer goes."""

    topic: str
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One command that may be executed; `content` tells apart two that share a transaction.

    `signer` is the public key that signed it; it and `expires_at` are None only for one that is not signed.
    """

    verb: str
    transaction: str
    args: Args
    reply: Reply
    content: str
    signer: str | None
    expires_at: datetime | None

    @property
    def signed(self) -> bool:
        """Whether a trusted key has signed it."""
        return self.signer is not None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a device believes: public keys, whether reading verbs need a signature, whether it knows the time.

    While it does not, nothing is changed: a command may be older than the clock says.
    """

    trusted: tuple[str, ...] = ()
    unsigned_reads: bool = False
    time_known: bool = True


def reply_of(received: Received, verb: str, topics: Topics) -> Reply:
    """Return where the answer goes: where the sender asks, as long as that is below our own responses.

    Raises:
        CommandError: It is not; the answer goes nowhere else than to the usual place.
    """
    correlation = received.correlation
    if correlation is not None and len(correlation) > MAX_CORRELATION_BYTES:
        raise CommandError(
            f"correlation data of {len(correlation)} bytes; {MAX_CORRELATION_BYTES} are allowed",
            reason="correlation",
        )
    wanted = received.response_topic
    if wanted is None:
        return Reply(topics.response(verb), correlation)
    own = (
        wanted.startswith(f"{topics.root}/response/") and wanted.isprintable() and not set(wanted) & set("#+")
    )
    if not own or len(wanted) > MAX_RESPONSE_TOPIC_CHARS:
        raise CommandError(
            "the response topic is not below this device's own response/", reason="response_topic"
        )
    return Reply(wanted, correlation)


def refusal_reply(received: Received, verb: str, topics: Topics) -> Reply:
    """Return where a refusal goes: where an answer would, else to the verb's usual place, or to `refused`."""
    usual = verb if verb in VERBS else REFUSED
    try:
        return reply_of(received, usual, topics)
    except CommandError:
        return Reply(topics.response(usual))


def parse(received: Received, verb: str, topics: Topics, rules: Rules, now: datetime) -> Command:
    """Return the command that a message is.

    Raises:
        CommandError: It is refused; names the transaction that it claims, where that could be read.
    """
    try:
        return _parsed(received, verb, topics, rules, now)
    except CommandError as error:
        raise CommandError(str(error), _claimed(received.payload), error.reason) from None


def _parsed(received: Received, verb: str, topics: Topics, rules: Rules, now: datetime) -> Command:
    if received.retained:
        why = "it was retained; a command is for now, publish it without the retain flag"
        raise CommandError(why, reason="retained")
    if verb not in VERBS:
        raise CommandError(f"unknown verb; there are {', '.join(VERBS)}", reason="unknown_verb")
    payload, limit = received.payload, MAX_PHOTO_BYTES if verb in WITH_PHOTO else MAX_BYTES
    if len(payload) > limit:
        raise CommandError(f"{len(payload)} bytes are more than the {limit} allowed", reason="too_large")
    document, signer = _document(payload), None
    if "payloadType" in document:
        try:
            content, signer = opened_by(payload, PAYLOAD_TYPE, rules.trusted, limit)
        except EnvelopeError as error:
            raise CommandError(str(error), reason=error.reason) from None
        document = _document(content)
    try:
        return _checked(document, signer, verb, topics, rules, now, received)
    except ValidationError as error:
        raise CommandError(first_problem(error), reason="content") from None


def _checked(
    document: Mapping[str, Any],
    signer: str | None,
    verb: str,
    topics: Topics,
    rules: Rules,
    now: datetime,
    received: Received,
) -> Command:
    said = CommandPayload.model_validate_json(json.dumps(document))
    args = VERBS[verb].model_validate(said.args)
    if signer is not None:
        if (said.site, said.device, said.verb) != (topics.site, topics.device, verb):
            raise CommandError("it is signed for another device or another verb", reason="addressee")
        if said.expires_at is None or said.expires_at > now + LONGEST:
            raise CommandError("a signed command needs expires_at, at most an hour ahead", reason="expiry")
    elif verb not in READS:
        why = "it changes something and is not signed by a key that is trusted here"
        raise CommandError(why, reason="unsigned")
    elif not rules.unsigned_reads:
        raise CommandError("it is not signed, and commands.unsigned_reads is off", reason="unsigned")
    if said.expires_at is not None and said.expires_at <= now:
        raise CommandError("it has expired", reason="expired")
    if verb not in READS and not rules.time_known:
        why = "the clock is behind a time that was known, so nobody can tell how old this is; set the clock"
        raise CommandError(why, reason="clock")
    content = hashlib.sha256(json.dumps([verb, said.args], sort_keys=True).encode()).hexdigest()
    reply = reply_of(received, verb, topics)
    return Command(verb, said.transaction, args, reply, content, signer, said.expires_at)


def _document(data: bytes) -> dict[str, Any]:
    try:
        return strict_object(data)
    except ValueError as error:
        raise CommandError(str(error), reason="malformed") from None


def _claimed(payload: bytes) -> str | None:
    """Return the transaction that a refused message claims, by which its sender knows it again."""
    if len(payload) > MAX_PHOTO_BYTES:
        return None
    try:
        document = strict_object(payload)
        if "payloadType" in document:
            document = strict_object(base64.b64decode(document["payload"]))
        found = document.get("transaction")
    except (ValueError, TypeError, KeyError):
        return None
    return found[:64] if isinstance(found, str) and found.isprintable() else None
