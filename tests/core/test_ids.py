from datetime import UTC, datetime, timedelta
from uuid import RFC_4122

import pytest

from edge.core.ids import uuid7

AT = datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)


def test_the_example_of_the_standard_comes_out() -> None:
    # RFC 9562, appendix A.6: 0x017F22E279B0, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F.
    random = (0xCC3 << 62 | 0x18C4DC0C0C07398F).to_bytes(10)

    assert str(uuid7(AT, random)) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_version_and_variant_are_set_whatever_the_noise() -> None:
    for random in (bytes(10), b"\xff" * 10):
        made = uuid7(AT, random)
        assert made.version == 7
        assert made.variant == RFC_4122


def test_later_ids_sort_later_as_text() -> None:
    made = [str(uuid7(AT + timedelta(milliseconds=ms))) for ms in range(200)]

    assert made == sorted(made)
    assert len(set(made)) == 200


def test_ids_of_one_millisecond_differ() -> None:
    assert len({uuid7(AT) for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(datetime(1970, 1, 1, tzinfo=UTC), id="the epoch: a board without a battery"),
        pytest.param(datetime(1903, 1, 1, tzinfo=UTC), id="before the epoch"),
    ],
)
def test_a_clock_that_was_never_set_still_gives_an_id(at: datetime) -> None:
    assert uuid7(at).int >> 80 == 0


@pytest.mark.parametrize(
    ("at", "random", "message"),
    [
        pytest.param(AT, bytes(9), "9 bytes", id="too little noise"),
        pytest.param(AT.replace(tzinfo=None), bytes(10), "zone", id="no time zone"),
    ],
)
def test_bad_input_is_refused(at: datetime, random: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        uuid7(at, random)
