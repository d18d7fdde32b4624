"""What `config/reported` looks like. `config/desired` is a signed envelope, see `edge.device.pushes.push`."""

from typing import Annotated, Literal

from pydantic import Field

from edge.core.slug import Slug
from edge.mqtt.contract.messages import Payload, Timestamp

Version = Annotated[int, Field(ge=0, lt=2**53)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class UnbelievedPushPayload(Payload):
    """The last message on one of the device's config/desired that is no push for it. Anybody may send one."""

    at: Timestamp
    layer: str
    reason: Annotated[str, Field(pattern="^[a-z_]{1,32}$")] = Field(
        description="no_envelope, purpose, no_trusted_key, untrusted_key, signature, content, addressee, "
        "version, too_large, empty or memory; health counts them as config.refused.<reason>."
    )
    error: str
    sha256: Sha256 = Field(
        description="Of the message, for whoever sent it; of its first 65537 bytes where it is longer."
    )
    count: Version = Field(description="All pushes refused since the daemon started, for whatever reason.")


class ConfigReportedPayload(Payload):
    """`config/reported`: what became of the last push that was believed, and what is in force."""

    schema_: Literal["edge.config-reported/1"] = Field("edge.config-reported/1", alias="schema")
    at: Timestamp
    status: Literal["none", "applied", "rejected", "rolled_back", "pending"] = Field(
        description="none: nothing was pushed; pending: it is being tried; rolled_back: the door did not "
        "work under it."
    )
    layer: str | None = Field(description="The layer of that push: fleet, group:<name> or device.")
    version: Version | None = Field(description="Its version; null where nothing was pushed.")
    keys: dict[str, str] = Field(
        description="By setting: applied, needs_restart, overridden by a stronger layer or the "
        "environment, or why not."
    )
    error: str | None
    versions: dict[str, Version] = Field(description="The layers in force and their versions.")
    groups: tuple[Slug, ...] = Field((), description="The groups that the device listens to.")
    effective: Sha256 = Field(description="Hash of all settings that may be pushed, as they are in force.")
    refused: UnbelievedPushPayload | None = Field(
        None, description="The last one that was not believed; shown at most once a second."
    )


class ConfigDesiredPayload(Payload):
    """`config/desired`: a DSSE envelope (ed25519) around the pushed configuration."""

    payloadType: Literal["application/vnd.edge.config+json"]
    payload: str = Field(description="Base64 of JSON: {schema, scope, site, name, version, patch}.")
    signatures: list[dict[str, str]] = Field(description="keyid and sig, base64, of each signature.")
