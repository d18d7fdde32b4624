"""Which MQTT is spoken: 5 first, 3.1.1 where the broker answers as one that does not know 5."""

import pytest

from edge.mqtt.broker import CONNECT_TIMEOUT_S, GUESS_TIMEOUT_S, NO_SUCH_VERSION, ProtocolChoice, Version

NOT_AUTHORISED = 135


@pytest.mark.parametrize(("version", "first"), [("auto", "5"), ("5", "5"), ("3.1.1", "3.1.1")])
def test_what_is_tried_first(version: Version, first: str):
    assert ProtocolChoice(version).first == first


@pytest.mark.parametrize(
    ("version", "spoken", "refusal", "silent", "older"),
    [
        pytest.param("auto", False, NO_SUCH_VERSION, False, True, id="it says that it does not know 5"),
        pytest.param("auto", False, None, True, True, id="it says nothing"),
        pytest.param("auto", False, NOT_AUTHORISED, False, False, id="it refuses for another reason"),
        pytest.param("auto", False, None, False, False, id="it was never reached"),
        pytest.param("auto", True, None, True, False, id="it has spoken 5 and is starting anew"),
        pytest.param(
            "auto", True, NO_SUCH_VERSION, False, True, id="it has spoken 5 and says that it is over"
        ),
        pytest.param("5", False, NO_SUCH_VERSION, False, False, id="the settings want 5"),
        pytest.param("5", False, None, True, False, id="the settings want 5 of one that says nothing"),
    ],
)
def test_when_the_older_protocol_is_tried(
    version: Version, spoken: bool, refusal: int | None, silent: bool, older: bool
):
    choice = ProtocolChoice(version)
    if spoken:
        choice.accepted("5")
    assert choice.wants_older("5", refusal, silent=silent) is older
    assert not choice.wants_older("3.1.1", refusal, silent=silent)


def test_silence_is_waited_for_only_briefly_where_it_has_a_meaning():
    choice = ProtocolChoice("auto")
    assert (choice.patience_s("5"), choice.patience_s("3.1.1")) == (GUESS_TIMEOUT_S, CONNECT_TIMEOUT_S)
    choice.accepted("5")
    assert choice.patience_s("5") == CONNECT_TIMEOUT_S
    assert ProtocolChoice("5").patience_s("5") == CONNECT_TIMEOUT_S
