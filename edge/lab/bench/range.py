"""How far the product sees: faces that walk into real moving scenes, found in time, and what a frame costs.

Scenes are the demo's clips, enlarged to the resolution asked for; faces are the demo's photos or a folder's,
pasted with a plain body beneath. The same frames go to the product and to the product without its search for
far faces, alternately. Synthetic: nobody here really walked up to a door.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import thread_time
from typing import Any

import cv2
import numpy as np
from rich.table import Table

from edge.camera.clips import ReplayCamera
from edge.camera.photo import SUFFIXES, read_photo
from edge.core.clock import SystemClock
from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.core.metrics import Metrics
from edge.core.types import Frame, Image
from edge.device.assembly.recognizer import build_pipeline, build_recognizer
from edge.device.settings.load import Settings
from edge.gallery.gallery import Gallery
from edge.lab.demo.media import ORL_SUBJECTS, media_dir, orl_photo
from edge.lab.photos.plots import new_figure, save, share_interval
from edge.recognition.recognizer import Recognizer

FPS = 15
SCENES = ("no_face.mp4", "face_noface.mov")
RESOLUTIONS = {"720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
SIZES_PX = (24, 32, 48, 80)
"""Sizes of the faces, the square root of the area of the detector's box."""

WARM_UP, IN_VIEW = 25, 30
"""Frames before somebody comes into view, and after."""

SIZE_RATIO = 1.8
"""A face is the pasted one, not one of the scene's, within this factor of its size."""

IN_TIME_S = 0.5
FACE_M, LENS_DEG = 0.15, 78.0
"""Width of a face and horizontal view of the lens in the table of distances."""

BODY_WIDTH, BODY_HEIGHT = 2.6, 6.0
"""In face sizes."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """A face cut out of a photo: BGR, its opacity (H, W, 1) in [0, 1], its size and its middle in pixels."""

    image: Image
    opacity: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
    size_px: float
    middle: tuple[float, float]


def measure_range(
    settings: Settings,
    *,
    people: int,
    images: Path | None,
    progress: Progress,
    resolutions: Sequence[str] = tuple(RESOLUTIONS),
    sizes_px: Sequence[int] = SIZES_PX,
) -> dict[str, Any]:
    """Return the JSON document: shares found in time with 95 % intervals, and costs of a frame.

    Raises:
        EdgeError: Models or clips are missing, or no photo shows a face.
    """
    recognizer = build_recognizer(settings)
    nobody = Gallery.empty(recognizer.embedder.model_id, dim=recognizer.embedder.dim)
    recognizer = recognizer.with_gallery(nobody)
    today = replace(recognizer, far=None)
    faces = cut_out(recognizer, _photos(settings, images, people), people)
    rows = []
    for name in resolutions:
        scenes = [_scene(media_dir(settings) / scene, RESOLUTIONS[name]) for scene in SCENES]
        for size_px in (*sizes_px, 0):
            runs = []
            for number, face in enumerate(faces if size_px else faces[:4]):
                dice = random.Random(f"{name} {size_px} {number}")
                frames = list(_frames(scenes[number % len(scenes)], face if size_px else None, size_px, dice))
                runs.append(tuple(_run(settings, each, frames, size_px) for each in (recognizer, today)))
                progress(f"{name}, {size_px or 'no'} px", number + 1, len(faces))
            rows.append(_row(name, size_px, runs))
    return {"schema": "edge.bench.range/1", "people": len(faces), "fps": FPS, "rows": rows}


def distance_m(width_px: int, size_px: float) -> float:
    """Return how far a face is that is `size_px` wide in a picture `width_px` wide, in metres."""
    return FACE_M * width_px / (2 * size_px * math.tan(math.radians(LENS_DEG / 2)))


def range_table(report: dict[str, Any]) -> Table:
    """Return the report as a table for people."""
    columns = ("frame", "face px", "metres", "found in .5 s", "reduced frame only", "cost", "CPU ms", "p95")
    table = Table(*columns, title=f"{report['people']} people, {report['fps']} frames/s, lens of 78 degrees")
    for row in report["rows"]:
        shares = [_share(row.get(key)) for key in ("found", "found_reduced_only")]
        metres = f"{row['distance_m']:.1f}" if row["face_px"] else "-"
        costs = (f"{row['cost_ratio']:.2f} x", f"{row['ms_mean']:.1f}", f"{row['ms_p95']:.1f}")
        table.add_row(row["resolution"], str(row["face_px"] or "nobody"), metres, *shares, *costs)
    return table


def _share(rate: dict[str, Any] | None) -> str:
    if rate is None:
        return "-"
    low, high = rate["interval"]
    return f"{rate['share']:.2f} ({low:.2f}-{high:.2f})"


def plot_range(report: dict[str, Any], folder: Path) -> None:
    """Draw the shares found over the distance, with their intervals, into `folder`/range.png."""
    figure = new_figure()
    axes = figure.subplots()
    axes.set_xlabel("distance in metres (face of 15 cm, lens of 78 degrees)")
    axes.set_ylabel("share found within half a second")
    for name in dict.fromkeys(row["resolution"] for row in report["rows"]):
        rows = [row for row in report["rows"] if row["resolution"] == name and row["face_px"]]
        metres = [row["distance_m"] for row in rows]
        for key, style, label in (("found", "-", name), ("found_reduced_only", ":", f"{name}, reduced only")):
            shares = np.array([row[key]["share"] for row in rows])
            bounds = np.array([row[key]["interval"] for row in rows]).T
            errors = np.abs(bounds - shares)
            axes.errorbar(metres, shares, errors, fmt=f"o{style}", capsize=3, label=label)
    axes.set_ylim(-0.02, 1.02)
    title = f"{report['people']} people a point, 95 % intervals"
    figure.legend(loc="outside lower center", ncols=3, title=title)
    save(figure, folder / "range.png")


def cut_out(recognizer: Recognizer, photos: Iterator[Image], most: int) -> list[Cutout]:
    """Return up to `most` faces of photos that show one.

    Raises:
        MediaError: There is none.
    """
    found: list[Cutout] = []
    for photo in photos:
        faces = recognizer.detect(photo)
        if len(faces) != 1:
            continue
        size, (x, y) = faces[0].size_px, (faces[0].box[:2] + faces[0].box[2:]) / 2
        x1, y1 = max(0, int(x - size)), max(0, int(y - 1.1 * size))
        image = photo[y1 : int(y + size), x1 : int(x + size)]
        opacity = np.zeros(image.shape[:2], np.float32)
        middle, axes = (int(x - x1), int(y - y1)), (int(0.7 * size), int(0.9 * size))
        cv2.ellipse(opacity, middle, axes, 0, 0, 360, 1.0, -1)
        soft = np.asarray(cv2.GaussianBlur(opacity, (0, 0), 0.05 * size), np.float32)
        found.append(Cutout(image, soft[..., None], size, (x - x1, y - y1)))
        if len(found) == most:
            break
    if not found:
        raise MediaError("no photo shows exactly one face; name a folder of portraits with --images")
    return found


def paste(frame: Image, face: Cutout, size_px: float, x: float, y: float) -> None:
    """Put a face of `size_px` with its middle at (x, y) into a frame, and a plain body beneath."""
    scale = size_px / face.size_px
    width, height = (max(1, round(side * scale)) for side in face.image.shape[1::-1])
    body = np.full((round(BODY_HEIGHT * size_px), round(BODY_WIDTH * size_px), 3), (90, 70, 60), np.uint8)
    body[:: max(2, round(size_px / 4))] += 30  # stripes, so that it moves when it moves
    _blend(frame, body, None, x - body.shape[1] / 2, y + 0.55 * size_px)
    small = np.asarray(cv2.resize(face.image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    opacity = np.asarray(cv2.resize(face.opacity, (width, height)), np.float32)[..., None]
    _blend(frame, small, opacity, x - face.middle[0] * scale, y - face.middle[1] * scale)


def _blend(frame: Image, patch: Image, opacity: Any, x: float, y: float) -> None:
    left, top = round(x), round(y)
    x1, y1 = max(0, left), max(0, top)
    x2, y2 = min(frame.shape[1], left + patch.shape[1]), min(frame.shape[0], top + patch.shape[0])
    if x1 >= x2 or y1 >= y2:
        return
    part = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
    if opacity is None:
        frame[y1:y2, x1:x2] = patch[part]
        return
    under = frame[y1:y2, x1:x2]
    frame[y1:y2, x1:x2] = (under * (1 - opacity[part]) + patch[part] * opacity[part]).astype(np.uint8)


def _photos(settings: Settings, images: Path | None, people: int) -> Iterator[Image]:
    if images is None:
        for subject in range(1, ORL_SUBJECTS + 1):
            photo = read_photo(orl_photo(media_dir(settings), subject, 1))
            yield np.asarray(cv2.resize(photo, None, fx=2, fy=2))
        return
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES)
    random.Random(people).shuffle(paths)
    yield from (read_photo(path) for path in paths)


def _scene(clip: Path, size: tuple[int, int]) -> list[Image]:
    """Return the pictures of a clip at `FPS`, enlarged to (width, height)."""
    camera = ReplayCamera("scene", clip, clock=SystemClock(), realtime=False, loop=True)
    camera.open()
    pictures: list[Image] = []
    begun_s: float | None = None
    try:
        while len(pictures) < WARM_UP + IN_VIEW and (frame := camera.read()) is not None:
            begun_s = frame.monotonic_s if begun_s is None else begun_s
            if frame.monotonic_s - begun_s >= len(pictures) / FPS:
                pictures.append(np.asarray(cv2.resize(frame.image, size), np.uint8))
    finally:
        camera.close()
    return pictures


def _frames(
    scene: Sequence[Image], face: Cutout | None, size_px: int, dice: random.Random
) -> Iterator[tuple[Frame, tuple[float, float] | None]]:
    """Yield frames with the middle of the face in them, None before it comes into view."""
    height, width = scene[0].shape[:2]
    x, y = dice.uniform(0.15, 0.85) * width, dice.uniform(0.12, 0.6) * height
    step = dice.uniform(0.1, 0.5) * size_px * dice.choice((-1, 1))
    for number, picture in enumerate(scene):
        image, place = picture, None
        if face is not None and number >= WARM_UP:
            image = picture.copy()
            x, y = x + step, y + 0.05 * size_px * math.sin(number)
            paste(image, face, size_px, x, y)
            place = (x, y)
        at_s = number / FPS
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=at_s)
        yield Frame("range", image, at, at_s, number), place


def _run(
    settings: Settings,
    recognizer: Recognizer,
    frames: Sequence[tuple[Frame, tuple[float, float] | None]],
    size_px: int,
) -> tuple[float | None, list[float]]:
    """Return when the face was followed, in seconds after it came, and the CPU ms of every frame since."""
    pipeline = build_pipeline("range", settings, metrics=Metrics(), clock=SystemClock(), live=False)
    found_s: float | None = None
    spent_ms = []
    for frame, place in frames:
        begun_s = thread_time()
        pipeline.process(frame, recognizer)
        if frame.number >= WARM_UP:
            spent_ms.append((thread_time() - begun_s) * 1e3)
        if place is None or found_s is not None:
            continue
        for track, _ in pipeline.scene():
            x1, y1, x2, y2 = track.box
            alike = 1 / SIZE_RATIO < math.sqrt((x2 - x1) * (y2 - y1)) / size_px < SIZE_RATIO
            if alike and x1 <= place[0] <= x2 and y1 <= place[1] <= y2:
                found_s = (frame.number - WARM_UP) / FPS
    return found_s, spent_ms


def _row(name: str, size_px: int, runs: Sequence[Any]) -> dict[str, Any]:
    ours, today = [run[0] for run in runs], [run[1] for run in runs]
    costs, costs_today = (np.concatenate([spent for _, spent in side]) for side in (ours, today))
    row: dict[str, Any] = {
        "resolution": name,
        "face_px": size_px or None,
        "clips": len(runs),
        "cost_ratio": float(costs.mean() / costs_today.mean()),
        "ms_mean": float(costs.mean()),
        "ms_p95": float(np.percentile(costs, 95)),
    }
    if size_px:
        for key, side in (("found", ours), ("found_reduced_only", today)):
            hits = sum(at_s is not None and at_s <= IN_TIME_S for at_s, _ in side)
            row[key] = {"share": hits / len(side), "interval": share_interval(hits / len(side), len(side))}
        row["distance_m"] = distance_m(RESOLUTIONS[name][0], size_px)
    return row
