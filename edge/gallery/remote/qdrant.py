"""A collection of a Qdrant server as the engine of a remote gallery."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from qdrant_client import QdrantClient, models

from edge.core.download import Progress
from edge.core.errors import RemoteGalleryError
from edge.core.text import first_line
from edge.core.types import FloatArray
from edge.gallery.remote.engine_matcher import CONTENTS, ENGINE_TIMEOUT_S, RemoteEntry

BATCH = 256
"""Points of one request of an upload."""

OVERSAMPLING = 4.0
"""How many times the wanted points are found by rows of int8, and compared again by the whole rows."""

FILTERED = ("model_id", "groups")
"""What limits a search. Without an index of it, a search of 100,000 points takes 110 ms instead of 1.4."""


class QdrantEngine:
    """One collection, in which every entry is a point. A search compares with all rows: no graph is built.

    By default the server builds one, which found the right face in .92 of the cases (models/MEASURED.md).
    """

    def __init__(self, client: QdrantClient, collection: str) -> None:
        self._client = client
        self._collection = collection

    @classmethod
    def at(cls, url: str, collection: str, *, api_key: str | None = None) -> "QdrantEngine":
        """Return the engine at a server; nothing is sent before the first question.

        Raises:
            RemoteGalleryError: The address cannot be used.
        """
        try:
            client = QdrantClient(
                url=url, api_key=api_key, timeout=ENGINE_TIMEOUT_S, check_compatibility=False
            )
        except (ValueError, TypeError):
            raise RemoteGalleryError("remote gallery: the address must look like https://host:6333") from None
        return cls(client, collection)

    def replace(self, dim: int, entries: Iterable[RemoteEntry], step: Progress) -> None:
        """Hold exactly these entries; see `RemoteEngine`."""
        vectors = models.VectorParams(size=dim, distance=models.Distance.COSINE)
        try:
            if self._client.collection_exists(self._collection):
                self._client.delete_collection(self._collection)
            self._client.create_collection(
                self._collection,
                vectors_config=vectors,
                hnsw_config=models.HnswConfigDiff(m=0),
                quantization_config=models.ScalarQuantization(
                    scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
                ),
            )
            for field in FILTERED:
                self._client.create_payload_index(
                    self._collection, field, models.PayloadSchemaType.KEYWORD, wait=True
                )
            self._client.upload_points(self._collection, _points(dim, entries), batch_size=BATCH, wait=True)
        except Exception as error:
            # Over HTTP it raises ApiException, in local mode ValueError: no common base below Exception.
            told = f"{type(error).__name__}: {first_line(error)}"
            raise RemoteGalleryError(f"the remote gallery refused it: {told}") from None

    def contents(self) -> Mapping[str, object] | None:
        """Return what was uploaded; see `RemoteEngine`."""
        found = self._client.retrieve(self._collection, [str(CONTENTS)], with_payload=True)
        return found[0].payload or {} if found else None

    def nearest(
        self, row: FloatArray, model_id: str, groups: Sequence[str], count: int
    ) -> Sequence[Mapping[str, object]]:
        """Return the nearest entries; see `RemoteEngine`."""
        must: list[Any] = [models.FieldCondition(key="model_id", match=models.MatchValue(value=model_id))]
        if groups:
            must.append(models.FieldCondition(key="groups", match=models.MatchAny(any=list(groups))))
        found = self._client.query_points(
            self._collection,
            query=row.tolist(),
            query_filter=models.Filter(must=must),
            limit=count,
            with_payload=True,
            search_params=models.SearchParams(
                quantization=models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
            ),
        )
        return [point.payload or {} for point in found.points]

    def close(self) -> None:
        """Let go of the server."""
        self._client.close()


def _points(dim: int, entries: Iterable[RemoteEntry]) -> Iterator[models.PointStruct]:
    anywhere = [1.0] + [0.0] * (dim - 1)
    for entry in entries:
        payload: dict[str, object] = dict(entry.signed)
        if entry.model_id is not None:
            payload |= {"groups": list(entry.groups), "model_id": entry.model_id}
        vector = anywhere if entry.row is None else entry.row.tolist()
        yield models.PointStruct(id=str(entry.id), vector=vector, payload=payload)
