"""evaluate oneshot: the question the product was born from, on an operator's own photos."""

from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edge.cli.options import EmbedderStudyOptions, ImagesOption, PlotsOption
from edge.cli.output import progress
from edge.core.errors import ModelError
from edge.device.assembly.recognizer import choose_embedder
from edge.face.manifest import load_manifest
from edge.gallery.decision import Calibration
from edge.lab.photos.embeddings import embed_all
from edge.lab.photos.plots import plot_oneshot
from edge.lab.photos.protocol import subjects
from edge.lab.studies import oneshot as experiment
from edge.lab.studies import siamese


def oneshot(
    images: ImagesOption,
    logits: Annotated[int, typer.Option(min=2, max=100_000, help="Logits of the softmax head.")] = 1000,
    spare: Annotated[int, typer.Option(min=1, help="Logits kept free for subjects to come.")] = 200,
    plots: PlotsOption = None,
    *,
    options: EmbedderStudyOptions,
) -> None:
    """Compare one-shot enrolment with a retrained softmax head: accuracy, cost, and one more subject."""
    settings = options.settings()
    name = options.model or choose_embedder(settings).name
    table = load_manifest(name, settings.models_path).calibration
    if table is None:
        raise ModelError(f"{name}: not calibrated; see `edge calibrate`")
    if spare >= logits:
        raise typer.BadParameter("--spare must leave logits for subjects")
    everybody = subjects(images)
    known = [folder for folder, photos in everybody.items() if len(photos) > 1]
    left_out = set(known[logits - spare :])
    kept = {folder: photos for folder, photos in everybody.items() if folder not in left_out}
    with progress(name) as step:
        _, embeddings = embed_all([path for photos in kept.values() for path in photos], name, settings, step)
    faces = experiment.split(kept, embeddings)
    prototypes = settings.gallery.prototypes
    with progress("oneshot") as step:
        variants = experiment.variants(faces, logits, prototypes, step)
        report: dict[str, Any] = {
            "schema": "edge.evaluate.oneshot/1",
            "images": str(images),
            "model": name,
            "subjects": len(faces.pools),
            "left_out": len(left_out),
            "probes": len(faces.labels),
            "strangers": len(faces.strangers),
            "logits": logits,
            "variants": experiment.measure(faces, variants),
            "growth": experiment.measure_growth(faces, logits, prototypes, step),
            "siamese": siamese.measure_lists(faces, Calibration(table.thresholds, table.fmr)),
        }
    if plots is not None:
        plot_oneshot(report, plots / "oneshot.png")
    options.tell(report, partial(_show, report))


def _show(report: dict[str, Any]) -> None:
    console = Console()
    table = Table("kept as", "rank-1", "TPIR at FPIR .01", ".001", "rows", "kB", "ms a lookup", "training s")
    for name, each in report["variants"].items():
        tpir = [f"{value:.4f}" for value in each["tpir"].values()]
        size, ms = f"{each['bytes'] / 1e3:.0f}", f"{each['ms_lookup']:.3f}"
        table.add_row(
            name, f"{each['rank1']:.4f}", *tpir, str(each["rows"]), size, ms, f"{each['train_s']:.1f}"
        )
    console.print(table)
    table = Table(
        "one more subject", "ms", "newcomer rank-1", "others rank-1", "others TPIR .01", "others claimed"
    )
    for name, each in report["growth"].items():
        table.add_row(
            name,
            f"{each['ms']:.2f}",
            f"{each['newcomer_rank1']:.4f}",
            f"{each['others_rank1_change']:+.4f}",
            f"{each['others_tpir_change']['0.01']:+.4f}",
            f"{each['others_claimed']:.2%}",
        )
    console.print(table)
    table = Table(
        "candidates", "FPIR at the 1:1 threshold", "FPIR, TPIR by the rule", "ms one by one", "ms product"
    )
    for size, each in report["siamese"].items():
        rule = f"{each['rule']['fpir']:.4f}, {each['rule']['tpir']:.4f}"
        fixed = f"{each['one_to_one']['fpir']:.4f}"
        table.add_row(size, fixed, rule, f"{each['ms_one_by_one']:.3f}", f"{each['ms_product']:.4f}")
    console.print(table)
    if report["subjects"] < report["logits"] // 2:
        typer.echo(f"only {report['subjects']} subjects have two photos; the other logits stay spare")
