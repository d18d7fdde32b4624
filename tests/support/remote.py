"""Whoever owns the server of a remote gallery: sees every entry, and changes what he likes."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from qdrant_client import QdrantClient, models

from edge.gallery.remote.engine_matcher import RemoteEngine
from edge.gallery.remote.pgvector import PgvectorEngine
from edge.gallery.remote.qdrant import QdrantEngine

COLLECTION = "faces"


@dataclass(frozen=True)
class Point:
    """One entry as it lies in the server."""

    id: str
    said: str
    mac: str
    model_id: str | None
    row: list[float] | None
    groups: tuple[str, ...]


class Owner(Protocol):
    engine: RemoteEngine

    def points(self) -> list[Point]: ...

    def put(self, point: Point) -> None: ...

    def delete(self, point_id: str) -> None: ...


class QdrantOwner:
    """The owner of a collection in qdrant-client's local mode."""

    def __init__(self) -> None:
        self._client = QdrantClient(":memory:")
        self.engine = QdrantEngine(self._client, COLLECTION)

    def points(self) -> list[Point]:
        found = self._client.scroll(COLLECTION, limit=1000, with_vectors=True)[0]
        return [_of_payload(str(each.id), each.payload or {}, each.vector) for each in found]

    def put(self, point: Point) -> None:
        payload: dict[str, Any] = {"said": point.said, "mac": point.mac}
        if point.model_id is not None:
            payload |= {"model_id": point.model_id, "groups": list(point.groups)}
        vector = point.row or [1.0] + [0.0] * 127
        self._client.upsert(COLLECTION, [models.PointStruct(id=point.id, vector=vector, payload=payload)])

    def delete(self, point_id: str) -> None:
        self._client.delete(COLLECTION, [point_id])


class PgvectorOwner:
    """The owner of a database in a real PostgreSQL."""

    def __init__(self, database: str) -> None:
        self._database = database
        self.engine = PgvectorEngine.at(database, COLLECTION)

    def points(self) -> list[Point]:
        query = "SELECT id::text, said, mac, model_id, row::text, groups FROM edge_faces"
        with psycopg.connect(self._database) as connection:
            found = connection.execute(query).fetchall()
        return [
            Point(*first, None if row is None else json.loads(row), tuple(groups))
            for *first, row, groups in found
        ]

    def put(self, point: Point) -> None:
        row = None if point.row is None else str(point.row)
        with psycopg.connect(self._database) as connection:
            connection.execute("DELETE FROM edge_faces WHERE id = %s", [point.id])
            connection.execute(
                "INSERT INTO edge_faces (id, said, mac, model_id, row, groups) VALUES (%s,%s,%s,%s,%s,%s)",
                [point.id, point.said, point.mac, point.model_id, row, list(point.groups)],
            )
            connection.execute("REFRESH MATERIALIZED VIEW edge_faces_rows")

    def delete(self, point_id: str) -> None:
        with psycopg.connect(self._database) as connection:
            connection.execute("DELETE FROM edge_faces WHERE id = %s", [point_id])
            connection.execute("REFRESH MATERIALIZED VIEW edge_faces_rows")


def _of_payload(point_id: str, payload: dict[str, Any], row: Any) -> Point:
    groups = tuple(payload.get("groups", ()))
    return Point(point_id, payload["said"], payload["mac"], payload.get("model_id"), row, groups)
