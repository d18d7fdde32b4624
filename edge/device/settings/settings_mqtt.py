"""The tables of edge.toml about what leaves the device, and what it takes from others."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints, model_validator

from edge.core.slug import Slug
from edge.device.settings.tables import RESTART, STRICTER, Section


class MqttSettings(Section):
    """The broker."""

    host: str = Field("localhost", min_length=1, description="Broker's host name or address.")
    port: int = Field(1883, ge=1, le=65535, description="Broker's port; 8883 is usual with TLS.")
    version: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="Protocol: 5 first, 3.1.1 where 5 is refused."
    )
    username: str | None = Field(None, min_length=1, description="User at the broker.")
    password: SecretStr | None = Field(None, description="Password at the broker; prefer password_file.")
    password_file: Path | None = Field(None, description="File that holds the password.")
    tls: bool = Field(False, description="Speak TLS and verify the broker's certificate.")
    ca_file: Path | None = Field(None, description="Certificates to trust instead of the system's.")
    cert_file: Path | None = Field(None, description="This device's certificate.")
    key_file: Path | None = Field(None, description="This device's private key.")
    keepalive_s: int = Field(
        15,
        ge=5,
        le=3600,
        description="A silent broker is noticed after about twice this long.",
        json_schema_extra=RESTART,
    )
    backoff_max_s: float = Field(
        60.0,
        ge=1,
        le=3600,
        description="Longest pause between two tries to connect.",
        json_schema_extra=RESTART,
    )

    @model_validator(mode="after")
    def _consistent(self) -> "MqttSettings":
        if self.password is not None and self.password_file is not None:
            raise ValueError("set only one of password and password_file")
        if (self.password is not None or self.password_file is not None) and self.username is None:
            raise ValueError("a password needs a username")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        if not self.tls and (self.ca_file or self.cert_file):
            raise ValueError("ca_file and cert_file need tls = true")
        return self


class OutboxSettings(Section):
    """Decisions that wait for the broker."""

    max_rows: int = Field(
        50_000,
        ge=100,
        le=1_000_000,
        description="Decisions kept while the broker is away.",
        json_schema_extra=RESTART,
    )
    max_mb: int = Field(
        32, ge=1, le=4096, description="What they may take on the disk, in MiB.", json_schema_extra=RESTART
    )
    delivery: Literal["puback", "consumer"] = Field(
        "puback",
        description="A decision is forgotten when the broker has acknowledged it (puback), or when a "
        "consumer has named it on the topic ack (consumer), as `edge journal follow --ack` does.",
        json_schema_extra=RESTART,
    )


class HomeAssistantSettings(Section):
    """Home Assistant shows the door by itself."""

    discovery: bool = Field(
        False,
        description="Announce this device and its cameras to Home Assistant.",
        json_schema_extra=RESTART,
    )
    prefix: str = Field(
        "homeassistant",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Home Assistant's discovery prefix.",
    )


class PrivacySettings(Section):
    """What leaves the device about a subject."""

    anonymous: bool = Field(
        False,
        description="Publish no label and no box, only the opaque subject id.",
        json_schema_extra=STRICTER,
    )


PublicKeys = tuple[Annotated[str, StringConstraints(pattern=r"^ed25519:[A-Za-z0-9+/]{43}=$")], ...]


class CommandsSettings(Section):
    """Commands over MQTT; those that change something are refused while no key is trusted."""

    trusted_keys: PublicKeys = Field(
        (), max_length=8, description="Public keys that `edge fleet command-key` has printed."
    )
    unsigned_reads: bool = Field(
        False, description="Answer verbs that change nothing to whoever may publish, unsigned."
    )
    snapshots: bool = Field(False, description="Answer `snapshot` with a picture of the camera.")


class PushSettings(Section):
    """Configuration pushed by the operator of a fleet; refused while no key is trusted."""

    trusted_keys: PublicKeys = Field(
        (), max_length=8, description="Public keys that `edge config keygen` has printed."
    )
    groups: tuple[Slug, ...] = Field(
        (), max_length=8, description="Groups of devices this one belongs to; a later one wins."
    )
    probation_s: float = Field(
        30.0,
        ge=2,
        le=60,
        description="Time in which the door has to work under a pushed configuration; else it is taken back.",
    )
