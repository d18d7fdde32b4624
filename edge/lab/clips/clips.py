"""Run labelled clips through the real pipeline and judge its decisions against the labels.

Enrols in memory only; nothing is written to the device's gallery. What is right is `visits`' business.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.camera.clips import ReplayCamera
from edge.camera.photo import read_photo
from edge.core.clock import Clock
from edge.core.download import Progress
from edge.core.errors import ConfigError, MediaError
from edge.core.types import FaceEvent, Frame, Image, Subject
from edge.gallery.gallery import Gallery
from edge.lab.clips.labels import ClipLabel, LabelledSubject, Labels, Still, Truth, truths
from edge.lab.clips.visits import Verdict, VisitAnswer, answers_of, figures, judge
from edge.lab.replay import replay
from edge.recognition.enrolment.enrol import encode_photo, enroll
from edge.recognition.pipeline import NewId, Pipeline
from edge.recognition.recognizer import Recognizer

CAMERA = "clip"


@dataclass(frozen=True, slots=True)
class Watched:
    """A clip that was run: its frames, its length in seconds, and what its decisions came to."""

    clip: ClipLabel
    frames: int
    footage_s: float
    verdict: Verdict


class _ClipCamera(ReplayCamera):
    """A clip that remembers when its first and its newest frame were, in monotonic seconds."""

    first_s: float | None = None
    newest_s: float = 0.0

    def read(self) -> Frame | None:
        frame = super().read()
        if frame is not None:
            self.newest_s = frame.monotonic_s
            self.first_s = self.newest_s if self.first_s is None else self.first_s
        return frame


def enrol(
    labels: Labels,
    recognizer: Recognizer,
    gallery: Gallery,
    *,
    photographer: Recognizer,
    clock: Clock,
    max_prototypes: int,
    progress: Progress,
) -> Gallery:
    """Return `gallery` with the labels' subjects in it; `photographer` is who searches their photos.

    Raises:
        EnrollmentError: A photo shows no face, several, a poor one, or somebody who is enrolled already.
        MediaError, CameraError: It cannot be read.
    """
    for number, (name, pictures) in enumerate(labels.subjects.items()):
        progress("enrol", number, len(labels.subjects))
        probes = [encode_photo(image, told, photographer) for told, image in _pictures(pictures, clock)]
        gallery = enroll(
            Subject(name, name),
            probes,
            recognizer,
            gallery,
            source="photo",
            at=clock.now(),
            max_prototypes=max_prototypes,
        ).gallery
    return gallery


def watch(
    clip: ClipLabel,
    tolerance_s: float,
    recognizer: Recognizer,
    make_pipeline: Callable[[str, NewId], Pipeline],
    *,
    clock: Clock,
    annotate: Path | None = None,
) -> Watched:
    """Run one clip through a fresh pipeline, as fast as it goes, and judge what it decided.

    `make_pipeline` takes the camera's name and what names a visit; the pipeline asks for a name in the frame
    in which it begins a visit: the second one that shows the face, as one detection alone is not believed.

    Raises:
        CameraError: The clip cannot be read.
        ConfigError: A visit is labelled after the clip's end.
        MediaError: The annotated video cannot be written.
    """
    camera = _ClipCamera(CAMERA, clip.file, clock=clock, realtime=False, fps=clip.fps)
    begun_s: dict[str, float] = {}

    def new_visit() -> str:
        name = f"v-{len(begun_s) + 1}"
        begun_s[name] = camera.newest_s
        return name

    gallery = recognizer.matcher.gallery
    for absent in clip.without:
        gallery = gallery.without_subject(absent)
    events: list[FaceEvent] = []
    summary = replay(
        camera,
        make_pipeline(CAMERA, new_visit),
        recognizer.with_gallery(gallery),
        events.append,
        annotate=annotate,
    )
    expected = truths(clip)
    _within(clip, expected, summary.footage_s)
    answers = answers_of(events, begun_s, camera.first_s or 0.0)
    verdict = judge(expected, answers, tolerance_s)
    return Watched(clip, summary.frames, summary.footage_s, verdict)


def report(watched: list[Watched]) -> dict[str, Any]:
    """Return the figures per clip and in sum, and every visit with its answers, as plain JSON values."""
    together = Verdict(
        tuple(visit for one in watched for visit in one.verdict.visits),
        tuple(answer for one in watched for answer in one.verdict.unexpected),
    )
    return {
        "clips": [
            {
                "file": str(one.clip.file),
                "without": list(one.clip.without),
                "frames": one.frames,
                "footage_s": round(one.footage_s, 3),
                **figures(one.verdict),
                "labelled": [
                    {
                        **_label(visit.truth),
                        "outcome": visit.outcome.value,
                        "answers": [_told(answer) for answer in visit.answers],
                    }
                    for visit in one.verdict.visits
                ],
                "not_labelled": [_told(answer) for answer in one.verdict.unexpected],
            }
            for one in watched
        ],
        "sum": {
            "clips": len(watched),
            "frames": sum(one.frames for one in watched),
            "footage_s": round(sum(one.footage_s for one in watched), 3),
            **figures(together),
        },
    }


def _label(truth: Truth) -> dict[str, Any]:
    until_s = None if truth.until_s == float("inf") else truth.until_s
    return {
        "subject": truth.subject,
        "expected": truth.expected.value,
        "from_s": truth.from_s,
        "until_s": until_s,
    }


def _told(answer: VisitAnswer) -> dict[str, Any]:
    event, score = answer.final, answer.final.score
    return {
        "event_type": event.event_type.value,
        "subject": event.subject.subject_id if event.subject else None,
        "reason": event.reason.value if event.reason else None,
        "score": _rounded(score.best if score else None),
        "threshold": _rounded(score.threshold if score else None),
        "begun_s": round(answer.begun_s, 3),
        "decided_s": round(answer.decided_s, 3),
        "delay_s": round(answer.delay_s, 3),
        "revised": len(answer.events) > 1,
        "shots": {"used": event.shots.used, "seen": event.shots.seen},
        "capture_to_decision_ms": _rounded(event.latency.capture_to_decision_ms if event.latency else None),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _within(clip: ClipLabel, expected: list[Truth], footage_s: float) -> None:
    late = [truth.from_s for truth in expected if truth.from_s > footage_s]
    if late:
        raise ConfigError(
            f"{clip.file}: a visit is labelled from {late[0]:.1f} s, but the clip ends at {footage_s:.1f} s; "
            "correct from_s"
        )


def _pictures(enrolled: LabelledSubject, clock: Clock) -> Iterator[tuple[str, Image]]:
    """Yield what to enrol from, each with how errors call it."""
    for photo in enrolled.photos:
        yield str(photo), read_photo(photo)
    for still in enrolled.stills:
        yield f"{still.clip} at {still.at_s:g} s", _frame_at(still, clock)


def _frame_at(still: Still, clock: Clock) -> Image:
    camera = _ClipCamera(CAMERA, still.clip, clock=clock, realtime=False)
    camera.open()
    try:
        while (frame := camera.read()) is not None:
            if frame.monotonic_s - (camera.first_s or 0.0) >= still.at_s - 1e-6:
                return frame.image
    finally:
        camera.close()
    raise MediaError(f"{still.clip}: ends before {still.at_s:g} s; correct at_s")
