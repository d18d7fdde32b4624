"""Enrol a subject one-shot: a photo, or a few, or a walk up to the camera, become templates.

Says clearly why a face cannot be enrolled. Nothing is retrained, and nothing here writes to disk.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import cv2
import numpy as np

from edge.core.errors import CollisionError, LowQualityError, ManyFacesError, NoFaceError, OtherFaceError
from edge.core.types import Detection, Frame, Image, Probe, Quality, Refusal, Subject, Template
from edge.gallery.alike.look_alikes import look_alikes_of, named
from edge.gallery.gallery import Gallery
from edge.gallery.matcher import DenseMatcher
from edge.gallery.prototypes import photos_of, prototypes
from edge.recognition.enrolment.showing import way_to_turn, wrongly_shown
from edge.recognition.presence import SAME_FACE
from edge.recognition.recognizer import Recognizer

BACKGROUND = 0.25
"""Faces smaller than this share of the largest one are bystanders or pictures on the wall."""

NEAR = 0.10
"""A look-alike this close below the threshold deserves a warning at enrolment."""

WALK_UP_SHOTS = 5
WALK_UP_GAP_S = 0.3
"""Shots of a live enrolment, far enough apart to show the face in different poses."""

BLACK = 20
"""Mean luma of a photo in which nothing can be made out."""

DIM = 0.95
"""Exposure of a face below which an unsharp photo may just be a dark one.

Six photos of the demo have .49-.94 with a quarter of their light, .99 and more blurred in full light.
"""

PHOTO_RECOGNISABILITY = 0.1
"""Recognisability from which a photo is enrolled that is refused for nothing else, shown as it should be.

The embedder is less sure of women: of 707 in UTKFace 28 are below .3 and 12 below this, of 720 men 10 and 5.
Strangers are taken for those in between hardly more often than for others. Of 300 people of lfw-dev in 14
damages seven more photos are enrolled than with .3, rolled by 20 degrees or wider and narrower than they are.
"""

BOX, CHOSEN = (40, 190, 240), (80, 200, 60)
"""BGR of the box of a face in a photo with numbers, and of the one that is used."""

Which = int | Literal["largest"] | None
"""Which face of a photo is meant: its number from the left, from 1; the largest; or the only one."""

ADVICE = {
    Refusal.SIZE: "the face is too small; use a photo in which it fills more of the picture",
    Refusal.BLUR: "the face is blurred; use a sharper photo",
    Refusal.POSE: "the face is turned away; use a photo that looks at the camera",
    Refusal.EXPOSURE: "the face is too dark, too bright, or before something bright; use a better lit photo",
    Refusal.SCORE: "the face is hard to make out; use a clearer photo",
    Refusal.CROPPED: "the face is cut off by the edge; use a photo that shows all of it",
    Refusal.COVERED: "the lower half of the face seems covered; use a photo without mask, scarf or hand",
    Refusal.SUNGLASSES: "the eyes seem to be behind sunglasses; use a photo without them",
    Refusal.NOISE: "the photo is grainy; use a better lit one",
    Refusal.TILT: "the head is tilted; turn the photo so that it is upright",
    Refusal.RECOGNISABILITY: "hardly a face can be made out; is the photo upside down, or the face covered?",
}
"""What to do about a photo that the quality gate refuses."""


@dataclass(frozen=True, slots=True, eq=False)
class Enrolment:
    """A gallery with the subject in it, the templates kept, and what the operator should know.

    `other_face`: the subject was enrolled with another face before.
    """

    gallery: Gallery
    templates: tuple[Template, ...]
    warnings: tuple[str, ...]
    other_face: bool = False


def faces_in(image: Image, recognizer: Recognizer) -> list[Detection]:
    """Return the faces in a photo from left to right, without bystanders and pictures on the wall."""
    faces = recognizer.detect(image)
    largest = max((face.size_px for face in faces), default=0.0)
    return sorted(
        (face for face in faces if face.size_px >= BACKGROUND * largest), key=lambda face: float(face.box[0])
    )


def find_face(image: Image, name: str, recognizer: Recognizer, which: Which = None) -> Detection:
    """Return the face in a photo that is meant; `name` is how errors call the photo.

    Raises:
        NoFaceError: There is none, or none of that number.
        ManyFacesError: There are several and none is named; says how many and where.
    """
    faces = faces_in(image, recognizer)
    if not faces and (way := way_to_turn(image, recognizer)) is not None:
        raise NoFaceError(f"{name}: no face found; there is one when the photo is turned {way}")
    return choose_face(faces, image, name, which)


def choose_face(faces: Sequence[Detection], image: Image, name: str, which: Which) -> Detection:
    """Do `find_face` among the `faces_in` the photo."""
    height, width = image.shape[:2]
    if not faces:
        if image.mean() < BLACK:
            raise NoFaceError(f"{name}: no face found, the photo is nearly black; use a better lit one")
        raise NoFaceError(
            f"{name}: no face found in {width}x{height} pixels; use a photo that shows one face"
        )
    places = ", ".join(f"{number}: {_place(face)}" for number, face in enumerate(faces, 1))
    if which == "largest":
        return max(faces, key=lambda face: face.size_px)
    if which is not None and which > len(faces):
        raise NoFaceError(f"{name}: there is no face {which}; {len(faces)} found ({places})")
    if which is None and len(faces) > 1:
        raise ManyFacesError(
            f"{name}: {len(faces)} faces found ({places}); crop the photo to the one to use, or say --face N "
            "or --largest; --show FILE shows their numbers"
        )
    return faces[(which or 1) - 1]


def numbered(image: Image, faces: Sequence[Detection], chosen: Detection | None = None) -> Image:
    """Return a photo with a box and a number at each of the `faces_in` it, BGR; `chosen` is green."""
    drawn = image.copy()
    unit = max(1, round(max(image.shape[:2]) / 500))
    scale, font = 0.6 * unit, cv2.FONT_HERSHEY_SIMPLEX
    for number, face in enumerate(faces, 1):
        colour = CHOSEN if face is chosen else BOX
        x1, y1, x2, y2 = (round(float(value)) for value in face.box)
        cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, 2 * unit, cv2.LINE_AA)
        (width, height), below = cv2.getTextSize(str(number), font, scale, 2 * unit)
        x, y = max(0, x1), max(height + 4 * unit, y1)
        cv2.rectangle(drawn, (x, y - height - 4 * unit), (x + width + 4 * unit, y + below // 2), colour, -1)
        cv2.putText(
            drawn, str(number), (x + 2 * unit, y - unit), font, scale, (30, 30, 30), 2 * unit, cv2.LINE_AA
        )
    return drawn


def crop_photo(image: Image, name: str, recognizer: Recognizer, which: Which = None) -> Image:
    """Return the face in a photo that is meant as the embedder sees it, BGR, for people to look at.

    Raises:
        NoFaceError, ManyFacesError: As for `find_face`.
    """
    return recognizer.align(image, find_face(image, name, recognizer, which)).image


def encode_photo(image: Image, name: str, recognizer: Recognizer, which: Which = None) -> Probe:
    """Return the probe of the face in a photo that is meant.

    Raises:
        NoFaceError, ManyFacesError: As for `find_face`.
        LowQualityError: The face is not fit for recognition; says why and what to do.
    """
    return encode_face(image, find_face(image, name, recognizer, which), name, recognizer)


def encode_face(image: Image, face: Detection, name: str, recognizer: Recognizer) -> Probe:
    """Return the probe of a face in a photo.

    Raises:
        LowQualityError: It is not fit for recognition; says why and what to do.
    """
    encoded = recognizer.encode(image, face)
    quality = encoded if isinstance(encoded, Quality) else encoded.quality
    if quality.refused == Refusal.BLUR:  # which a photo may be that is stretched
        quality = recognizer.embed(recognizer.align(image, face)).quality
    if (wrong := wrongly_shown(image, face, quality, recognizer)) is not None:
        raise LowQualityError(f"{name}: {wrong}")
    if isinstance(encoded, Quality):
        sure = encoded.recognisability or 0.0
        if encoded.refused == Refusal.RECOGNISABILITY and sure >= PHOTO_RECOGNISABILITY:
            probe = recognizer.embed(recognizer.align(image, face))
            return replace(probe, quality=replace(encoded, refused=None))
        raise LowQualityError(
            f"{name}: {_advice(encoded)} (face {encoded.face_px:.0f} px, sharpness {encoded.sharpness:.2f}, "
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
    other_face = _other_face(subject, probes, recognizer, gallery)
    if other_face is not None:
        if not replace:
            raise OtherFaceError(
                f"{other_face}; nothing was enrolled; "
                f"if this is right: `edge enroll {subject.subject_id} ... --replace`"
            )
        warnings.append(other_face)
    for problem, serious in (*_disagreements(probes), *_collisions(subject, probes, recognizer, gallery)):
        if serious and not force:
            raise CollisionError(f"{problem}; nothing was enrolled, use --force if this is right")
        warnings.append(problem)
    warnings += _look_alikes(subject, probes, recognizer, gallery)
    embeddings = np.stack([probe.embedding for probe in probes])
    weights = np.array([probe.quality.weight for probe in probes], np.float32)
    best = max(probes, key=lambda probe: probe.quality.weight)
    rows = prototypes(embeddings, weights, max_prototypes)
    templates = tuple(
        Template(row, best.model_id, _nearest(row, probes).quality, source, at, photos)
        for row, photos in zip(rows, photos_of(rows, embeddings), strict=True)
    )
    enrolled = gallery.with_subject(subject, templates)
    return Enrolment(enrolled, templates, tuple(warnings), other_face is not None)


def fit_to_enrol(probes: Sequence[Probe], recognizer: Recognizer, name: str) -> list[Probe]:
    """Return those of a kept visit's probes of which the embedder was sure enough; `name` is for errors.

    Raises:
        LowQualityError: It was of none.
    """
    least = recognizer.gate.min_recognisability
    fit = [
        each
        for each in probes
        if each.quality.recognisability is None or each.quality.recognisability >= least
    ]
    if not fit:
        raise LowQualityError(
            f"{name}: {ADVICE[Refusal.RECOGNISABILITY]} enrol from a photo or a better visit"
        )
    return fit


def walk_up(
    frames: Iterable[Frame], recognizer: Recognizer, *, timeout_s: float, live_from: float = 0.5
) -> list[Probe]:
    """Gather shots of the one person who stands before a camera, until enough or until `timeout_s` of frames.

    Where the recognizer has a liveness model, the face has to be alive: the mean of the shots reaches
    `live_from`, in (0, 1].

    Raises:
        NoFaceError: Nobody gave a usable shot in time.
        ManyFacesError: Two people took turns.
        LowQualityError: It was a picture of a face.
        ModelError: The liveness model gave no score.
    """
    probes: list[Probe] = []
    refused: dict[str, int] = {}
    started_s, last_s = None, -np.inf
    for frame in frames:
        started_s = frame.monotonic_s if started_s is None else started_s
        if frame.monotonic_s - started_s > timeout_s:
            break
        faces = recognizer.detect(frame.image)
        if len(faces) != 1 or frame.monotonic_s - last_s < WALK_UP_GAP_S:
            continue
        encoded = recognizer.encode(frame.image, faces[0])
        quality = encoded if isinstance(encoded, Quality) else encoded.quality
        if wrong := wrongly_shown(frame.image, faces[0], quality, recognizer):
            refused[wrong] = refused.get(wrong, 0) + 1
            continue
        if isinstance(encoded, Quality):
            reason = str(encoded.refused or Refusal.SCORE)
            refused[reason] = refused.get(reason, 0) + 1
            continue
        if not recognizer.tells_alive(faces[0]):
            refused[Refusal.SIZE] = refused.get(Refusal.SIZE, 0) + 1
            continue
        if probes and recognizer.verify(probes[0], encoded) < SAME_FACE:
            raise ManyFacesError(
                "two different faces were seen; let one person stand before the camera alone"
            )
        probes.append(replace(encoded, liveness=recognizer.liveness_of(frame.image, faces[0])))
        last_s = frame.monotonic_s
        if len(probes) == WALK_UP_SHOTS:
            break
    if not probes:
        why = ", ".join(f"{reason} x{count}" for reason, count in refused.items()) or "no single face in view"
        raise NoFaceError(
            f"no usable shot within {timeout_s:.0f} s ({why}); come closer and look at the camera; "
            "`edge check --look` says whether it hangs the right way up"
        )
    _check_alive(probes, live_from)
    return probes


def _check_alive(probes: Sequence[Probe], live_from: float) -> None:
    """Refuse a picture of a face.

    Raises:
        LowQualityError: The mean of what was measured does not reach `live_from`.
    """
    measured = [probe.liveness for probe in probes if probe.liveness is not None]
    if measured and not sum(measured) / len(measured) >= live_from:
        raise LowQualityError(
            f"this looks like a picture of a face (liveness {sum(measured) / len(measured):.2f}, at least "
            f"{live_from} is needed); stand there yourself, in better light, or enrol from a photo"
        )


def _advice(quality: Quality) -> str:
    reason = quality.refused or Refusal.SCORE
    if reason == Refusal.EXPOSURE and quality.lifted > 1:
        return "the face is too dark; use a better lit photo"
    if reason == Refusal.BLUR and quality.exposure < DIM:
        return "the face is too dark, or blurred; use a better lit, sharper photo"
    return ADVICE[reason]


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


def _look_alikes(
    subject: Subject, probes: Sequence[Probe], recognizer: Recognizer, gallery: Gallery
) -> list[str]:
    """Say whether the subject belongs to a group of people who look alike, as children do."""
    others = gallery.without_subjects({subject.subject_id})
    best = max(probes, key=lambda probe: probe.quality.weight)
    found = look_alikes_of(best.embedding, others, recognizer.rule)
    if not found:
        return []
    return [
        f"looks like subjects {named(found)}, who look like each other: strangers like them may be taken for "
        "one of them more often than promised, as is so with children; `edge gallery doctor` names everybody"
    ]


def _collisions(
    subject: Subject, probes: Sequence[Probe], recognizer: Recognizer, gallery: Gallery
) -> list[tuple[str, bool]]:
    """Say whether another subject looks the same, and whether the two would be taken for each other."""
    others = gallery.without_subject(subject.subject_id) if gallery.subject(subject.subject_id) else gallery
    if not others.size:
        return []
    matcher = DenseMatcher(others)
    nearest = max(
        (best for probe in probes if (best := matcher.match(probe).best)),
        key=lambda each: each.score,
    )
    threshold = recognizer.rule.threshold_for(float(others.comparisons.sum()), nearest)
    if nearest.score < threshold - NEAR:
        return []
    told = f"subject {nearest.subject.subject_id!r} has nearly the same face (score {nearest.score:.2f}, "
    return [(told + f"threshold {threshold:.2f})", nearest.score >= threshold)]
