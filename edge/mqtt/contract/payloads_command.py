"""What commands and responses look like, and what each verb takes. Executes nothing."""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from edge.core.slug import Slug
from edge.mqtt.contract.messages import Payload

MAX_PHOTO_CHARS = 350_000
"""Base64 of 256 KiB."""

Transaction = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
SubjectId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Photo = Annotated[str, StringConstraints(min_length=16, max_length=MAX_PHOTO_CHARS)]


class Args(BaseModel):
    """What a verb takes: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class NoArgs(Args):
    """A verb that takes nothing."""


class EnrollArgs(Args):
    """`enroll`: a subject, from a photo (JPEG or PNG in base64) or from a past visit.

    `force`: although another subject looks the same; `replace`: although it is enrolled with another face.
    """

    subject: SubjectId
    photo: Photo | None = None
    visit: Annotated[str, StringConstraints(pattern=r"^v-[0-9a-f]{1,32}$")] | None = None
    label: Annotated[str, StringConstraints(max_length=64)] | None = None
    groups: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=32)]], Field(max_length=16)
    ] = []
    force: bool = False
    replace: bool = False


class SubjectArgs(Args):
    """`revoke`: who."""

    subject: SubjectId


class SuspendArgs(Args):
    """`suspend`: who; with `lift` it may pass again."""

    subject: SubjectId
    lift: bool = False


class PhotoArgs(Args):
    """`identify`: a photo in base64."""

    photo: Photo


class CameraArgs(Args):
    """`snapshot`: of which camera."""

    camera: Slug


class PurgeArgs(Args):
    """`purge`: erase everybody who is enrolled here; `confirm` is the device's name."""

    confirm: Slug


VERBS: dict[str, type[Args]] = {
    "enroll": EnrollArgs,
    "revoke": SubjectArgs,
    "suspend": SuspendArgs,
    "subjects": NoArgs,
    "identify": PhotoArgs,
    "snapshot": CameraArgs,
    "gallery.sync": NoArgs,
    "selftest": NoArgs,
    "reload": NoArgs,
    "restart": NoArgs,
    "purge": PurgeArgs,
    "diagnostics": NoArgs,
}

READS = frozenset({"subjects", "identify", "snapshot", "selftest", "diagnostics"})
"""Verbs that change nothing."""


class CommandPayload(Payload):
    """`command/<verb>`: what is asked for; signed, with `site`, `device` and `verb`, inside an envelope."""

    schema_: Literal["edge.command/1"] = Field("edge.command/1", alias="schema")
    transaction: Transaction = Field(description="Chosen by the sender; the same one gets the same answer.")
    args: dict[str, Any] = Field(default_factory=dict)
    expires_at: AwareDatetime | None = Field(
        None, description="Needed in a signed command, at most 1 h ahead."
    )
    site: Slug | None = None
    device: Slug | None = None
    verb: str | None = Field(None, max_length=32)


class SignedCommandPayload(Payload):
    """`command/<verb>`: a DSSE envelope (ed25519) around a command."""

    payloadType: Literal["application/vnd.edge.command+json"]
    payload: str = Field(description="Base64 of the command, with expires_at, site, device and verb.")
    signatures: list[dict[str, str]] = Field(description="keyid and sig, base64, of each signature.")


class ResponsePayload(Payload):
    """`response/<verb>`, or the response topic of the command: what came of it, refusals included."""

    schema_: Literal["edge.response/1"] = Field("edge.response/1", alias="schema")
    transaction: str | None = Field(description="That of the command; null where it could not be read.")
    verb: str
    status: Literal["ok", "error"]
    error: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)
