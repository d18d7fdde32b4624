"""What a door recognises by: models, gallery, liveness, and the fleet that its gallery comes from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from edge.core.clock import SystemClock
from edge.core.errors import ModelError
from edge.device.assembly.candidate import gallery_in_force
from edge.device.assembly.recognizer import (
    admission,
    build_liveness,
    choose_embedder,
    decision_rule,
    liveness_policy,
)
from edge.device.assembly.stores import denial_store, gallery_store
from edge.device.checkup.finding import Checkup, Finding, green, red, yellow
from edge.device.settings.load import Settings
from edge.device.sync.outcome import load_outcome
from edge.face.choice import accurate_enough, check_model, prefer, timed, times_told
from edge.face.manifest import Manifest, is_installed
from edge.gallery.alike.doctor import Diagnosis, examine
from edge.gallery.alike.strangers import FOR_ADULTS, StrangersTaken, strangers_taken
from edge.gallery.decision import DecisionRule
from edge.gallery.gallery import Gallery
from edge.gallery.search import Mask
from edge.mqtt.contract.problems import DoorProblem

PAIRS = 10
"""Closest pairs of subjects that are looked at."""

SYNC_LATE, SYNC_STALE = timedelta(hours=1), timedelta(days=1)
"""Age of the last synchronisation that is told, and that keeps a revocation from here; the timer asks every
five minutes."""

MUCH_FASTER = 0.5
"""Share of the time of the embedder in use that another needs to be told of: everybody is enrolled anew."""

RUNS_OUT = timedelta(days=3)
"""A gallery that is trusted no longer than this is told."""


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """The gallery in force with its embedder, who of it may pass now, by which rule, and what is to be said.

    `allowed` is as in `Admission.allowed`. `taken` is None where nobody may pass, or nothing is calibrated.
    """

    gallery: Gallery
    manifest: Manifest
    allowed: Mask | None
    rule: DecisionRule
    diagnosis: Diagnosis
    taken: StrangersTaken | None


def examine_gallery(settings: Settings, pairs: int = PAIRS) -> Examined:
    """Look over the gallery in force, with up to `pairs` closest pairs of different subjects.

    Raises:
        GalleryError, ModelError, ConfigError: It, or its embedder, cannot be used.
    """
    gallery, manifest = gallery_in_force(settings)
    allowed = admission(settings, gallery).allowed(SystemClock().now())
    rule, table = decision_rule(settings, manifest, gallery), manifest.calibration
    diagnosis = examine(gallery, rule, allowed, pairs=pairs)
    low, high = (table.low, table.high) if table is not None else ((), ())
    taken = strangers_taken(rule, diagnosis.comparisons, low, high) if diagnosis.admitted else None
    return Examined(gallery, manifest, allowed, rule, diagnosis, taken)


def models(checkup: Checkup) -> Iterator[Finding]:
    """Say of each model in use whether it is whole and computes what it should, and which is fastest."""
    settings = checkup.settings
    values, place = settings.recognition, settings.models_path
    embedder = choose_embedder(settings).name
    alive = settings.liveness.models if liveness_policy(settings) != "off" else ()
    for name in (values.detector, embedder, *(each for each in alive if isinstance(each, str))):
        try:
            provider = check_model(name, place, threads=values.threads, providers=values.runs_on)
        except ModelError as error:
            told, _, remedy = str(error).rpartition("; ")
            yield red(f"model {name}", told or remedy, remedy if told else f"edge models fetch {name}")
        else:
            told = f"hash and golden vector right ({provider})"
            if provider == values.runs_on[0].execution_provider:
                yield green(f"model {name}", told)
            else:
                yield yellow(f"model {name}", told, DoorProblem.PROVIDER_REFUSED.remedy)
    fit = [each for each in accurate_enough() if each.pair is None and is_installed(each, place)]
    if len(fit) > 1:
        taken_ms = timed(fit, place, threads=values.threads, providers=values.runs_on)
        best = prefer(taken_ms, {each.name: each.accuracy for each in fit if each.accuracy is not None})
        told = f"{times_told(taken_ms)} for a face"
        if embedder in taken_ms and taken_ms[best] < MUCH_FASTER * taken_ms[embedder]:
            mend = f'recognition.embedder = "{best}" is faster here; everybody has to be enrolled again'
            yield yellow("model speed", told, mend)
        else:
            yield green("model speed", told)


def gallery(checkup: Checkup) -> Iterator[Finding]:
    """Say who is enrolled, what is promised, and what of `edge gallery doctor` somebody should know."""
    settings = checkup.settings
    found = examine_gallery(settings)
    said = found.diagnosis
    told = f"version {found.gallery.version}: {said.subjects} subject(s), {said.admitted} may pass now"
    if not said.subjects:
        yield yellow("gallery", "nobody is enrolled", "edge enroll ID PHOTO --label NAME")
    elif not said.admitted:
        yield yellow("gallery", told, "see groups, days and windows: `edge subjects list`")
    else:
        yield green("gallery", told)
    if said.admitted:
        expected = "" if said.expected_fpir is None else f". {found.taken.sentence()}" if found.taken else ""
        yield green("gallery: threshold", f"{said.threshold:.3f}{expected}")
        yield green("gallery: promise", FOR_ADULTS)
    if gallery_store(settings).fallen() is not None:
        yield red(
            "gallery", "the newest version cannot be read; an older one serves", "enrol or publish again"
        )
    now, last = checkup.clock.now(), found.gallery.not_after
    if last is not None and now >= last:
        light = yellow if settings.sync.stale == "open" else red
        yield light(
            "gallery: trust",
            f"it is trusted no more since {last:%Y-%m-%d}",
            "edge fleet renew, then edge sync",
        )
    elif last is not None and last - now < RUNS_OUT:
        yield yellow("gallery: trust", f"it is trusted until {last:%Y-%m-%d %H:%M} UTC", "edge fleet renew")
    complaints = {
        "subjects may be taken for each other": len(said.duplicates) + said.more,
        "groups of subjects look alike": len(said.groups),
        "subjects have poor templates": len(said.poor),
    }
    for what, count in complaints.items():
        if count:
            yield yellow("gallery: look-alikes", f"{count} {what}", "`edge gallery doctor` names them")
    if found.rule.very_alike:
        yield _named(yellow, "gallery: look-alikes", DoorProblem.GALLERY_ALIKE)
    if denial_store(settings).load().lost:
        yield _named(red, "gallery: denials", DoorProblem.DENIALS_LOST)


def _named(light: Callable[[str, str, str], Finding], about: str, problem: DoorProblem) -> Finding:
    """Return a problem that the daemon names as well."""
    return light(about, problem.when, problem.remedy)


def liveness(checkup: Checkup) -> Iterator[Finding]:
    """Say whether a picture of a subject opens the door."""
    settings = checkup.settings
    if any(isinstance(each, Path) for each in settings.liveness.models):  # others are among `models`
        build_liveness(settings)
    if liveness_policy(settings) == "require":
        yield green("liveness", f"required, from {settings.liveness.threshold:g} on")
        return
    yield yellow(
        "liveness",
        "a picture of a subject opens this door",
        'edge models fetch --recommended, then set liveness.policy = "require"',
    )


def fleet(checkup: Checkup) -> Iterator[Finding]:
    """Say how old the last synchronisation is, and what came of it."""
    settings = checkup.settings
    if settings.sync.url is None:
        yield green("sync", "none: the gallery is this door's own")
        return
    outcome = load_outcome(settings.sync_path)
    if outcome is None or outcome.at is None:
        yield red(
            "sync", "nothing was ever synchronised", "edge sync; then systemctl enable --now edge-sync.timer"
        )
        return
    age = checkup.clock.now() - outcome.at
    told = f"{outcome.status} {_age(age)} ago, published version {outcome.version}"
    if outcome.status == "refused":
        mend = "deploy/README.md says what to do about each reason"
        yield red("sync", f"refused {_age(age)} ago ({outcome.reason}): {outcome.error}", mend)
    elif age > SYNC_STALE:
        yield red("sync", told, "revocations do not arrive: systemctl status edge-sync.timer; edge sync")
    elif age > SYNC_LATE:
        yield yellow("sync", told, "systemctl status edge-sync.timer; edge sync")
    else:
        yield green("sync", told)


def _age(age: timedelta) -> str:
    minutes = age.total_seconds() / 60
    return (
        f"{minutes:.0f} min"
        if minutes < 120
        else f"{minutes / 60:.0f} h"
        if minutes < 2880
        else f"{age.days} days"
    )
