"""What the product needs of a broker, against the one that is at hand."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.brokers.__main__ import tried
from tests.brokers.kinds import MOSQUITTO, Kind, RunningBroker
from tests.brokers.protocol import ROWS, RULES_ROWS, YES

Start = Callable[..., RunningBroker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    brokers: list[RunningBroker] = []

    def make(kind: Kind, **options: bool) -> RunningBroker:
        brokers.append(RunningBroker(kind, tmp_path, tmp_path / kind.name, **options))
        return brokers[-1].start()

    yield make
    for broker in brokers:
        broker.stop()


def test_mosquitto_does_all_that_the_product_needs(start: Start):
    cells = tried(ROWS, start(MOSQUITTO))
    assert {row: said for row, said in cells.items() if said != YES} == {"says of itself": "in flight 20"}


def test_mosquitto_lets_a_door_do_what_is_its_own(start: Start):
    cells = tried(RULES_ROWS, start(MOSQUITTO, rules=True))
    assert {row: said for row, said in cells.items() if said != YES} == {
        "0x87: denied to subscribe": "granted, hears nothing"
    }
