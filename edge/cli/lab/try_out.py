"""Commands to try the product out: replay, demo."""

import logging
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edge.camera.clips import ReplayCamera
from edge.camera.photo import read_photo
from edge.cli.options import ConfigOption, JsonFileOption, JsonOption, OldOutOption, load_settings
from edge.cli.output import progress, tell
from edge.core.clock import SystemClock
from edge.core.errors import EdgeError, UsageError
from edge.core.metrics import Metrics
from edge.core.process import boot_id
from edge.core.types import FaceEvent, Subject
from edge.device.assembly.recognizer import (
    PHOTO_SIDE_PX,
    build_pipeline,
    build_recognizer,
    with_photo_detector,
)
from edge.device.settings.load import Settings
from edge.gallery.gallery import Gallery
from edge.gallery.store.store import GalleryStore
from edge.lab.demo.media import fetch_media, media_dir
from edge.lab.demo.page import MQTT_JS, fetch_npm, page_dir, write_page
from edge.lab.demo.run import run_demo
from edge.lab.replay import replay as replay_camera
from edge.mqtt.contract.encode import EventEncoder, stamp
from edge.recognition.enrolment.enrol import encode_photo, enroll
from edge.recognition.recognizer import Recognizer
from edge.recognition.scene import describe

log = logging.getLogger(__name__)


def replay(
    clip: Annotated[Path, typer.Argument(help="A clip, or a folder of images or clips.")],
    gallery: Annotated[Path | None, typer.Option(help="Gallery directory instead of this device's.")] = None,
    enroll_photo: Annotated[
        list[str] | None,
        typer.Option(
            "--enroll", metavar="SUBJECT=PHOTO", help="Enrol for this replay only; may be repeated."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON line per event and nothing else.")
    ] = False,
    annotate: Annotated[Path | None, typer.Option(help="Write a video with what was seen (.mp4).")] = None,
    fps: Annotated[
        float | None, typer.Option(min=0.01, help="Speed of a folder of images, or instead of a clip's.")
    ] = None,
    config_file: ConfigOption = None,
) -> None:
    """Run a clip through the same pipeline as the daemon, as fast as it goes, without a broker."""
    settings = load_settings(config_file)
    recognizer = _recognizer(settings, gallery, enroll_photo or [])
    clock, metrics = SystemClock(), Metrics()
    begun_at = clock.now()
    camera = ReplayCamera("replay", clip, clock=clock, realtime=False, fps=fps, started_at=begun_at)
    pipeline = build_pipeline("replay", settings, metrics=metrics, clock=clock, live=False)
    encoder = EventEncoder(settings.site, settings.device, boot_id(), clock=lambda: "unsynced")
    numbers = count(1)

    with progress(clip.name or str(clip)) as step:

        def tell_event(event: FaceEvent) -> None:
            line = stamp(encoder.encode(event, next(numbers)), clock.now(), replayed=True).decode()
            at = position((event.captured_at - begun_at).total_seconds())
            step.echo(line if as_json else f"{at} {event.visit} {describe(event)}")

        started_s = clock.monotonic()
        summary = replay_camera(
            camera,
            pipeline,
            recognizer,
            tell_event,
            annotate=annotate,
            on_frame=lambda number, played: step("frames", played, 1.0) if number % 10 == 0 else None,
        )
    spent_s = clock.monotonic() - started_s
    told = ", ".join(f"{number} {kind}" for kind, number in sorted(summary.events.items())) or "no events"
    typer.echo(
        f"{summary.frames} frames, {summary.footage_s:.1f} s of footage in {spent_s:.1f} s "
        f"({summary.frames / spent_s:.0f} frames/s): {told}",
        err=True,
    )


def position(seconds: float) -> str:
    """Return a position in a clip as players show it: 1:02:03.480, 0:07.250."""
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:06.3f}" if hours else f"{minutes}:{rest:06.3f}"


def demo(
    broker: Annotated[
        str, typer.Option(help="HOST:PORT of a running broker instead of the embedded one.")
    ] = "",
    fetch_only: Annotated[
        bool, typer.Option("--fetch-only", help="Only fetch the clips and photos, and what the page needs.")
    ] = False,
    page: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Only write the page for a browser there.")
    ] = None,
    as_json: JsonOption = False,
    json_file: JsonFileOption = None,
    out: OldOutOption = None,
) -> None:
    """Run the daemon on real clips and show its decisions. Exits 1 if they are not the expected ones."""
    if out is not None:
        log.warning("--out is called --json-file; the old name goes with the next release")
    settings = load_settings(None)
    if page is not None:
        write_page(page, page_dir(settings))
        typer.echo(f"{page}: the page; see deploy/README.md")
        return
    with progress("clips") as step:
        fetch_media(media_dir(settings), step)
    if fetch_only:
        typer.echo(f"clips: verified, {media_dir(settings)}")
        try:
            typer.echo(f"page: verified, {fetch_npm(MQTT_JS, page_dir(settings))}")
        except EdgeError as error:
            typer.echo(f"page: {error}", err=True)
        return
    console = Console(highlight=False, stderr=as_json)
    result = run_demo(settings, broker=broker or None, console=console, progress=progress)
    tell(result.as_json(), lambda: None, as_json=as_json, json_file=json_file or out)
    raise typer.Exit(0 if result.as_expected else 1)


def _recognizer(settings: Settings, directory: Path | None, enrolments: list[str]) -> Recognizer:
    """Return a recognizer whose gallery is the one named, plus who is enrolled for this replay only."""
    if directory is not None and not directory.is_dir():
        raise UsageError(f"--gallery: {directory} is not a directory; see `edge check` for this device's")
    recognizer = build_recognizer(settings)
    embedder = recognizer.embedder
    if directory is not None:
        store = GalleryStore(directory, keep_versions=settings.gallery.keep_versions)
        gallery = store.load(embedder.model_id, embedder.dim)
    elif enrolments:
        gallery = Gallery.empty(embedder.model_id)
    else:
        return recognizer
    at = SystemClock().now()
    photographer = with_photo_detector(recognizer, PHOTO_SIDE_PX).for_enrolment()
    photos: dict[str, list[Path]] = {}
    for enrolment in enrolments:
        subject, separator, photo = enrolment.partition("=")
        if not (subject and separator and photo):
            raise UsageError(f"--enroll {enrolment!r}: write SUBJECT=PHOTO")
        photos.setdefault(subject, []).append(Path(photo))
    for subject, paths in photos.items():
        probes = [encode_photo(read_photo(path), str(path), photographer) for path in paths]
        gallery = enroll(
            Subject(subject, subject),
            probes,
            recognizer,
            gallery,
            source="photo",
            at=at,
            max_prototypes=settings.gallery.prototypes,
        ).gallery
    return recognizer.with_gallery(gallery)
