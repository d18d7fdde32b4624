"""The tables of edge.toml about who is enrolled: who may pass, what is kept, where galleries come from."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from edge.core.access import zone_problem
from edge.core.slug import Slug
from edge.device.settings.tables import LIVE, STRICTER, Section


class AccessSettings(Section):
    """Who of the enrolled may pass this door."""

    groups: tuple[Annotated[str, StringConstraints(min_length=1, max_length=32)], ...] = Field(
        (),
        max_length=16,
        description="Door groups served here; a subject needs one of them. None: everybody.",
        json_schema_extra=LIVE,
    )
    time_zone: str = Field(
        "UTC",
        description="Time zone of subjects' weekly windows, where they name none of their own.",
        json_schema_extra=LIVE,
    )

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        if (problem := zone_problem(name)) is not None:
            raise ValueError(problem)
        return name


class GallerySettings(Section):
    """The enrolled subjects on this device."""

    keep_versions: int = Field(
        5, ge=2, le=100, description="Versions kept on disk, the current one included."
    )
    prototypes: int = Field(3, ge=1, le=5, description="Templates kept per subject.", json_schema_extra=LIVE)
    keep_crops: bool = Field(
        False,
        description="Keep the faces of enrolment photos, encrypted, for `edge subjects show --sheet`.",
    )
    shadow_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Share of visits that a gallery to switch to is tried on (`edge fleet publish --beside`, "
        "embedder auto).",
        json_schema_extra=LIVE,
    )
    device_key: Path | None = Field(
        None,
        description="File with the key that this device's templates are encrypted under; a name without a "
        "directory is a credential of systemd. Unset: state_dir/device.key, made at first use.",
    )


class StrangersSettings(Section):
    """Visits kept for a while: of people whom nobody knows, to enrol them, and matches, to deny them."""

    keep_hours: float = Field(
        0.0,
        ge=0,
        le=168,
        description="How long templates of visits are kept, encrypted, no pictures: strangers', and those of "
        "matches with the subject's id (`edge strangers list --matched`); 0: not at all, 24 is usual.",
        json_schema_extra=STRICTER,
    )


class RemoteSettings(Section):
    """A Qdrant collection for sites with more templates than a device holds (extra `scale`)."""

    policy: Literal["off", "unknown"] = Field(
        "off", description="unknown: ask about visitors whom nobody in the local gallery is like."
    )
    url: str | None = Field(None, min_length=1, description="Address of the server, https://host:6333.")
    collection: str = Field("edge", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Collection to search.")
    secret: Path | None = Field(
        None,
        description="File with the site's secret, which signs what is uploaded and rotates templates and "
        "probes before they leave the device; a name without a directory is a credential of systemd.",
    )
    api_key_file: Path | None = Field(None, description="File with the server's API key.")
    timeout_ms: int = Field(
        250, ge=10, le=2000, description="After this the local decision stands.", json_schema_extra=LIVE
    )

    @model_validator(mode="after")
    def _consistent(self) -> "RemoteSettings":
        if self.policy != "off" and (self.url is None or self.secret is None):
            raise ValueError("policy unknown needs url and secret")
        return self


class SyncSettings(Section):
    """Galleries from the operator's fleet (`edge fleet`); off without a url."""

    url: str | None = Field(
        None,
        min_length=1,
        description="Where the fleet is published: http, https or file URL, or a directory. Unset: the "
        "gallery is this device's own.",
    )
    scope: Slug | None = Field(
        None, description="Scope whose gallery this door serves; the device's name when unset."
    )
    tenant: Slug | None = Field(None, description="Whose fleet it is; the site's name when unset.")
    trusted_root: Path | None = Field(
        None, description="The fleet's root metadata, brought here by hand: what trust begins with."
    )
    sealing_key: Path | None = Field(
        None,
        description="File with the key that opens this scope's galleries, or with the new one and the old, "
        "one a line, while it changes; a name without a directory is a credential of systemd.",
    )
    stale: Literal["closed", "open"] = Field(
        "closed",
        description="Past the gallery's not_after (`edge fleet publish --valid-days`): reject everybody with "
        "the reason gallery_stale, or go on.",
        json_schema_extra=LIVE,
    )
    timeout_s: float = Field(
        90.0,
        ge=1,
        le=110,
        description="Give up after this long; the next synchronisation tries again.",
        json_schema_extra=LIVE,
    )

    @model_validator(mode="after")
    def _consistent(self) -> "SyncSettings":
        if self.url is not None and (self.trusted_root is None or self.sealing_key is None):
            raise ValueError("url needs trusted_root and sealing_key, which come with the scope")
        return self
