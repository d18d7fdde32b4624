"""The tables of edge.toml, one class each: every field typed, bounded and described.

What they mean is decided where they are used; where they come from is `config`.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

LIVE: JsonDict = {"push": "live"}
RESTART: JsonDict = {"push": "restart"}
STRICTER: JsonDict = {"push": "stricter"}
"""What a configuration push may do to a field (`twin`): change it at once, from the next start on, or only as
far as less leaves the device than the local file says. A field without a mark is never pushed.
"""


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

    open_timeout_s: float = Field(
        5.0, ge=0.5, le=60, description="Give up opening a camera after this long.", json_schema_extra=LIVE
    )
    stall_s: float = Field(
        3.0,
        ge=0.5,
        le=3.0,
        description="A camera without a frame for this long is replaced.",
        json_schema_extra=LIVE,
    )
    backoff_max_s: float = Field(
        30.0,
        ge=1,
        le=600,
        description="Longest pause between two tries to open a camera.",
        json_schema_extra=LIVE,
    )


class RecognitionSettings(Section):
    """Models and the quality gate."""

    detector: str = Field(
        "yunet", description="Model that finds faces; see `edge models list`.", json_schema_extra=LIVE
    )
    embedder: str = Field(
        "sface-int8",
        description="Model that embeds faces; see `edge models list`. auto: the one that the gallery was "
        "enrolled with, or for an empty gallery the fastest on this device that is accurate enough.",
        json_schema_extra=LIVE,
    )
    threads: int = Field(
        1, ge=1, le=16, description="Threads of each model's session.", json_schema_extra=LIVE
    )
    detector_width: int = Field(
        320,
        ge=96,
        le=1920,
        multiple_of=32,
        description="Longer side in pixels that frames are reduced to for detection.",
        json_schema_extra=LIVE,
    )
    detector_score: float = Field(
        0.7,
        ge=0.1,
        le=1,
        description="Faces the detector is less sure of are ignored.",
        json_schema_extra=LIVE,
    )
    min_face_px: int = Field(
        20,
        ge=16,
        le=1000,
        description="Shorter side of a face in pixels that can be recognized.",
        json_schema_extra=LIVE,
    )
    min_sharpness: float = Field(
        0.15, ge=0, le=1, description="Shots blurrier than this are not embedded.", json_schema_extra=LIVE
    )
    max_yaw_deg: float = Field(
        45,
        ge=5,
        le=90,
        description="Shots turned further than this are not embedded.",
        json_schema_extra=LIVE,
    )
    motion_gate: bool = Field(
        True, description="Skip detection while nothing in the picture changes.", json_schema_extra=LIVE
    )


class DecisionSettings(Section):
    """When a visit is a match, a reject or undecidable."""

    target_fpir: float | None = Field(
        0.001,
        gt=0,
        lt=1,
        description="Share of strangers that may be taken for a subject. The threshold follows from it, the "
        "embedder's calibration and the number of subjects in scope.",
        json_schema_extra=LIVE,
    )
    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Raw cosine instead of target_fpir; it will not follow the gallery's size.",
        json_schema_extra=LIVE,
    )
    site_shift: float = Field(
        0.0,
        ge=-0.5,
        le=0.5,
        description="Added to the calibrated threshold: how much more alike strangers look here than in the "
        "embedder's calibration. `edge calibrate --cohort DIR` measures it.",
        json_schema_extra=LIVE,
    )
    margin: float = Field(
        0.05,
        ge=0,
        le=1,
        description="How far the best subject must be ahead of the second best.",
        json_schema_extra=LIVE,
    )
    min_shots: int = Field(
        2, ge=1, le=20, description="Agreeing shots that a match needs.", json_schema_extra=LIVE
    )
    max_shots: int = Field(
        6, ge=1, le=50, description="Shots after which a stranger is rejected.", json_schema_extra=LIVE
    )
    patience_s: float = Field(
        3.0, ge=0.1, le=60, description="Time after which a stranger is rejected.", json_schema_extra=LIVE
    )
    cooldown_s: float = Field(
        3.0,
        ge=0,
        le=3600,
        description="A face that returns within this time is still the same visit; `left` follows after it.",
        json_schema_extra=LIVE,
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
        json_schema_extra=LIVE,
    )
    model: Path | None = Field(None, description="Directory with your model and its manifest.toml.")
    threshold: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Liveness from which a face is alive; find yours with policy report at the door.",
        json_schema_extra=LIVE,
    )

    @model_validator(mode="after")
    def _consistent(self) -> "LivenessSettings":
        if self.policy != "off" and self.model is None:
            raise ValueError(f"policy {self.policy} needs model, the directory of your liveness model")
        return self


class LogSettings(Section):
    """The log on standard error."""

    format: Literal["auto", "human", "json"] = Field(
        "auto", description="auto: human on a terminal, else JSON lines."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Least important line written.",
        json_schema_extra=RESTART,
    )
