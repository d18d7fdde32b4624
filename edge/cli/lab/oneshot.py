"""evaluate oneshot, growth: the questions the product was born from, on an operator's own photos."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edge.cli.lab.study import EmbedderStudyOptions, embedded
from edge.cli.options import ImagesOption, PlotsOption
from edge.cli.output import progress
from edge.core.errors import ModelError
from edge.face.manifest import load_manifest
from edge.gallery.decision import Calibration
from edge.lab.photos.plots import plot_growth, plot_oneshot
from edge.lab.photos.protocol import subjects
from edge.lab.studies.memory import oneshot as experiment
from edge.lab.studies.memory import siamese

LEAST_TIMED, LOOKUP_ROUNDS = 1000, 10
"""Rows from which lookups are timed, and turns of each engine."""


def oneshot(
    images: ImagesOption,
    logits: Annotated[int, typer.Option(min=2, max=100_000, help="Logits of the softmax head.")] = 1000,
    spare: Annotated[int, typer.Option(min=1, help="Logits kept free for subjects to come.")] = 200,
    plots: PlotsOption = None,
    *,
    options: EmbedderStudyOptions,
) -> None:
    """Compare one-shot enrolment with a retrained softmax head: accuracy, cost, and one more subject."""
    embedder = options.begin()
    name, settings = embedder.name, embedder.settings
    table = load_manifest(name, settings.models_path).calibration
    if table is None:
        raise ModelError(f"{name}: not calibrated; see `edge calibrate`")
    if spare >= logits:
        raise typer.BadParameter("--spare must leave logits for subjects")
    everybody = subjects(images)
    known = [folder for folder, photos in everybody.items() if len(photos) > 1]
    left_out = set(known[logits - spare :])
    kept = {folder: photos for folder, photos in everybody.items() if folder not in left_out}
    embeddings = embedded(embedder, [path for photos in kept.values() for path in photos])
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


def growth(
    images: ImagesOption,
    most: Annotated[
        int, typer.Option(min=1000, max=1_000_000, help="Enrolled subjects, at most; powers of ten below.")
    ] = 1_000_000,
    dim: Annotated[
        list[int] | None,
        typer.Option(
            min=4,
            help="Shorten embeddings to so many values, too; several times. Unset: a quarter, half.",
        ),
    ] = None,
    plots: PlotsOption = None,
    *,
    options: EmbedderStudyOptions,
) -> None:
    """Measure how far a memory of faces goes: recognition and cost from ten enrolled to a million."""
    from edge.lab.bench.search import measure_galleries
    from edge.lab.studies.memory import growth as study
    from edge.lab.studies.memory import slots

    embedder = options.begin()
    name = embedder.name
    everybody = subjects(images)
    embeddings = embedded(embedder, [path for paths in everybody.values() for path in paths])
    people = study.halves(everybody, embeddings)
    whole = people.lenders.shape[1]
    sizes = [10**power for power in range(1, 7) if 10**power <= most]
    rule = embedder.recognizer().rule
    if rule.calibration is not None:
        rule = replace(rule, target_fpir=study.TARGET, threshold=None)
    by_dim: dict[str, Any] = {}
    for shown in sorted({*(dim or (whole // 4, whole // 2)), whole}):
        if shown > whole:
            raise typer.BadParameter(f"{shown}: {name} has {whole} values", param_hint="--dim")
        with progress(f"{shown} values") as step:
            kept = rule if shown == whole and rule.calibration is not None else None
            by_dim[str(shown)] = study.grow(people.shortened(shown), sizes, kept, step)
    with progress("lookups") as step:
        timed = measure_galleries([size for size in sizes if size >= LEAST_TIMED], whole, LOOKUP_ROUNDS, step)
    report: dict[str, Any] = {
        "schema": "edge.evaluate.growth/1",
        "images": str(images),
        "model": name,
        "lenders": len(people.lenders),
        "subjects": len(people.enrolled),
        "probes": len(people.probes),
        "strangers": len(people.strangers),
        "likeness": study.likeness(people),
        "sizes": by_dim,
        "farther": study.farther(people),
        "slots": slots.compare(experiment.split(everybody, embeddings), study.TARGET),
        "lookup_ms": {
            str(each["rows"]): min(each["engines"][kind]["ms_p50"] for kind in ("int8", "dense"))
            for each in (*timed["smaller"], timed)
        },
    }
    if plots is not None:
        plot_growth(report, plots / "growth.png")
    options.tell(report, partial(_show_growth, report))


def _show_growth(report: dict[str, Any]) -> None:
    console = Console()
    whole = max(report["sizes"], key=int)
    heads = ("rank-1", "TPIR at FPIR .01", "threshold", "by the rule: FPIR, TPIR", "MB", "ms a lookup")
    table = Table("enrolled", *heads)
    for size, each in report["sizes"][whole].items():
        rule, tpir = each.get("by_rule"), each["tpir"]
        table.add_row(
            f"{int(size):,}",
            f"{each['rank1']:.4f}",
            f"{tpir['value']:.3f} ({tpir['low']:.3f}-{tpir['high']:.3f})",
            f"{each['threshold']:.3f}",
            "-" if rule is None else f"{rule['fpir']:.4f}, {rule['tpir']:.3f}",
            f"{int(size) * int(whole) * 5 / 1e6:,.2f}",
            f"{report['lookup_ms'][size]:.3f}" if size in report["lookup_ms"] else "-",
        )
    for size, each in report["farther"].items():
        tpir, threshold = each["tpir"], each["threshold"]
        shown = f"{tpir['value']:.3f} ({tpir['low']:.3f}-{tpir['high']:.3f})"
        size_mb = f"{int(size) * int(whole) * 5 / 1e6:,.0f}"
        table.add_row(f"{int(size):,}", "", shown, f"{threshold['value']:.3f}", "continued", size_mb, "")
    console.print(table)
    table = Table("values", *(f"{int(size):,} enrolled" for size in report["sizes"][whole]))
    for dim, sizes in report["sizes"].items():
        table.add_row(dim, *(f"{each['tpir']['value']:.3f}" for each in sizes.values()))
    console.print(table)
    table = Table("kept in", "rows", "forgotten", "rank-1", "TPIR at FPIR .01", "kB")
    for name, each in report["slots"].items():
        figures = (f"{each['forgotten']:.1%}", f"{each['rank1']:.4f}", f"{each['tpir']:.4f}")
        table.add_row(name, str(each["rows"]), *figures, f"{each['bytes'] / 1e3:.0f}")
    console.print(table)
