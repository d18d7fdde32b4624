"""Builds what recognises, as the settings say: recognizer, candidate, cameras, pipelines.

The parts take plain values and know no settings.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal
from uuid import uuid4

from edge.camera.clips import ReplayCamera
from edge.camera.motion import MotionGate
from edge.camera.mounting import MountedCamera
from edge.camera.network import Trust
from edge.camera.pipe import PipeCamera
from edge.camera.sources import Camera, OpenCVCamera
from edge.camera.view import ViewWatch
from edge.core.clock import Clock, SystemClock
from edge.core.errors import ConfigError, EdgeError, ModelError
from edge.core.ids import uuid7
from edge.core.metrics import Metrics
from edge.core.types import FloatArray, ModelStamp
from edge.device.assembly.remote import build_remote
from edge.device.assembly.stores import candidate_store, denial_store, gallery_store, strangers_kept
from edge.device.settings.load import Settings, environment_without_settings, load
from edge.device.settings.tables import LivenessSettings, RecognitionSettings
from edge.face.choice import Choice, choose, load_embedder, load_session
from edge.face.detector import Detector
from edge.face.far_search import FarSearch
from edge.face.liveness import Liveness, load_liveness
from edge.face.manifest import (
    AUTO,
    Manifest,
    embedding_dim,
    installed_path,
    load_manifest,
)
from edge.face.quality import QualityGate
from edge.gallery.admission import Admission
from edge.gallery.alike.own_shift import shifted
from edge.gallery.decision import Calibration, DecisionRule
from edge.gallery.gallery import Gallery
from edge.gallery.matcher import make_matcher
from edge.gallery.store.denials import Denials
from edge.gallery.store.kept_visits import KeptVisit
from edge.recognition.observer import VisitObserver
from edge.recognition.pipeline import Pipeline
from edge.recognition.recognizer import Recognizer
from edge.recognition.visit import VisitRule

log = logging.getLogger(__name__)

READ_SHARE = 0.8
"""Share of the stall limit after which a read should give up by itself, before its thread is abandoned."""

ONE_STRANGER_FMR = 1e-7
"""False match rate at which two kept visits count as one stranger's for a gallery's shift.

At the rate of `edge strangers list`, 1e-4, look-alikes would count as one, and the shift is about them.
"""

PHOTO_SIDE_PX = 640
"""Photos are searched larger than frames: the face may be small in them, and it is done once."""


def build_recognizer(
    settings: Settings,
    gallery: Gallery | None = None,
    *,
    side_px: int | None = None,
    denials: Denials | None = None,
    time_known: Callable[[], bool] = lambda: True,
) -> Recognizer:
    """Load both models and join them with a gallery; none: the current one of the state directory.

    `side_px` is what frames are reduced to for detection instead of the configured width, `denials` are
    those in force; None: those of the state directory. Where they cannot be read, which is told, whoever had
    some is rejected as ambiguous.

    Raises:
        ModelError, GalleryError, ConfigError: One of them cannot be used.
    """
    values = settings.recognition
    yunet, detector = load_session(
        values.detector, "detector", settings.models_path, threads=values.threads, providers=values.runs_on
    )
    choice = choose_embedder(settings, gallery)
    manifest, embedder = load_embedder(
        choice.name, settings.models_path, threads=values.threads, providers=values.runs_on
    )
    if gallery is None:
        gallery = gallery_store(settings).load(manifest.model_id, embedding_dim(manifest))
    faces = Detector(
        detector, yunet, max_side_px=side_px or values.detector_width, min_score=values.detector_score
    )
    return Recognizer(
        detector=faces,
        gate=QualityGate(
            min_face_px=values.min_face_px,
            min_sharpness=values.min_sharpness,
            max_yaw_deg=values.max_yaw_deg,
            min_score=values.detector_score,
        ),
        embedder=embedder,
        matcher=make_matcher(gallery),
        admission=admission(settings, gallery, time_known),
        rule=decision_rule(settings, manifest, gallery),
        stamp=ModelStamp(manifest.name, manifest.sha256, gallery.version),
        liveness=build_liveness(settings),
        remote=build_remote(settings, gallery, embedding_dim(manifest), SystemClock()),
        denials=_denials(settings) if denials is None else denials,
        embedder_choice=choice.why,
        far=FarSearch(faces, min_face_px=values.min_face_px),
    )


def build_elsewhere(make: Callable[[Settings], Recognizer], recognition: RecognitionSettings) -> Recognizer:
    """Build what embeds photos for another machine: with its table `recognition`, and no liveness models.

    All other settings are this machine's: the defaults, and what the environment sets.

    Raises:
        ModelError, GalleryError, ConfigError: It cannot be built here.
    """
    others = {"recognition": recognition, "liveness": LivenessSettings(policy="off")}
    return make(load().model_copy(update=others))


def _denials(settings: Settings) -> Denials:
    """Return who was said not to be whom, and whose denials are lost: the door serves the others."""
    store = denial_store(settings)
    try:
        return store.load()
    except EdgeError as error:
        log.error("whoever had denials is rejected as ambiguous, because they cannot be read: %s", error)
        return store.lost()


def build_candidate(settings: Settings, recognizer: Recognizer) -> Recognizer | None:
    """Return the recognizer of the candidate, which may be switched to; None: none is tried.

    It shares the detector with `recognizer` and decides nothing.

    Raises:
        ModelError, GalleryError, ConfigError: What lies there cannot be used.
    """
    if settings.recognition.embedder != AUTO or not settings.gallery.candidate_share:
        return None
    store = candidate_store(settings)
    model_id = store.enrolled_with()
    if model_id in (None, recognizer.embedder.model_id):
        return None
    name = choose_for(settings, AUTO, model_id).name
    manifest, embedder = load_embedder(
        name,
        settings.models_path,
        threads=settings.recognition.threads,
        providers=settings.recognition.runs_on,
    )
    gallery = store.load(manifest.model_id, embedding_dim(manifest))
    return replace(
        recognizer,
        embedder=embedder,
        matcher=make_matcher(gallery),
        admission=recognizer.admission.of(gallery),
        rule=decision_rule(settings, manifest, gallery),
        stamp=ModelStamp(manifest.name, manifest.sha256, gallery.version),
        remote=None,
        candidate=None,
        embedder_choice="the candidate",
    )


def choose_embedder(settings: Settings, gallery: Gallery | None = None) -> Choice:
    """Return the embedder that the settings mean; `gallery` instead of the state directory's, unless empty.

    Raises:
        ModelError, GalleryError: "auto", and none can be chosen.
    """
    values = settings.recognition
    enrolled_with = gallery.model_id if gallery is not None and gallery.size else None
    if values.embedder == AUTO and enrolled_with is None:
        enrolled_with = gallery_store(settings).enrolled_with()
    return choose_for(settings, values.embedder, enrolled_with)


def choose_for(settings: Settings, embedder: str, enrolled_with: str | None) -> Choice:
    """Return what `embedder` means here, which may be "auto", for templates of the model `enrolled_with`.

    Raises:
        ModelError: "auto", and none can be chosen.
    """
    values = settings.recognition
    return choose(
        embedder, enrolled_with, settings.models_path, threads=values.threads, providers=values.runs_on
    )


def build_liveness(settings: Settings) -> Liveness | None:
    """Load the liveness models, unless the policy is off.

    With the policy "auto", a model that is installed and cannot be used is told, and nothing is reported.

    Raises:
        ModelError: One cannot be used, and the settings ask for it.
    """
    if liveness_policy(settings) == "off":
        return None
    directories = [_liveness_directory(each) for each in settings.liveness.models]
    try:
        return load_liveness(
            directories,
            settings.models_path,
            threads=settings.recognition.threads,
            providers=settings.recognition.runs_on,
        )
    except ModelError as error:
        if settings.liveness.policy != "auto":
            raise
        log.error("liveness is not reported: %s", error)
        return None


def liveness_policy(settings: Settings) -> Literal["off", "report", "require"]:
    """Return what the policy comes to here: "auto" is "report" where every model is installed, else "off".

    Raises:
        ModelError: A manifest is not valid.
    """
    policy, models = settings.liveness.policy, settings.liveness.models
    if policy != "auto":
        return policy
    return "report" if all(_is_installed(each, settings.models_path) for each in models) else "off"


def _is_installed(model: str | Path, models_dir: Path) -> bool:
    if isinstance(model, Path):
        return (model / "manifest.toml").is_file()
    return installed_path(_liveness_manifest(model), models_dir).is_file()


def _liveness_directory(model: str | Path) -> Path:
    """Return where the manifest of a liveness model is: one of this package's by name, or a directory."""
    return model if isinstance(model, Path) else _liveness_manifest(model).directory


def _liveness_manifest(name: str) -> Manifest:
    try:
        return load_manifest(name)
    except ModelError as error:
        raise ModelError(f"liveness.model: {error}") from None


def with_photo_detector(recognizer: Recognizer, side_px: int) -> Recognizer:
    """Return the same recognizer, but one that searches pictures of up to `side_px`, as photos deserve."""
    return replace(recognizer, detector=recognizer.detector.at(side_px))


def decision_rule(settings: Settings, manifest: Manifest, gallery: Gallery) -> DecisionRule:
    """Return the rule that turns a match with this gallery into a decision.

    Raises:
        ConfigError: A target is set, but the embedder was never calibrated.
    """
    table = manifest.calibration
    if settings.decision.threshold is None and table is None:
        raise ConfigError(
            f"decision.target_fpir: the embedder {manifest.name!r} has no calibration; set decision.threshold"
        )
    if settings.decision.site_shift < 0:
        log.warning("decision.site_shift: a value below 0 counts as 0, no shift lowers a threshold")
    rule = DecisionRule(
        target_fpir=settings.decision.target_fpir if settings.decision.threshold is None else None,
        threshold=settings.decision.threshold,
        margin=settings.decision.margin,
        calibration=Calibration(table.thresholds, table.fmr) if table else None,
        site_shift=settings.decision.site_shift,
    )
    return shifted(rule, gallery, strangers_for(rule, settings, manifest.model_id))


def strangers_for(rule: DecisionRule, settings: Settings, model_id: str) -> FloatArray | None:
    """Return `strangers_kept` for the shift of a gallery; None without a calibration."""
    if rule.calibration is None:
        return None
    return strangers_kept(settings, model_id, rule.calibration.threshold_at(ONE_STRANGER_FMR))


def admission(
    settings: Settings, gallery: Gallery, time_known: Callable[[], bool] = lambda: True
) -> Admission:
    """Return who of a gallery may pass this door, and when; `time_known` says whether the hour is known."""
    return Admission(
        gallery,
        settings.access.groups,
        settings.access.time_zone,
        open_when_stale=settings.sync.stale == "open",
        time_known=time_known,
    )


def visit_rule(settings: Settings) -> VisitRule:
    """Return the rule by which a visit is concluded."""
    values = settings.decision
    live_from = settings.liveness.threshold if settings.liveness.policy == "require" else None
    return VisitRule(values.min_shots, values.max_shots, values.patience_s, values.cooldown_s, live_from)


def build_camera(name: str, settings: Settings, clock: Clock) -> Camera:
    """Return the configured camera `name`, not opened yet, whose frames are shown upright.

    Raises:
        CameraError: Its source is nothing that can be a camera.
    """
    values, camera = settings.cameras[name], _camera_as_mounted(name, settings, clock)
    if not values.rotate and not values.flip:
        return camera
    return MountedCamera(camera, rotate=values.rotate, flip=values.flip)


def _camera_as_mounted(name: str, settings: Settings, clock: Clock) -> Camera:
    values, capture = settings.cameras[name], settings.capture
    read_timeout_s = READ_SHARE * capture.stall_s
    if values.command is not None:
        size = (values.height, values.width) if values.height and values.width else None
        return PipeCamera(
            name,
            values.command,
            clock=clock,
            open_timeout_s=capture.open_timeout_s,
            read_timeout_s=read_timeout_s,
            size=size if values.format == "bgr24" else None,
            environment=environment_without_settings(),
        )
    if not values.is_clip:
        return OpenCVCamera(
            name,
            values.source or "",
            clock=clock,
            open_timeout_s=capture.open_timeout_s,
            read_timeout_s=read_timeout_s,
            width=values.width,
            height=values.height,
            fps=values.fps,
            trust=Trust(values.ca_file, values.insecure, values.follow_redirects),
        )
    return ReplayCamera(
        name,
        Path(values.source or ""),
        clock=clock,
        realtime=values.realtime,
        loop=values.loop,
        fps=values.fps,
    )


def camera_factory(name: str, settings: Settings, clock: Clock) -> Callable[[], Camera]:
    """Return what makes a fresh camera `name` for every try to open it."""
    return lambda: build_camera(name, settings, clock)


def _visit_id() -> str:
    return f"v-{uuid4().hex[:12]}"


def build_pipeline(
    camera: str,
    settings: Settings,
    *,
    metrics: Metrics,
    clock: Clock,
    live: bool = True,
    new_visit_id: Callable[[], str] = _visit_id,
    keep_visit: Callable[[KeptVisit], None] | None = None,
) -> Pipeline:
    """Return a fresh pipeline for one camera; not `live`: frames come faster than life."""
    values = settings.cameras.get(camera)
    endless = values is not None and not values.is_clip
    return Pipeline(
        camera,
        visit_rule(settings),
        motion=MotionGate() if settings.recognition.motion_gate else None,
        view=ViewWatch(camera) if endless and live else None,
        observer=VisitObserver(
            camera,
            metrics,
            live=live,
            keep_visit=keep_visit,
            keep_pictures=settings.strangers.keep_pictures and not settings.privacy.anonymous,
        ),
        metrics=metrics,
        new_event_id=lambda: str(uuid7(clock.now())),
        new_visit_id=new_visit_id,
        clock=clock.monotonic,
        live=live,
    )
