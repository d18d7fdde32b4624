"""The command that measures other ways of deciding from the same weights: evaluate variants."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from edge.cli.lab.study import EmbedderStudyOptions
from edge.cli.options import ImagesOption
from edge.cli.output import progress
from edge.core.errors import ModelError
from edge.device.settings.load import Settings
from edge.face.manifest import load_manifest
from edge.lab.demo.media import ORL_PHOTOS, ORL_SUBJECTS, media_dir, orl_photo
from edge.lab.photos.embeddings import PhotoEmbedder
from edge.lab.photos.protocol import OpenSet, open_set, subjects
from edge.lab.studies import variants as ways
from edge.lab.studies.variant_scores import PhotoViews, Variant, embed_views, views_cache
from edge.lab.studies.variants import elsewhere

Figures = dict[str, Any]


def variants(
    images: ImagesOption,
    other: Annotated[
        Path | None,
        typer.Option(
            help="Photos of others, by another camera, for the promise of the threshold; "
            "default: the ORL photos of `edge demo --fetch-only`, where they are installed."
        ),
    ] = None,
    halves: Annotated[int, typer.Option(min=1, max=100, help="Random halves of the subjects.")] = ways.HALVES,
    *,
    options: EmbedderStudyOptions,
) -> None:
    """Compare ways of deciding from the same weights: mirrored faces, alignment, centring, cohorts."""
    embedder = options.begin()
    name, settings = embedder.name, embedder.settings
    everybody = subjects(images)
    one = open_set(images, enroll=1, min_images=4)
    ways.check_enough(one)
    others = subjects(other) if other is not None else _orl(settings)
    model_id, views = _views(embedder, [everybody, others])
    cohort = [photos[0] for photos in everybody.values()]
    report: Figures = {"schema": "edge.evaluate.variants/1", "images": str(images), "model": name}
    report |= {"model_id": model_id, "halves": halves, "other_subjects": len(others)}
    plan: dict[str, tuple[tuple[Variant, ...], OpenSet]] = {"one_photo": (ways.ONE_PHOTO, one)}
    if sum(len(photos) > ways.SEVERAL for photos in everybody.values()) >= 2 * ways.LEAST:
        several = open_set(images, enroll=ways.SEVERAL, min_images=ways.SEVERAL + 1)
        plan["several_photos"] = ways.SEVERAL_PHOTOS, several
    most = settings.gallery.prototypes
    for key, (compared, protocol) in plan.items():
        with progress(key.replace("_", " ")) as step:
            found = ways.compare(compared, protocol, everybody, views, most, step, count=halves)
            there = elsewhere(compared, cohort, others, views, most, step) if others else {}
        for way, figures in found.items():
            figures["other"] = there.get(way)
        report[key] = {
            "n_subjects": len(protocol.gallery),
            "n_genuine": len(protocol.genuine),
            "n_unknown": len(protocol.strangers),
            "variants": found,
        }
    options.tell(report, partial(_show, report))


def _views(embedder: PhotoEmbedder, groups: list[dict[str, tuple[Path, ...]]]) -> tuple[str, PhotoViews]:
    """Return the embedder's model id and the views of every photo."""
    name, settings = embedder.name, embedder.settings
    manifest = load_manifest(name, settings.models_path)
    if manifest.alignment is None or manifest.output.dim is None:
        raise ModelError(f"{name}: not an embedder; choose one of `edge models list`")
    template = np.array(manifest.alignment.points, np.float32)
    photos = [path for group in groups for paths in group.values() for path in paths]
    cache = views_cache(settings.state_dir / "evaluate", manifest.model_id, manifest.output.dim)
    with progress(name) as step:
        return manifest.model_id, embed_views(photos, embedder, template, cache, step)


def _orl(settings: Settings) -> dict[str, tuple[Path, ...]]:
    """Return the installed ORL photos by subject; nothing where they are not installed."""
    numbers = range(1, ORL_PHOTOS + 1)
    found = {
        f"orl-{subject}": tuple(orl_photo(media_dir(settings), subject, number) for number in numbers)
        for subject in range(1, ORL_SUBJECTS + 1)
    }
    if all(path.exists() for photos in found.values() for path in photos):
        return found
    typer.echo(
        "no other photos to check the threshold on: give --other, or `edge demo --fetch-only`", err=True
    )
    return {}


def _show(report: Figures) -> None:
    console = Console()
    for key in ("one_photo", "several_photos"):
        if key not in report:
            typer.echo(f"several photos: fewer than {2 * ways.LEAST} subjects have {ways.SEVERAL + 1} photos")
            continue
        columns = ("", "rank1", "TPIR .01", "+/-", ".003", "+/-", "pairs", "+/-", "FPIR", "other")
        table = Table(*columns, box=None, padding=(0, 1, 0, 0))
        table.columns[0].no_wrap = True
        for name, figures in report[key]["variants"].items():
            tpir, pairs = figures["tpir"], figures["tpir_by_pairs"]
            cells = [_share(figures["rank1"]["mean"])]
            for rate in (tpir["0.01"], tpir["0.003"], pairs["0.003"] if pairs else None):
                cells += [_share(rate["mean"]), f"{rate['better']}/{rate['worse']}"] if rate else ["", ""]
            there = figures["other"]
            passed = f"{there['fmr']['0.001'] / 1e-3:.1f}x" if there else ""
            table.add_row(name, *cells, _share(figures["at_target"]["0.003"]["fpir"]), passed)
        console.print(table)
    typer.echo(
        f"means over {report['halves']} halves and in how many a variant is better/worse than the first row; "
        "pairs: TPIR at FPIR .003 by all pairs; FPIR: obtained at target .003; other: impostor pairs of the "
        "other photos that pass where 1e-3 was promised"
    )


def _share(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")
