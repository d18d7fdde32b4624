"""The tables of edge.toml, one class each: every field typed, bounded and described.

What they mean is decided where they are used; where they come from is `config`.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class Section(BaseModel):
    """A table of the configuration: unknown keys, NaN and infinity are refused; values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class CameraSettings(Section):
    """One camera. Exactly one of `source` and `command` is set."""

    source: str | None = Field(
        None,
        min_length=1,
        description="Device (/dev/video0), stream (rtsp://, rtsps://, http://, https://), clip or folder of "
        "images. Credentials in a URL never reach a log or a message.",
    )
    command: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Program and arguments that write frames to standard output, e.g. rpicam-vid. Local "
        "configuration only.",
    )
    format: Literal["mjpeg", "bgr24"] = Field("mjpeg", description="What `command` writes.")
    width: int | None = Field(
        None, ge=16, le=7680, description="Frame width to ask for, in pixels; needed for bgr24."
    )
    height: int | None = Field(
        None, ge=16, le=4320, description="Frame height to ask for, in pixels; needed for bgr24."
    )
    fps: float | None = Field(None, gt=0, le=240, description="Frames per second to ask the camera for.")
    realtime: bool = Field(
        True, description="Clips and folders: play at their own speed, not as fast as possible."
    )
    loop: bool = Field(False, description="Clips and folders: start again at the end.")

    @model_validator(mode="after")
    def _one_source(self) -> "CameraSettings":
        if (self.source is None) == (self.command is None):
            raise ValueError("set exactly one of source and command")
        if self.command is not None and self.format == "bgr24" and not (self.width and self.height):
            raise ValueError("format bgr24 needs width and height")
        return self


class CaptureSettings(Section):
    """How cameras are opened and watched."""

    open_timeout_s: float = Field(5.0, ge=0.5, le=60, description="Give up opening a camera after this long.")
    stall_s: float = Field(
        3.0, ge=0.5, le=3.0, description="A camera without a frame for this long is replaced."
    )
    backoff_max_s: float = Field(
        30.0, ge=1, le=600, description="Longest pause between two tries to open a camera."
    )


class RecognitionSettings(Section):
    """Models and the quality gate."""

    detector: str = Field("yunet", description="Model that finds faces; see `edge models list`.")
    embedder: str = Field(
        "sface-int8",
        description="Model that embeds faces; see `edge models list`. auto: the one that the gallery was "
        "enrolled with, or for an empty gallery the fastest on this device that is accurate enough.",
    )
    threads: int = Field(1, ge=1, le=16, description="Threads of each model's session.")
    detector_width: int = Field(
        320,
        ge=96,
        le=1920,
        multiple_of=32,
        description="Longer side in pixels that frames are reduced to for detection.",
    )
    detector_score: float = Field(
        0.7, ge=0.1, le=1, description="Faces the detector is less sure of are ignored."
    )
    min_face_px: int = Field(
        20, ge=16, le=1000, description="Shorter side of a face in pixels that can be recognized."
    )
    min_sharpness: float = Field(0.15, ge=0, le=1, description="Shots blurrier than this are not embedded.")
    max_yaw_deg: float = Field(
        45, ge=5, le=90, description="Shots turned further than this are not embedded."
    )
    motion_gate: bool = Field(True, description="Skip detection while nothing in the picture changes.")


class DecisionSettings(Section):
    """When a visit is a match, a reject or undecidable."""

    target_fpir: float | None = Field(
        0.001,
        gt=0,
        lt=1,
        description="Share of strangers that may be taken for a subject. The threshold follows from it, the "
        "embedder's calibration and the number of subjects in scope.",
    )
    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Raw cosine instead of target_fpir; it will not follow the gallery's size.",
    )
    site_shift: float = Field(
        0.0,
        ge=-0.5,
        le=0.5,
        description="Added to the calibrated threshold: how much more alike strangers look here than in the "
        "embedder's calibration. `edge calibrate --cohort DIR` measures it.",
    )
    margin: float = Field(
        0.05, ge=0, le=1, description="How far the best subject must be ahead of the second best."
    )
    min_shots: int = Field(2, ge=1, le=20, description="Agreeing shots that a match needs.")
    max_shots: int = Field(6, ge=1, le=50, description="Shots after which a stranger is rejected.")
    patience_s: float = Field(3.0, ge=0.1, le=60, description="Time after which a stranger is rejected.")
    cooldown_s: float = Field(
        3.0,
        ge=0,
        le=3600,
        description="A face that returns within this time is still the same visit; `left` follows after it.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "DecisionSettings":
        if self.min_shots > self.max_shots:
            raise ValueError("min_shots must not exceed max_shots")
        if self.threshold is None and self.target_fpir is None:
            raise ValueError("set target_fpir or threshold")
        return self


class LivenessSettings(Section):
    """Whether a face must be alive. The model is yours: models/README.md says what it must look like."""

    policy: Literal["off", "report", "require"] = Field(
        "off",
        description="report: events tell the liveness; require: a match below threshold is a spoof.",
    )
    model: Path | None = Field(None, description="Directory with your model and its manifest.toml.")
    threshold: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Liveness from which a face is alive; find yours with policy report at the door.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "LivenessSettings":
        if self.policy != "off" and self.model is None:
            raise ValueError(f"policy {self.policy} needs model, the directory of your liveness model")
        return self


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
        15, ge=5, le=3600, description="A silent broker is noticed after about twice this long."
    )
    backoff_max_s: float = Field(
        60.0, ge=1, le=3600, description="Longest pause between two tries to connect."
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
        50_000, ge=100, le=1_000_000, description="Decisions kept while the broker is away."
    )
    max_mb: int = Field(32, ge=1, le=4096, description="What they may take on the disk, in MiB.")
    delivery: Literal["puback", "consumer"] = Field(
        "puback",
        description="A decision is forgotten when the broker has acknowledged it (puback), or when a "
        "consumer has named it on the topic ack (consumer), as `edge journal follow --ack` does.",
    )


class HomeAssistantSettings(Section):
    """Home Assistant shows the door by itself."""

    discovery: bool = Field(False, description="Announce this device and its cameras to Home Assistant.")
    prefix: str = Field(
        "homeassistant",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Home Assistant's discovery prefix.",
    )


class PrivacySettings(Section):
    """What leaves the device about a subject."""

    anonymous: bool = Field(False, description="Publish no label and no box, only the opaque subject id.")


class LogSettings(Section):
    """The log on standard error."""

    format: Literal["auto", "human", "json"] = Field(
        "auto", description="auto: human on a terminal, else JSON lines."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least important line written."
    )
