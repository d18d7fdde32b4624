"""What the messages about a pushed gallery look like: `gallery/desired` and `gallery/reported`."""

from typing import Annotated, Literal

from pydantic import Field

from edge.mqtt.payloads import Count, Payload, Timestamp


class GalleryDesiredPayload(Payload):
    """`gallery/desired`: synchronise now; the gallery of this scope has at least this version."""

    schema_: Literal["edge.gallery-desired/1"] = Field("edge.gallery-desired/1", alias="schema")
    version: Annotated[int, Field(ge=0, lt=2**63)] = 0


class BesidePayload(Payload):
    """The gallery of another embedder to switch to, and how it does on a share of the visits."""

    version: Count
    count: Count = Field(description="Subjects in it.")
    model_id: str
    agreed: Count = Field(description="Visits since the start about which both embedders said the same.")
    differed: Count = Field(description="Visits about which they did not.")


class GalleryReportedPayload(Payload):
    """`gallery/reported`: what the last synchronisation came to, and the gallery that serves now."""

    schema_: Literal["edge.gallery-reported/1"] = Field("edge.gallery-reported/1", alias="schema")
    at: Timestamp
    status: Literal["updated", "current", "refused"] = Field(
        description="updated: a new version serves; current: there was none; refused: see error."
    )
    version: Count = Field(description="Version of the gallery in force.")
    count: Count = Field(description="Subjects in it.")
    model_id: str | None
    not_after: Timestamp | None = Field(
        None, description="When this gallery is trusted no more, see sync.stale; null: never."
    )
    revoked_applied_at: Timestamp | None = Field(
        None, description="When the last subject left the gallery in force; null: none since the start."
    )
    beside: BesidePayload | None = None
    error: str | None
