"""The tables of edge.toml, one class each: every field typed, bounded and described.

What they mean is decided where they are used; they are read by `load`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from edge.core.access import zone_problem
from edge.core.ids import Slug
from edge.face.manifest import Provider

LIVE: JsonDict = {"push": "live"}
RESTART: JsonDict = {"push": "restart"}
STRICTER: JsonDict = {"push": "stricter"}
"""What a configuration push may do to a field: change it at once, from the next start on, or only as
far as less leaves the device than the local file says. A field without a mark is never pushed.
"""


AnyPath = Annotated[Path, AfterValidator(Path.absolute)]
"""A file or directory; a relative path starts at the directory that the program was started in."""

SecretPath = Annotated[Path, AfterValidator(lambda path: path if len(path.parts) == 1 else path.absolute())]
"""The same for a secret's file, whose name without a directory may be a credential of systemd."""


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
    rotate: Literal[0, 90, 180, 270] = Field(
        0,
        description="Turn frames clockwise by this many degrees: 180 where the camera hangs upside down. "
        "`edge check --look` finds out.",
    )
    flip: bool = Field(
        False,
        description="Mirror frames, left and right, after turning them: a camera that looks into a mirror.",
    )
    snapshot: Literal["off", "request", "decision"] = Field(
        "off",
        description="Publish pictures on camera/<c>/snapshot: off; request: when the command `snapshot` asks "
        "for one; decision: also at each decision. Never with privacy.anonymous.",
    )
    ca_file: AnyPath | None = Field(
        None,
        description="https and rtsps: authorities to trust instead of the system's, or the camera's own "
        "certificate (PEM).",
    )
    insecure: bool = Field(
        False, description="https and rtsps: send the password to whoever answers, whatever its certificate."
    )
    follow_redirects: bool = Field(
        False, description="http and https: follow the camera to another path of the same server."
    )

    @property
    def is_clip(self) -> bool:
        """Whether it is a clip or a folder, and not a device, a stream or a program, which go on for ever."""
        source = self.source
        return source is not None and "://" not in source and not source.startswith("/dev/")

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


ProviderName = Literal["tensorrt", "cuda", "openvino", "coreml", "qnn", "cpu"]


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
    providers: tuple[ProviderName, ...] = Field(
        ("cpu",),
        min_length=1,
        description="What runs the models, in order: the first that starts and computes what it should; the "
        "processor comes last by itself. Each needs an onnxruntime that has it (deploy/BOARDS.md).",
    )
    provider_options: dict[ProviderName, dict[str, str]] = Field(
        {},
        description="Options of a provider, as texts, by the names of onnxruntime's page on it. Local "
        "configuration only: some name libraries to load.",
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

    @model_validator(mode="after")
    def _consistent(self) -> "RecognitionSettings":
        if len(set(self.providers)) < len(self.providers):
            raise ValueError("providers names one twice; leave one of them out")
        if unused := self.provider_options.keys() - set(self.providers):
            raise ValueError(
                f"provider_options are of {min(unused)}, which is none of providers; add it there"
            )
        return self

    @property
    def runs_on(self) -> tuple[Provider, ...]:
        """What runs the models, in order, with the options of each."""
        return tuple(Provider(name, self.provider_options.get(name, {})) for name in self.providers)


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
        gt=0,
        le=1,
        description="Raw cosine instead of target_fpir; it will not follow the gallery's size. Not below the "
        "first entry of the embedder's calibration.",
        json_schema_extra=LIVE,
    )
    site_shift: float = Field(
        0.0,
        ge=-0.1,
        le=0.5,
        description="Added to the calibrated threshold: how much more alike strangers look here than in the "
        "embedder's calibration. `edge calibrate --cohort DIR` measures it. The gallery shows a shift "
        "itself; the larger of both counts, and 0 where both are below.",
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


RECOMMENDED_LIVENESS = ("liveness-minifasnet-v1se", "liveness-minifas-128")
"""The liveness models that were measured together; see models/LIVENESS.md."""

LivenessName = Annotated[str, StringConstraints(pattern=r"^liveness-[a-z0-9-]+$")]
"""A liveness model of this package; anything else is the directory of one of the operator's own."""


class LivenessSettings(Section):
    """Whether a face must be alive; without `require` a picture of a subject opens the door."""

    policy: Literal["auto", "off", "report", "require"] = Field(
        "auto",
        description="report: events tell the liveness; require: a match below threshold is a spoof; auto: "
        "report where the models are installed, else off.",
        json_schema_extra=LIVE,
    )
    model: Literal["recommended"] | LivenessName | AnyPath | tuple[LivenessName | AnyPath, ...] = Field(
        "recommended",
        description="The models that are asked together: recommended, or one or a list of names of `edge "
        "models list` and of directories with a model of yours and its manifest.toml.",
    )
    threshold: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Liveness from which a face is alive. Scores of the recommended models are such that 0.5 "
        "is their measured threshold; of yours, find it with policy report at the door.",
        json_schema_extra=LIVE,
    )

    @property
    def models(self) -> tuple[str | Path, ...]:
        """The models that are asked together: names, or directories."""
        if self.model == "recommended":
            return RECOMMENDED_LIVENESS
        return self.model if isinstance(self.model, tuple) else (self.model,)

    @model_validator(mode="after")
    def _consistent(self) -> "LivenessSettings":
        if not self.models:
            raise ValueError("model names none; leave it out, or set policy off")
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


class MqttSettings(Section):
    """The broker."""

    host: str = Field("localhost", min_length=1, description="Broker's host name or address.")
    port: int = Field(1883, ge=1, le=65535, description="Broker's port; 8883 is usual with TLS.")
    version: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="Protocol: 5 first, 3.1.1 where 5 is refused."
    )
    username: str | None = Field(None, min_length=1, description="User at the broker.")
    password: SecretStr | None = Field(None, description="Password at the broker; prefer password_file.")
    password_file: AnyPath | None = Field(None, description="File that holds the password.")
    tls: bool = Field(False, description="Speak TLS and verify the broker's certificate.")
    ca_file: AnyPath | None = Field(None, description="Certificates to trust instead of the system's.")
    cert_file: AnyPath | None = Field(None, description="This device's certificate.")
    key_file: AnyPath | None = Field(None, description="This device's private key.")
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
    unclaimed_hours: float | None = Field(
        None,
        ge=0,
        le=8760,
        description="For a site where nobody keeps the journal, as with Home Assistant alone: decisions that "
        "nobody subscribes to are forgotten at this age. Unset: somebody will, they are kept. Needs MQTT 5.",
        json_schema_extra=RESTART,
    )

    @model_validator(mode="after")
    def _consistent(self) -> "OutboxSettings":
        if self.unclaimed_hours is not None and self.delivery == "consumer":
            raise ValueError(
                "unclaimed_hours says that nobody keeps the journal, delivery that a consumer does"
            )
        return self


ShownName = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]


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
    device_name: ShownName | None = Field(
        None, description="What people call this door, such as Front door; Door <device> by default."
    )
    camera_names: dict[Slug, ShownName] = Field(
        {},
        description='What people call its cameras, such as {front = "Street"}; their own names by default.',
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
        description="Time that a push is on trial, in which the door has to work; else it is rolled back.",
    )


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
    clock_behind: Literal["closed", "open"] = Field(
        "closed",
        description="While the clock shows a time that has passed already, and was not right since the "
        "start: reject whoever has weekly windows and refuse commands that change something (closed), or go "
        "by the latest time that was known (open).",
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
    candidate_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Share of visits that the candidate, a gallery of another embedder to switch to, is "
        "tried on (`edge fleet publish --candidate`, embedder auto).",
        json_schema_extra=LIVE,
    )
    device_key: SecretPath | None = Field(
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
        description="How long templates of visits are kept, encrypted: strangers', and those of "
        "matches with the subject's id (`edge strangers list --matched`); 0: not at all, 24 is usual.",
        json_schema_extra=STRICTER,
    )
    keep_pictures: bool = Field(
        False,
        description="Keep a picture of each stranger with the visit, encrypted, for whoever enrols one. It "
        "is erased with the visit. Never with privacy.anonymous.",
    )


class RemoteSettings(Section):
    """An engine for sites with more templates than a device holds (extra `remote` or `postgres`)."""

    policy: Literal["off", "unknown"] = Field(
        "off", description="unknown: ask about visitors whom nobody in the local gallery is like."
    )
    url: str | None = Field(
        None, min_length=1, description="Server: https://host:6333 or postgresql://user@host/database."
    )
    collection: str = Field("edge", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="What to search there.")
    secret: SecretPath | None = Field(
        None,
        description="File with the site's secret, which signs what is uploaded and rotates templates and "
        "probes before they leave the device; a name without a directory is a credential of systemd.",
    )
    api_key_file: AnyPath | None = Field(None, description="File with the server's API key, or password.")
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
    trusted_root: AnyPath | None = Field(
        None, description="The fleet's root metadata, brought here by hand: what trust begins with."
    )
    sealing_key: SecretPath | None = Field(
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
