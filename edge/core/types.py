"""The messages that flow from a frame to an event. Data only: no behaviour, no clock, no library.

Arrays: images are BGR uint8 (H, W, 3); boxes are xyxy float32 in pixels of the frame; landmarks are
float32 (5, 2) in the order image-left eye, image-right eye, nose, image-left mouth corner, image-right
mouth corner; embeddings are float32 of unit L2 norm and always travel with their `model_id`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.core.access import ALWAYS, Access

Image = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
RemoteOutcome = Literal["not_asked", "answered", "timeout", "failed"]
"""What came of asking a remote gallery about a visit."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of one camera.

    `captured_at` is UTC and says when the light fell in, for people and logs; `monotonic_s` is the same
    moment on the monotonic clock, for intervals; `number` counts the frames of this camera from 0.
    """

    camera: str
    image: Image
    captured_at: datetime
    monotonic_s: float
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A face found in a frame: box xyxy (4,) and landmarks (5, 2) in frame pixels, score in [0, 1]."""

    box: FloatArray
    landmarks: FloatArray
    score: float

    @property
    def size_px(self) -> float:
        """The shorter side of the box in pixels."""
        x1, y1, x2, y2 = self.box.tolist()
        return float(min(x2 - x1, y2 - y1))


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """A face followed over frames.

    `detection` is the face in this frame, or None where it was missed, or not looked for, as `searched`
    says; `box` is where the track believes the face to be. `hits` counts the frames in which it was seen.
    `ended` is True once, in the update that gives the track up.
    """

    track_id: int
    detection: Detection | None
    box: FloatArray
    started_s: float
    seen_s: float
    hits: int
    ended: bool = False
    searched: bool = True


class Refusal(StrEnum):
    """Why a shot of a face is not worth an embedding."""

    SIZE = "size"
    BLUR = "blur"
    POSE = "pose"
    EXPOSURE = "exposure"
    SCORE = "score"
    CROPPED = "cropped"
    COVERED = "covered"
    SUNGLASSES = "sunglasses"
    NOISE = "noise"
    TILT = "tilt"
    RECOGNISABILITY = "recognisability"
    LIVENESS = "liveness"


@dataclass(frozen=True, slots=True)
class Quality:
    """What the quality gate measured on one shot.

    `face_px` is the shorter side of the box in pixels; `sharpness`, `exposure` and `weight` lie in
    [0, 1], higher is better; `yaw_deg` is the estimated turn of the head, 0 frontal, positive towards
    image right; `detector_score` in [0, 1]. `refused` is None when the shot is usable. `lifted` is how many
    times the levels of a dark face were spread before it was judged and embedded; 1: not at all.
    `recognisability` in [0, 1] is how sure the embedder was that this is a face as it knows them, by the
    length of its raw answer; None where that was not measured: a shot that was not embedded, an embedder
    whose manifest does not say how long its answers are, a template of an earlier release.
    """

    face_px: float
    sharpness: float
    yaw_deg: float
    exposure: float
    detector_score: float
    weight: float
    refused: Refusal | None = None
    lifted: float = 1.0
    recognisability: float | None = None

    @property
    def numbers(self) -> tuple[float, ...]:
        """All that was measured, in the order of the fields: six, seven or eight numbers.

        `recognisability` stands there where it was measured, `lifted` before it, or where it is not 1. So a
        file that has neither is what releases before these fields wrote and read.
        """
        measured = (
            self.face_px, self.sharpness, self.yaw_deg, self.exposure, self.detector_score, self.weight
        )  # fmt: skip
        if self.recognisability is not None:
            return (*measured, self.lifted, self.recognisability)
        return measured if self.lifted == 1.0 else (*measured, self.lifted)

    @classmethod
    def of(cls, numbers: Iterable[float], refused: Refusal | None = None) -> "Quality":
        """Return the quality that has these `numbers`.

        Raises:
            ValueError: There are more or fewer.
        """
        face_px, sharpness, yaw_deg, exposure, detector_score, weight, *rest = map(float, numbers)
        lifted = rest.pop(0) if rest else 1.0
        (recognisability,) = rest or (None,)
        return cls(
            face_px, sharpness, yaw_deg, exposure, detector_score, weight, refused, lifted, recognisability
        )


@dataclass(frozen=True, slots=True, eq=False)
class AlignedFace:
    """A face warped onto the embedder's template: BGR uint8 (112, 112, 3), its quality, and where it was."""

    image: Image
    quality: Quality
    found: Detection


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A presented face as an embedding: float32 (D,), unit norm.

    `liveness` in [0, 1] is how likely the face is alive; None where that was not measured.
    """

    embedding: FloatArray
    model_id: str
    quality: Quality
    liveness: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """An enrolled face: float32 (D,), unit norm, made from `photos` photos or shots. `created_at` is UTC."""

    embedding: FloatArray
    model_id: str
    quality: Quality
    source: str
    created_at: datetime
    photos: int = 1


@dataclass(frozen=True, slots=True)
class Subject:
    """Somebody enrolled: opaque id, label for people, doors it may use, where the consent is, notes."""

    subject_id: str
    label: str
    groups: tuple[str, ...] = ()
    access: Access = ALWAYS
    consent: str = ""
    notes: str = ""


@dataclass(frozen=True, slots=True)
class ScoredSubject:
    """A subject and its best score against a probe, a cosine in [-1, 1].

    `own_shift` is what a gallery elsewhere says is added to the threshold for this subject, at least.
    """

    subject: Subject
    score: float
    own_shift: float = 0.0


class EventType(StrEnum):
    """What happened to a visit."""

    MATCH = "match"
    REJECT = "reject"
    NO_DECISION = "no_decision"
    SPOOF = "spoof"
    LEFT = "left"


class Reason(StrEnum):
    """Why a visit was not matched."""

    BELOW_THRESHOLD = "below_threshold"
    AMBIGUOUS = "ambiguous"
    EXPIRED = "expired"
    OUTSIDE_WINDOW = "outside_window"
    NOT_ALLOWED_HERE = "not_allowed_here"
    LOW_QUALITY = "low_quality"
    TOO_SMALL = "too_small"
    TOO_FEW_LOOKS = "too_few_looks"
    SPOOF = "spoof"
    GALLERY_EMPTY = "gallery_empty"
    GALLERY_STALE = "gallery_stale"


@dataclass(frozen=True, slots=True)
class Barred:
    """A subject among the two closest of all that may not pass here now; `comparisons` are those of all."""

    nearest: ScoredSubject
    reason: Reason
    comparisons: float


@dataclass(frozen=True, slots=True)
class Match:
    """The two best subjects for a probe (None where there are fewer) of those who may pass here now.

    `gallery_size` is their number, `comparisons` what they are worth as chances of a false match: one for a
    subject enrolled from a single photo, more for one with more templates. `stale`: nobody may pass by it.
    `denied`: how alike the probe is to a face that is said not to be the best subject's.
    """

    best: ScoredSubject | None
    second: ScoredSubject | None
    gallery_size: int
    comparisons: float
    barred: Barred | None = None
    stale: bool = False
    denied: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """The numbers behind a decision. Cosines in [-1, 1]; `best` and `second` are None where nobody was there.

    They are of the two most alike of all subjects, whether they may pass or not: `second` is never above.

    `target_fpir` is None when a raw threshold is configured.
    """

    best: float | None
    second: float | None
    threshold: float
    margin: float
    target_fpir: float | None
    gallery_size: int


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for one probe: MATCH with its subject, or REJECT with its reason.

    A reject has a subject where somebody was recognised who may not pass here now.

    For a whole visit also NO_DECISION, where `score` is None if no shot could be compared, and SPOOF: it
    would have been a match, but the face is not alive, so `subject` is None.
    """

    event_type: EventType
    reason: Reason | None
    subject: Subject | None
    score: Score | None


@dataclass(frozen=True, slots=True)
class Shots:
    """How a visit was seen: faces detected, embedded, and refused by reason."""

    used: int
    seen: int
    refused: Mapping[Refusal, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelStamp:
    """Which models and which gallery decided."""

    embedder: str
    sha256: str
    gallery_version: int


@dataclass(frozen=True, slots=True)
class LivenessCheck:
    """Which model judged the face ("none": none did); `score` in [0, 1], 1 = alive, None: not measured."""

    method: str = "none"
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds: from capture of the deciding frame to the decision, and the stages of that frame."""

    capture_to_decision_ms: float
    detect_ms: float
    embed_ms: float
    match_ms: float


@dataclass(frozen=True, slots=True)
class FaceEvent:
    """One decision about one visit, or its end (LEFT). Holds no image and no embedding.

    `box` is (x, y, width, height) as fractions of the frame in [0, 1]. `revises` names the event that
    this one replaces.
    """

    event_id: str
    event_type: EventType
    camera: str
    visit: str
    captured_at: datetime
    monotonic_s: float
    subject: Subject | None
    reason: Reason | None
    score: Score | None
    shots: Shots
    quality: Quality | None
    box: tuple[float, float, float, float] | None
    model: ModelStamp
    latency: Latency | None
    revises: str | None = None
    liveness: LivenessCheck = LivenessCheck()
    remote: RemoteOutcome | None = None
