"""Commands as they come in: what is believed, and a table of what is not."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from edge.core.errors import CommandError
from edge.core.pacing import TokenBucket
from edge.device.commands.parse import PAYLOAD_TYPE, Command, Rules, parse, refusal_reply
from edge.device.pushes.push import PAYLOAD_TYPE as CONFIG
from edge.mqtt.broker import Received
from edge.mqtt.contract.envelope import sign
from edge.mqtt.contract.messages import READS, VERBS
from edge.mqtt.contract.topics import Topics
from tests.support.clock import START, SteppedClock
from tests.support.commands import content, signed
from tests.support.pushes import KEY, OTHER_KEY, TRUSTED

NOW = START
TOPICS = Topics("test", "door")
RULES = Rules((TRUSTED,), False)


def plain(**changes: Any) -> bytes:
    return json.dumps({"transaction": "t-1"} | changes).encode()


def heard(
    payload: bytes, verb: str = "revoke", rules: Rules = RULES, *, now: datetime = NOW, **options: Any
) -> Command:
    return parse(Received(1, TOPICS.command(verb), payload, **options), verb, TOPICS, rules, now)


def test_a_signed_command_is_believed():
    command = heard(signed())
    assert (command.verb, command.transaction, command.signed) == ("revoke", "t-1", True)
    assert command.args.subject == "p-1"
    assert command.reply.topic == "edge/v1/test/door/response/revoke"


def test_a_reader_need_not_sign_where_that_is_allowed():
    command = heard(plain(), "subjects", Rules((), True))
    assert (command.verb, command.signed) == ("subjects", False)


def test_the_answer_goes_where_the_sender_asks_below_our_own_responses():
    own = "edge/v1/test/door/response/for/me"
    command = heard(signed(), response_topic=own, correlation=b"\x00\xff")
    assert (command.reply.topic, command.reply.correlation) == (own, b"\x00\xff")


def test_equal_commands_have_equal_content_and_others_do_not():
    assert heard(signed()).content == heard(signed(transaction="t-2")).content
    assert heard(signed()).content != heard(signed(args={"subject": "p-2"})).content


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - READS))
def test_what_changes_something_is_never_done_unsigned(verb: str):
    with pytest.raises(CommandError, match="not signed"):
        heard(plain(args=minimal(verb)), verb, Rules((), True))


def minimal(verb: str) -> dict[str, Any]:
    return {
        "enroll": {"subject": "p-1"},
        "revoke": {"subject": "p-1"},
        "suspend": {"subject": "p-1"},
        "purge": {"confirm": "door"},
    }.get(verb, {})


def deep() -> bytes:
    return sign(b'{"transaction":"t-1","args":' + b"[" * 2500 + b"]" * 2500 + b"}", PAYLOAD_TYPE, [KEY])


ATTACKS = [
    pytest.param(lambda: (content(), {}), "not signed", id="unsigned"),
    pytest.param(lambda: (sign(content(), PAYLOAD_TYPE, []), {}), "not signed", id="no signature"),
    pytest.param(lambda: (sign(content(), PAYLOAD_TYPE, [OTHER_KEY]), {}), "not signed", id="wrong key"),
    pytest.param(
        lambda: (sign(content(), CONFIG, [KEY]), {}), "another purpose", id="signed as a configuration"
    ),
    pytest.param(lambda: (signed().replace(b'"sig":"', b'"sig":"AA'), {}), "fit|envelope", id="altered"),
    pytest.param(lambda: (signed(device="other"), {}), "another device", id="other device"),
    pytest.param(lambda: (signed(site="other"), {}), "another device", id="other site"),
    pytest.param(lambda: (signed("suspend"), {}), "another device or another verb", id="other verb"),
    pytest.param(lambda: (signed(verb="absent"), {}), "another verb", id="no verb inside"),
    pytest.param(lambda: (signed(expires_at="absent"), {}), "expires_at", id="without an end"),
    pytest.param(
        lambda: (signed(expires_at=(NOW + timedelta(hours=2)).isoformat()), {}), "an hour", id="too long"
    ),
    pytest.param(lambda: (signed(expires_at=NOW.isoformat()), {}), "expired", id="expired"),
    pytest.param(lambda: (signed(expires_at="2026-11-24T12:05:00"), {}), "expires_at", id="naive end"),
    pytest.param(lambda: (signed(), {"retained": True}), "retained", id="retained"),
    pytest.param(
        lambda: (signed(), {"response_topic": "edge/v1/test/other/response/x"}), "response topic", id="r"
    ),
    pytest.param(
        lambda: (signed(), {"response_topic": "edge/v1/test/door/response/+"}), "response topic", id="w"
    ),
    pytest.param(
        lambda: (signed(), {"response_topic": "edge/v1/test/door/response/" + "x" * 300}),
        "response topic",
        id="l",
    ),
    pytest.param(lambda: (signed(), {"correlation": b"x" * 129}), "correlation", id="huge correlation"),
    pytest.param(lambda: (signed(transaction="a b"), {}), "transaction", id="bad transaction"),
    pytest.param(lambda: (signed(transaction="x" * 65), {}), "transaction", id="long transaction"),
    pytest.param(lambda: (signed(args={}), {}), "subject", id="no subject"),
    pytest.param(lambda: (signed(args={"subject": "p", "x": 1}), {}), "x:", id="unknown argument"),
    pytest.param(lambda: (signed(args={"subject": 7}), {}), "subject", id="wrong type"),
    pytest.param(lambda: (signed(args=[]), {}), "args", id="args a list"),
    pytest.param(lambda: (signed(more=1), {}), "more", id="unknown key"),
    pytest.param(lambda: (signed(schema="edge.command/2"), {}), "schema", id="newer schema"),
    pytest.param(lambda: (b"", {}), "no JSON", id="empty"),
    pytest.param(lambda: (b"\xff\xfe", {}), "no JSON", id="not UTF-8"),
    pytest.param(lambda: (b"[]", {}), "no JSON object", id="a list"),
    pytest.param(deep, "deeply|args", id="deep JSON"),
    pytest.param(lambda: (b'{"transaction":"a","transaction":"b"}', {}), "twice", id="a key twice"),
    pytest.param(lambda: (b'{"transaction":NaN}', {}), "not a number", id="NaN"),
    pytest.param(lambda: (signed(args={"subject": "x" * 9000}), {}), "bytes are more", id="oversize"),
]


@pytest.mark.parametrize(("attack", "says"), ATTACKS)
def test_what_is_not_as_it_should_be_is_refused(attack: Callable[[], Any], says: str):
    made = attack()
    payload, options = made if isinstance(made, tuple) else (made, {})
    with pytest.raises(CommandError) as caught:
        heard(payload, **options)
    assert any(part in str(caught.value) for part in says.split("|")), str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("verb", ["", "../x", "open", "revoke/x", "REVOKE", "x" * 32])
def test_an_unknown_verb_is_refused(verb: str):
    with pytest.raises(CommandError, match="unknown verb"):
        heard(signed(), verb)


OWN = "edge/v1/test/door/response"


@pytest.mark.parametrize(
    ("verb", "options", "topic", "correlation"),
    [
        pytest.param("revoke", {}, f"{OWN}/revoke", None, id="no wish"),
        pytest.param("open", {}, f"{OWN}/refused", None, id="unknown verb"),
        pytest.param("a/b", {}, f"{OWN}/refused", None, id="no verb at all"),
        pytest.param(
            "open", {"response_topic": f"{OWN}/me", "correlation": b"\x01"}, f"{OWN}/me", b"\x01", id="a wish"
        ),
        pytest.param("revoke", {"correlation": b"\x01"}, f"{OWN}/revoke", b"\x01", id="correlation alone"),
        pytest.param(
            "revoke",
            {"response_topic": "edge/v1/test/other/response/x"},
            f"{OWN}/revoke",
            None,
            id="elsewhere",
        ),
        pytest.param(
            "revoke", {"response_topic": "edge/v1/test/door/status"}, f"{OWN}/revoke", None, id="other topic"
        ),
        pytest.param("revoke", {"correlation": b"x" * 129}, f"{OWN}/revoke", None, id="huge correlation"),
    ],
)
def test_a_refusal_goes_where_it_was_asked_for_below_our_own_responses(
    verb: str, options: dict[str, Any], topic: str, correlation: bytes | None
):
    reply = refusal_reply(Received(1, TOPICS.command("x"), b"", **options), verb, TOPICS)
    assert (reply.topic, reply.correlation) == (topic, correlation)


def test_who_signed_is_known():
    assert heard(signed()).signer == TRUSTED
    assert heard(plain(), "subjects", Rules((), True)).signer is None


def test_a_refusal_names_the_transaction_only_where_it_can_be_read():
    for payload, transaction in (
        (signed(args={}), "t-1"),
        (sign(content(), PAYLOAD_TYPE, [OTHER_KEY]), "t-1"),
        (b'{"payloadType": 7, "payload": 7}', None),
        (b'{"payloadType": "", "payload": "W10="}', None),
        (b"{}", None),
        (plain(transaction="\x1b[2J"), None),
    ):
        with pytest.raises(CommandError) as caught:
            heard(payload)
        assert caught.value.transaction == transaction


def test_without_a_trusted_key_nothing_signed_is_believed():
    with pytest.raises(CommandError, match="no key is trusted"):
        heard(signed(), rules=Rules())


def test_a_flood_is_held_to_the_rate():
    clock = SteppedClock()
    bucket = TokenBucket(5.0, 20, clock.monotonic)
    assert sum(bucket.take() for _ in range(1000)) == 20
    clock.now_s += 1.0
    assert sum(bucket.take() for _ in range(1000)) == 5
    clock.now_s += 3600
    assert sum(bucket.take() for _ in range(1000)) == 20
