"""Commands that measure accuracy on an operator's own photos: evaluate verify, evaluate identify."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from edge.cli.lab.clips import clips
from edge.cli.lab.gate import conditions, fusion, gate
from edge.cli.lab.groups import groups
from edge.cli.lab.liveness import liveness
from edge.cli.lab.oneshot import growth, oneshot
from edge.cli.lab.study import SpreadStudyOptions, embedded
from edge.cli.lab.swap import swap
from edge.cli.lab.variants import variants
from edge.cli.options import (
    EnrolOption,
    ImagesOption,
    MinImagesOption,
    PlotsOption,
    with_option_groups,
)
from edge.cli.output import show_table
from edge.core.errors import UsageError
from edge.face.manifest import load_manifest
from edge.lab.photos import measure, rates
from edge.lab.photos.embeddings import PhotoEmbedder, recognizer_with
from edge.lab.photos.plots import plot_det, plot_roc
from edge.lab.photos.protocol import open_set, read_pairs

app = typer.Typer(help="How accurate this is, on photos of your own.", no_args_is_help=True)

ModelsOption = Annotated[
    list[str] | None, typer.Option("--model", help="Embedder; may be repeated, the first is the reference.")
]


@app.command()
@with_option_groups
def verify(
    images: ImagesOption,
    pairs: Annotated[Path, typer.Option(help="Pairs in LFW's format.")],
    model: ModelsOption = None,
    plots: PlotsOption = None,
    *,
    options: SpreadStudyOptions,
) -> None:
    """Measure 1:1: accuracy over folds, TAR at FAR, ROC."""
    embedders = _embedders(model, options)
    protocol = read_pairs(images, pairs)
    photos = list(dict.fromkeys([*protocol.first, *protocol.second]))
    report, curves = _report("edge.evaluate.verify/1", images), {}
    for name, embeddings in _embed_all(embedders, photos, report).items():
        scores = measure.pair_scores(protocol, embeddings)
        report["models"][name] |= measure.verification(protocol, scores)
        curves[name] = rates.roc_curve(scores[protocol.same], scores[~protocol.same])
    if plots is not None:
        plot_roc(report["models"], curves, plots / "roc.png")
    table = Table("model", "accuracy", "TAR at FAR .01", ".001", "pairs", "not found")
    for name, figures in report["models"].items():
        accuracy = f"{figures['accuracy']:.4f} ± {figures['accuracy_std']:.4f}"
        tar = [f"{value:.4f}" for value in figures["tar"].values()]
        table.add_row(name, accuracy, *tar, str(figures["n_pairs"]), str(figures["fta"]))
    options.tell(report, partial(show_table, table))


@app.command()
@with_option_groups
def identify(
    images: ImagesOption,
    enroll: EnrolOption = 1,
    min_images: MinImagesOption = 4,
    at_target_fpir: Annotated[
        float | None, typer.Option(min=1e-6, max=0.5, help="Also apply the product's own threshold rule.")
    ] = None,
    model: ModelsOption = None,
    plots: PlotsOption = None,
    *,
    options: SpreadStudyOptions,
) -> None:
    """Measure 1:N with strangers: rank-1, TPIR at FPIR with intervals, thresholds, DET."""
    embedders = _embedders(model, options)
    settings = embedders[0].settings
    protocol = open_set(images, enroll=enroll, min_images=min_images)
    report, curves = _report("edge.evaluate.identify/1", images), {}
    for name, embeddings in _embed_all(embedders, protocol.photos, report).items():
        scores = measure.open_set_scores(protocol, embeddings, settings.gallery.prototypes)
        rule = None
        if at_target_fpir is not None:
            rule = replace(recognizer_with(name, settings).rule, target_fpir=at_target_fpir, threshold=None)
        report["models"][name] |= measure.identification(protocol, scores, rule)
        curves[name] = rates.det_curve(scores.best, scores.right, scores.strangers)
    if plots is not None:
        plot_det(report["models"], curves, plots / "det.png")
    table = Table("model", "rank-1", *(f"TPIR at FPIR {fpir}" for fpir in measure.FPIRS), "not found")
    for name, figures in report["models"].items():
        cells = [
            f"{figures['tpir'][key]:.4f}\n{low:.3f}-{high:.3f}"
            for key, (low, high) in figures["tpir_interval"].items()
        ]
        table.add_row(name, f"{figures['rank1']:.4f}", *cells, str(figures["fta"]))
        if obtained := figures.get("at_target_fpir"):
            told = f"FPIR {obtained['fpir']:.4f}, TPIR {obtained['tpir']:.4f}"
            table.add_row("  by the rule", "", f"target {obtained['target']}: {told}")
    options.tell(report, partial(show_table, table))


def _report(schema: str, images: Path) -> dict[str, Any]:
    return {"schema": schema, "images": str(images), "models": {}}


def _embedders(names: list[str] | None, options: SpreadStudyOptions) -> list[PhotoEmbedder]:
    settings = options.settings()
    if len(set(names or [])) != len(names or []):
        raise UsageError("--model: a model is named twice")
    return [options.embedder(settings, name) for name in names or (None,)]


def _embed_all(
    embedders: list[PhotoEmbedder], photos: list[Path], report: dict[str, Any]
) -> dict[str, measure.Embeddings]:
    """Embed all photos with every model; compares each with the first, unless their lengths differ."""
    found: dict[str, measure.Embeddings] = {}
    for embedder in embedders:
        name = embedder.name
        found[name] = embedded(embedder, photos)
        report["models"][name] = {"model_id": load_manifest(name, embedder.settings.models_path).model_id}
        first = found[embedders[0].name]
        close = measure.agreement(first, found[name]) if embedder is not embedders[0] else None
        if close is not None:
            report["models"][name]["cosine_to_reference"] = close
    return found


for command in (
    clips,
    gate,
    conditions,
    groups,
    liveness,
    fusion,
    swap,
    variants,
    oneshot,
    growth,
):
    app.command()(with_option_groups(command))
