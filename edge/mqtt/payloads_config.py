"""What `config/reported` looks like. `config/desired` is a signed envelope, see `edge.twin`."""

from typing import Annotated, Literal

from pydantic import Field

from edge.mqtt.payloads import Payload, Timestamp

Version = Annotated[int, Field(ge=0, lt=2**53)]


class ConfigReportedPayload(Payload):
    """`config/reported`: what became of the last push, and what is in force."""

    schema_: Literal["edge.config-reported/1"] = Field("edge.config-reported/1", alias="schema")
    at: Timestamp
    status: Literal["none", "applied", "rejected", "rolled_back", "pending"] = Field(
        description="none: nothing was pushed; pending: it is being tried; rolled_back: the door did not "
        "work under it."
    )
    layer: str | None = Field(description="The layer of that push: fleet, group:<name> or device.")
    version: Version | None = Field(description="Its version; null where it could not be believed.")
    keys: dict[str, str] = Field(
        description="By setting: applied, needs_restart, overridden (by the environment), or why not."
    )
    error: str | None
    versions: dict[str, Version] = Field(description="The layers in force and their versions.")
    effective: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(
        description="Hash of all settings that may be pushed, as they are in force."
    )


class ConfigDesiredPayload(Payload):
    """`config/desired`: a DSSE envelope (ed25519) around the pushed configuration."""

    payloadType: Literal["application/vnd.edge.config+json"]
    payload: str = Field(description="Base64 of JSON: {schema, scope, site, name, version, patch}.")
    signatures: list[dict[str, str]] = Field(description="keyid and sig, base64, of each signature.")
