"""What turns a frame into faces, a face into a probe and a probe into a decision.

Frozen and shared: a new gallery or a new model makes a new recognizer, and one reference is swapped.
Keeps no state between frames; who is being followed is the pipeline's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from edge.core.types import (
    AlignedFace,
    Barred,
    Decision,
    Detection,
    FloatArray,
    Image,
    Match,
    ModelStamp,
    Probe,
    Quality,
    Refusal,
)
from edge.face.detector import Detector
from edge.face.embedder import Embedder
from edge.face.far_search import REDUCED_DOUBTFUL_SCORE, FarSearch
from edge.face.lighting import noise_levels
from edge.face.liveness import Liveness
from edge.face.quality import DARK_GLASSES, ENROLMENT_NOISE, QualityGate, eye_shade, lighten
from edge.gallery.admission import Admission
from edge.gallery.alike.own_shift import shifted
from edge.gallery.decision import DecisionRule
from edge.gallery.gallery import Gallery
from edge.gallery.matcher import make_matcher
from edge.gallery.remote.question import RemoteGallery
from edge.gallery.search import Matcher
from edge.gallery.store.denials import Denials


@dataclass(frozen=True, slots=True, eq=False)
class Recognizer:
    """Models, gallery and rule that belong together. Used by one thread at a time (the sessions' buffers).

    `embedder_choice` says why it is this embedder. `remote` is asked about whom nobody here knows.
    `candidate` is the gallery and embedder that this device may be switched to: it is tried on
    `candidate_share` of the visits, in [0, 1], and decides none. `far` finds the faces that are too small on
    the detector's reduced frame.
    """

    detector: Detector
    gate: QualityGate
    embedder: Embedder
    matcher: Matcher
    admission: Admission
    rule: DecisionRule
    stamp: ModelStamp
    liveness: Liveness | None = None
    embedder_choice: str = "configured"
    remote: RemoteGallery | None = None
    denials: Denials = field(default_factory=Denials.none)
    candidate: "Recognizer | None" = None
    candidate_share: float = 0.0
    far: FarSearch | None = None

    def self_test(self) -> None:
        """Let every model that serves answer its golden input. Any thread may: sessions keep no state.

        Raises:
            ModelError: One computes something else than it should.
        """
        self.detector.self_test()
        self.embedder.self_test()
        if self.liveness is not None:
            self.liveness.self_test()

    def detect(self, image: Image) -> list[Detection]:
        """Find the faces in a BGR image, best first."""
        return self.detector.detect(image)

    def search(self, image: Image) -> tuple[list[Detection], list[Detection]]:
        """Find the faces in a BGR image, and what might be one at a closer look; each best first."""
        return self.detector.search(image, REDUCED_DOUBTFUL_SCORE)

    def align(self, image: Image, detection: Detection) -> AlignedFace:
        """Align one face, lift it where it is dark, and measure it.

        Its quality says whether and why the shot is refused. Landmarks are found again only for a face that
        is not too small or too doubtful anyway.
        """
        refused = self.gate.refuse(detection, image.shape)
        if refused not in (Refusal.SIZE, Refusal.SCORE):
            detection = self.detector.refine(image, detection)
            refused = self.gate.refuse(detection, image.shape)
        if (
            refused is None
            and self.embedder.visible(detection.landmarks, image.shape) < self.gate.min_visible
        ):
            refused = Refusal.CROPPED
        crop, lifted = lighten(self.embedder.align(image, detection.landmarks))
        return AlignedFace(crop, self.gate.measure(crop, detection, refused, lifted), detection)

    def realign(self, image: Image, face: AlignedFace) -> AlignedFace:
        """Cut a face that another recognizer found and measured out of the same image for this embedder."""
        crop, _ = lighten(self.embedder.align(image, face.found.landmarks))
        return replace(face, image=crop)

    def embed(self, face: AlignedFace, liveness: float | None = None) -> Probe:
        """Embed an aligned face; `liveness` is what `liveness_of` said of the shot it comes from.

        The quality of the probe says whether the shot is refused after all: `Refusal.RECOGNISABILITY`.
        """
        return self.embed_with_length(face, liveness)[0]

    def embed_with_length(self, face: AlignedFace, liveness: float | None = None) -> tuple[Probe, float]:
        """Do `embed`, and return the length of the raw embedding too: a scale may still have to be fitted."""
        embedding, length = self.embedder.embed(face.image)
        quality = self.gate.recognised(face.quality, self.embedder.recognisability(length))
        return Probe(embedding, self.embedder.model_id, quality, liveness), length

    def liveness_of(self, image: Image, detection: Detection) -> float | None:
        """Return how surely a face is alive, in [0, 1].

        None where no liveness model is loaded, or where the face is too small for it.

        Raises:
            ModelError: The model gave no score. Whoever needs one must not take the face for alive.
        """
        return None if self.liveness is None else self.liveness.score(image, detection.box)

    def tells_alive(self, detection: Detection) -> bool:
        """Say whether a face is large enough to be told from a picture; so where no model is loaded."""
        return self.liveness is None or self.liveness.says_something(detection.box)

    def encode(self, image: Image, detection: Detection) -> Probe | Quality:
        """Return the probe of one face, or the quality that says why the shot was refused."""
        face = self.align(image, detection)
        if face.quality.refused is not None:
            return face.quality
        probe = self.embed(face)
        refused = probe.quality.refused
        if refused in (None, Refusal.RECOGNISABILITY) and self.gate.refuses_covered:
            refused = self._hidden(face) or refused
        return probe if refused is None else replace(probe.quality, refused=refused)

    def _hidden(self, face: AlignedFace) -> Refusal | None:
        """Return what hides an aligned face, or a part of it, from the embedder; None: nothing."""
        if noise_levels(face.image) > ENROLMENT_NOISE:
            return Refusal.NOISE
        if eye_shade(face.image, face.quality.yaw_deg) < DARK_GLASSES:
            return Refusal.SUNGLASSES
        return Refusal.COVERED if self.embedder.is_covered(face.image) else None

    def match(self, probe: Probe, at: datetime) -> Match:
        """Find the two subjects closest to a probe among those who may pass here at a moment (aware).

        Where somebody may not pass, everybody is asked too: who is known and barred is not a stranger.
        """
        allowed = self.admission.allowed(at)
        match = self.matcher.match(probe, allowed)
        if match.best is not None:
            denied = self.denials.score(match.best.subject.subject_id, probe)
            match = replace(match, denied=denied)
        if self.admission.stale(at):
            return replace(match, stale=True)
        if allowed is None:
            return match
        everybody = self.matcher.match(probe)
        for nearest in (everybody.best, everybody.second):
            if nearest is not None and (reason := self.admission.objection(nearest.subject, at)):
                return replace(match, barred=Barred(nearest, reason, everybody.comparisons))
        return match

    def decide(self, match: Match) -> Decision:
        """Decide on a match: threshold, margin, and what else the rule demands."""
        return self.rule.decide(match)

    def agreeing(self, shots: Sequence[Probe], match: Decision) -> int:
        """Return how many of the shots of a visit are each, by themselves, alike to the subject of its match.

        A shot is where it reaches `DecisionRule.agrees_with`, or the threshold in force where that is lower.
        """
        if match.subject is None or match.score is None:
            return 0
        rows = self.matcher.gallery.rows_of(match.subject.subject_id)
        least = min(self.rule.agrees_with(match.subject.subject_id), match.score.threshold)
        return sum(bool((rows @ shot.embedding).max(initial=-1.0) >= least) for shot in shots)

    def identify(self, probe: Probe, at: datetime) -> Decision:
        """Decide 1:N whose face a probe is, at a moment (aware).

        Raises:
            ModelMismatchError: The probe comes from another embedder than the gallery.
        """
        return self.decide(self.match(probe, at))

    def verify(self, first: Probe, second: Probe) -> float:
        """Return the 1:1 score of two probes, a cosine in [-1, 1]."""
        return float(first.embedding @ second.embedding)

    def for_enrolment(self) -> "Recognizer":
        """Return the same recognizer with the stricter quality gate of faces to be enrolled."""
        return replace(self, gate=self.gate.for_enrolment())

    def with_gallery(self, gallery: Gallery, strangers: FloatArray | None = None) -> "Recognizer":
        """Return a recognizer with the same models that searches another gallery, by the rule for it.

        `strangers`, (n, D), are one embedding of each stranger who was kept (`alike.shift`).
        """
        stamp = replace(self.stamp, gallery_version=gallery.version)
        matcher = make_matcher(gallery, self.matcher)
        rule = shifted(self.rule, gallery, strangers)
        return replace(self, matcher=matcher, admission=self.admission.of(gallery), stamp=stamp, rule=rule)
