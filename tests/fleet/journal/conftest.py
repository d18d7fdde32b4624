"""A PostgreSQL for the tests of the journal."""

from collections.abc import Iterator

import pytest

from tests.support.postgres import Postgres, running_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def database(postgres_server: Postgres) -> str:
    """The address of an empty database."""
    return postgres_server.database()
