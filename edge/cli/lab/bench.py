"""Commands that measure speed and range: bench, bench gallery, bench mqtt, bench range, bench view."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edge.cli.options import ConfigOption, JsonOption, PlotsOption, load_settings
from edge.cli.output import progress, tell
from edge.lab.bench.report import print_report, run_bench
from edge.lab.demo.media import fetch_media, media_dir

app = typer.Typer(invoke_without_command=True)


@app.callback()
def bench(
    context: typer.Context,
    as_json: JsonOption = False,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often every contestant runs.")] = 3,
    config_file: ConfigOption = None,
) -> None:
    """Measure this device: stages, frames per second, int8 and fp32, beside the usual OpenCV loop."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings(config_file)
    with progress("clips") as step:
        fetch_media(media_dir(settings), step)
    with progress("bench") as step:
        report = run_bench(settings, rounds=rounds, progress=step)
    tell(report, lambda: print_report(report, Console(highlight=False)), as_json=as_json)


@app.command()
def gallery(
    rows: Annotated[
        list[int] | None, typer.Option(min=100, max=1_000_000, help="Templates; may be repeated.")
    ] = None,
    dim: Annotated[int, typer.Option(min=8, max=1024, help="Values of an embedding.")] = 128,
    rounds: Annotated[
        int, typer.Option(min=5, max=10_000, help="Turns of every engine, four probes each.")
    ] = 30,
    as_json: JsonOption = False,
    plots: PlotsOption = None,
) -> None:
    """Time the search of synthetic galleries, alternately with numpy and face_recognition's formula."""
    from edge.lab.bench.search import measure_galleries, plot_galleries

    with progress("gallery") as step:
        report = measure_galleries(sorted(set(rows or [10_000])), dim, rounds, step)
    if plots is not None:
        plot_galleries(report, plots)
    tell(report, lambda: _print_galleries([*report["smaller"], report]), as_json=as_json)


@app.command()
def mqtt(
    decisions: Annotated[int, typer.Option(min=10, max=100_000, help="Decisions to time.")] = 500,
    rows: Annotated[int, typer.Option(min=100, max=1_000_000, help="Rows of the backlog.")] = 10_000,
    as_json: JsonOption = False,
) -> None:
    """Time decision to subscriber, the outbox, and the drain of a backlog over a broker on this machine."""
    from edge.lab.bench.mqtt import as_text, measure_mqtt

    with progress("mqtt") as step:
        report = measure_mqtt(step, decisions=decisions, rows=rows)
    tell(report, lambda: typer.echo(as_text(report)), as_json=as_json)


@app.command("range")
def measure_distances(
    people: Annotated[int, typer.Option(min=1, max=1000, help="Faces, one clip each per row.")] = 20,
    images: Annotated[
        Path | None, typer.Option(help="Folder of portraits; unset: photos of the demo.")
    ] = None,
    resolution: Annotated[
        list[str] | None, typer.Option(help="720p, 1080p or 4K; may be repeated; unset: all.")
    ] = None,
    visits: Annotated[
        bool, typer.Option(help="Measure whole visits besides, also with the detector at full width.")
    ] = True,
    clip: Annotated[
        list[Path] | None, typer.Option(help="Clip for a scene; may be repeated; unset: the demo's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws other faces, times and walks.")] = 0,
    as_json: JsonOption = False,
    plots: PlotsOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Tell how far faces are found in moving scenes, and what a frame costs, with and without the search."""
    from edge.lab.bench.range import RESOLUTIONS, VISITS, measure_range, plot_range, range_tables

    chosen = resolution or list(RESOLUTIONS)
    if unknown := set(chosen) - set(RESOLUTIONS):
        raise typer.BadParameter(f"{min(unknown)}: use {', '.join(RESOLUTIONS)}", param_hint="--resolution")
    settings = load_settings(config_file)
    with progress("clips") as step:
        fetch_media(media_dir(settings), step)
    with progress("range") as step:
        report = measure_range(
            settings,
            people=people,
            images=images,
            progress=step,
            resolutions=chosen,
            visits=VISITS if visits else (),
            clips=clip or (),
            seed=seed,
        )
    if plots is not None:
        plot_range(report, plots)
    tell(report, lambda: Console(highlight=False).print(*range_tables(report)), as_json=as_json)


@app.command()
def view(
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often it is run with and without.")] = 6,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """Tell what an open aiming view costs the decision loop: with and without one, alternately."""
    from edge.lab.bench.aiming import measure_view

    settings = load_settings(config_file)
    with progress("clips") as step:
        fetch_media(media_dir(settings), step)
    with progress("view") as step:
        report = measure_view(settings, rounds, step)
    tell(report, lambda: _print_view(report), as_json=as_json)


def _print_view(report: dict[str, Any]) -> None:
    columns = ("p50 without", "p50 with", "p95 without", "p95 with", "ratio of p95", "95 % of it in")
    table = Table("frames", *columns, title="decision loop in ms, without and with an open view")
    for label, figures in report.items():
        spent = (figures[key][name] for key in ("p50_ms", "p95_ms") for name in ("without", "with"))
        low, high = figures["interval"]
        table.add_row(
            label, *(f"{value:.2f}" for value in (*spent, figures["ratio"])), f"{low:.2f}-{high:.2f}"
        )
    Console(highlight=False).print(table)


def _print_galleries(sizes: list[dict[str, Any]]) -> None:
    for size in sizes:
        _print_gallery(size)


def _print_gallery(report: dict[str, Any]) -> None:
    title = f"{report['rows']:,} x {report['dim']}, one core"
    table = Table("engine", "ms p50", "ms p95", "MB", "x read floor", "same as exact", title=title)
    for name, figures in report["engines"].items():
        agreement = figures["agreement"]
        table.add_row(
            name,
            f"{figures['ms_p50']:.3f}",
            f"{figures['ms_p95']:.3f}",
            f"{figures['bytes'] / 1e6:.1f}",
            f"{figures['floor_ratio']:.2f}",
            "-" if agreement is None else f"{agreement:.1%}",
        )
    console = Console(highlight=False)
    console.print(table)
    scoped, changes = report["scoped"], report["changes"]
    console.print(
        "scoped, ms p50: " + ", ".join(f"{name} {figures['ms_p50']:.3f}" for name, figures in scoped.items())
    )
    console.print(f"one row: added in {changes['append_us']} us, removed in {changes['remove_us']} us")
