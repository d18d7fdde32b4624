"""Enrol a subject one-shot: a photo, or a few, or a walk up to the camera, become templates.

Says clearly why a face cannot be enrolled. Nothing is retrained, and nothing here writes to disk.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from edge.core.errors import CollisionError, LowQualityError, ManyFacesError, NoFaceError, OtherFaceError
from edge.core.types import Detection, Frame, Image, Probe, Quality, Refusal, Subject, Template
from edge.gallery.gallery import Gallery
from edge.gallery.matcher import DenseMatcher
from edge.gallery.prototypes import photos_of, prototypes
from edge.recognition.presence import SAME_FACE
from edge.recognition.recognizer import Recognizer

BACKGROUND = 0.25
"""Faces smaller than this share of the largest one are bystanders or pictures on the wall."""

NEAR = 0.10
"""A look-alike this close below the threshold deserves a warning at enrolment."""

WALK_UP_SHOTS = 5
WALK_UP_GAP_S = 0.3
"""Shots of a live enrolment, far enough apart to show the face in different poses."""

ADVICE = {
    Refusal.SIZE: "the face is too small; use a photo in which it fills more of the picture",
    Refusal.BLUR: "the face is blurred; use a sharper photo",
    Refusal.POSE: "the face is turned away; use a photo that looks at the camera",
    Refusal.EXPOSURE: "the face is too dark or too bright; use a better lit photo",
    Refusal.SCORE: "the face is hard to make out; use a clearer photo",
    Refusal.CROPPED: "the face is cut off by the edge; use a photo that shows all of it",
}
"""What to do about a photo that the quality gate refuses."""


@dataclass(frozen=True, slots=True, eq=False)
class Enrolment:
    """A gallery with the subject in it, the templates kept, and what the operator should know."""

    gallery: Gallery
    templates: tuple[Template, ...]
    warnings: tuple[str, ...]


def find_face(image: Image, name: str, recognizer: Recognizer) -> Detection:
    """Return the only face in a photo; `name` is how errors call the photo.

    Raises:
        NoFaceError: There is none.
        ManyFacesError: There are several; says how many and where.
    """
    faces = recognizer.detect(image)
    largest = max((face.size_px for face in faces), default=0.0)
    faces = [face for face in faces if face.size_px >= BACKGROUND * largest]
    height, width = image.shape[:2]
    if not faces:
        raise NoFaceError(
            f"{name}: no face found in {width}x{height} pixels; use a photo that shows one face"
        )
    if len(faces) > 1:
        places = ", ".join(_place(face) for face in sorted(faces, key=lambda face: float(face.box[0])))
        raise ManyFacesError(f"{name}: {len(faces)} faces found ({places}); crop the photo to the one to use")
    return faces[0]


def crop_photo(image: Image, name: str, recognizer: Recognizer) -> Image:
    """Return the only face in a photo as the embedder sees it, BGR, for people to look at.

    Raises:
        NoFaceError, ManyFacesError: Not exactly one face.
    """
    return recognizer.align(image, find_face(image, name, recognizer)).image


def encode_photo(image: Image, name: str, recognizer: Recognizer) -> Probe:
    """Return the probe of the only face in a photo.

    Raises:
        NoFaceError, ManyFacesError: Not exactly one face.
        LowQualityError: The face is not fit for recognition; says why and what to do.
    """
    face = find_face(image, name, recognizer)
    encoded = recognizer.encode(image, face)
    if isinstance(encoded, Quality):
        reason = encoded.refused or Refusal.SCORE
        raise LowQualityError(
            f"{name}: {ADVICE[reason]} (face {encoded.face_px:.0f} px, sharpness {encoded.sharpness:.2f}, "
            f"yaw {encoded.yaw_deg:.0f} deg, exposure {encoded.exposure:.2f})"
        )
    return encoded


def enroll(
    subject: Subject,
    probes: Sequence[Probe],
    recognizer: Recognizer,
    gallery: Gallery,
    *,
    source: str,
    at: datetime,
    max_prototypes: int,
    force: bool = False,
    replace: bool = False,
) -> Enrolment:
    """Put a subject, seen in one or more probes, into `gallery`; one enrolled before gets new templates.

    Raises:
        OtherFaceError: The subject is enrolled with another face; `replace` turns this into a warning.
        CollisionError: A probe matches another subject already, or the probes show different faces;
            `force` turns this into a warning.
    """
    warnings: list[str] = []
    if (problem := _other_face(subject, probes, recognizer, gallery)) is not None:
        if not replace:
            raise OtherFaceError(
                f"{problem}; nothing was enrolled; "
                f"if this is right: `edge enroll {subject.subject_id} ... --replace`"
            )
        warnings.append(problem)
    for problem, serious in (*_disagreements(probes), *_collisions(subject, probes, recognizer, gallery)):
        if serious and not force:
            raise CollisionError(f"{problem}; nothing was enrolled, use --force if this is right")
        warnings.append(problem)
    embeddings = np.stack([probe.embedding for probe in probes])
    weights = np.array([probe.quality.weight for probe in probes], np.float32)
    best = max(probes, key=lambda probe: probe.quality.weight)
    rows = prototypes(embeddings, weights, max_prototypes)
    templates = tuple(
        Template(row, best.model_id, _nearest(row, probes).quality, source, at, photos)
        for row, photos in zip(rows, photos_of(rows, embeddings), strict=True)
    )
    return Enrolment(gallery.with_subject(subject, templates), templates, tuple(warnings))


def walk_up(frames: Iterable[Frame], recognizer: Recognizer, *, timeout_s: float) -> list[Probe]:
    """Gather shots of the one person who stands before a camera, until enough or until `timeout_s` of frames.

    Raises:
        NoFaceError: Nobody gave a usable shot in time.
        ManyFacesError: Two people took turns.
    """
    probes: list[Probe] = []
    refused: dict[Refusal, int] = {}
    started_s, last_s = None, -np.inf
    for frame in frames:
        started_s = frame.monotonic_s if started_s is None else started_s
        if frame.monotonic_s - started_s > timeout_s:
            break
        faces = recognizer.detect(frame.image)
        if len(faces) != 1 or frame.monotonic_s - last_s < WALK_UP_GAP_S:
            continue
        encoded = recognizer.encode(frame.image, faces[0])
        if isinstance(encoded, Quality):
            reason = encoded.refused or Refusal.SCORE
            refused[reason] = refused.get(reason, 0) + 1
            continue
        if probes and recognizer.verify(probes[0], encoded) < SAME_FACE:
            raise ManyFacesError(
                "two different faces were seen; let one person stand before the camera alone"
            )
        probes.append(encoded)
        last_s = frame.monotonic_s
        if len(probes) == WALK_UP_SHOTS:
            break
    if not probes:
        why = ", ".join(f"{reason} x{count}" for reason, count in refused.items()) or "no single face in view"
        raise NoFaceError(
            f"no usable shot within {timeout_s:.0f} s ({why}); come closer and look at the camera"
        )
    return probes


def _place(face: Detection) -> str:
    x1, y1, x2, y2 = (round(float(value)) for value in face.box)
    return f"{x2 - x1}x{y2 - y1} at x={x1} y={y1}"


def _nearest(row: np.ndarray[tuple[int, ...], np.dtype[np.float32]], probes: Sequence[Probe]) -> Probe:
    return max(probes, key=lambda probe: float(probe.embedding @ row))


def _disagreements(probes: Sequence[Probe]) -> list[tuple[str, bool]]:
    """Say which photos do not show the same face as the best one."""
    best = max(probes, key=lambda probe: probe.quality.weight)
    problems = []
    for number, probe in enumerate(probes, start=1):
        score = float(probe.embedding @ best.embedding)
        if score < SAME_FACE / 2:
            problems.append(
                (f"photo {number} seems to show somebody else than the others (score {score:.2f})", True)
            )
    return problems


def _other_face(
    subject: Subject, probes: Sequence[Probe], recognizer: Recognizer, gallery: Gallery
) -> str | None:
    """Say that no probe is like the subject's templates in `gallery`, as 1:1 verification has it."""
    before = gallery.templates_of(subject.subject_id)
    if not before:
        return None
    score = max(float(probe.embedding @ template.embedding) for probe in probes for template in before)
    threshold = recognizer.rule.threshold_for(1)
    if score >= threshold:
        return None
    return (
        f"subject {subject.subject_id!r} is enrolled with another face (score {score:.2f}, "
        f"threshold {threshold:.2f})"
    )


def _collisions(
    subject: Subject, probes: Sequence[Probe], recognizer: Recognizer, gallery: Gallery
) -> list[tuple[str, bool]]:
    """Say whether another subject looks the same, and whether the two would be taken for each other."""
    others = gallery.without_subject(subject.subject_id) if gallery.subject(subject.subject_id) else gallery
    if not others.size:
        return []
    matcher = DenseMatcher(others)
    threshold = recognizer.rule.threshold_for(float(others.comparisons.sum()))
    nearest = max(
        (best for probe in probes if (best := matcher.match(probe).best)),
        key=lambda each: each.score,
    )
    if nearest.score < threshold - NEAR:
        return []
    told = f"subject {nearest.subject.subject_id!r} has nearly the same face (score {nearest.score:.2f}, "
    return [(told + f"threshold {threshold:.2f})", nearest.score >= threshold)]
