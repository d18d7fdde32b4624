"""What the messages about a pushed gallery look like: `gallery/desired` and `gallery/reported`."""

from typing import Annotated, Literal

from pydantic import Field

from edge.mqtt.contract.messages import Count, Payload, Timestamp


class GalleryDesiredPayload(Payload):
    """`gallery/desired`: synchronise now; the gallery of this scope has at least this version."""

    schema_: Literal["edge.gallery-desired/1"] = Field("edge.gallery-desired/1", alias="schema")
    version: Annotated[int, Field(ge=0, lt=2**63)] = 0


class BesidePayload(Payload):
    """The gallery of another embedder to switch to, and how it does on a share of the visits."""

    published: Count | None = Field(
        None, description="Its version as the fleet published it; null: it came from elsewhere."
    )
    version: Count = Field(description="Its version in the store of this device.")
    count: Count = Field(description="Subjects in it.")
    model_id: str
    agreed: Count = Field(description="Visits since the start about which both embedders said the same.")
    differed: Count = Field(description="Visits about which they did not.")


class GalleryReportedPayload(Payload):
    """`gallery/reported`: what the last synchronisation came to, and the gallery that serves now."""

    schema_: Literal["edge.gallery-reported/1"] = Field("edge.gallery-reported/1", alias="schema")
    at: Timestamp
    scope: str | None = Field(None, description="Scope whose gallery this door serves; null: no fleet's.")
    status: Literal["updated", "current", "refused"] = Field(
        description="updated: a new version serves; current: there was none; refused: see error."
    )
    published: Count | None = Field(
        None,
        description="Version of the gallery in force as the fleet published it: to be compared with "
        "gallery/desired and `edge fleet status`. null: it is not the fleet's, or was changed at the door.",
    )
    version: Count = Field(
        description="Version of the gallery in force in the store of this device, as in info and events."
    )
    count: Count = Field(description="Subjects in it.")
    model_id: str | None
    not_after: Timestamp | None = Field(
        None, description="When this gallery is trusted no more, see sync.stale; null: never."
    )
    revoked_applied_at: Timestamp | None = Field(
        None, description="When the last subject left the gallery in force; null: none since the start."
    )
    beside: BesidePayload | None = None
    synchronised_at: Timestamp | None = Field(
        None, description="When the last synchronisation ended, whoever started it; null: there was none."
    )
    reason: str | None = Field(
        None,
        description="Why it was refused, in a word: rollback, clock, signature, expired, server, integrity, "
        "model, config, disk, gallery, failed.",
    )
    error: str | None = Field(description="The same in a line; it stays until a synchronisation succeeds.")
