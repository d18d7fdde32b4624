"""Commands about models: fetch, list, verify, bench."""

from typing import Annotated, Any

import typer

from edge.cli.options import ConfigOption, JsonOption, load_settings
from edge.cli.output import Listing, progress, tell
from edge.core.errors import EX_FAILURE, ModelError, UsageError
from edge.core.text import printable
from edge.device.assembly.recognizer import liveness_policy
from edge.face.choice import check_model
from edge.face.manifest import (
    is_installed,
    load_manifest,
    model_names,
    needed_models,
    parts_of,
    recommended_models,
)
from edge.face.weights import fetch as fetch_model

app = typer.Typer(help="The models: where they come from and whether they are intact.", no_args_is_help=True)

NamesArgument = Annotated[list[str] | None, typer.Argument(help="Models; all when left out.")]


@app.command()
def fetch(
    names: NamesArgument = None,
    recommended: Annotated[
        bool, typer.Option("--recommended", help="Those that nothing needs and every door is better with.")
    ] = False,
    mirror: Annotated[str, typer.Option(help="Directory or URL to ask before the package registry.")] = "",
    config_file: ConfigOption = None,
) -> None:
    """Fetch or build the models, verify and install them. What is installed is not fetched again.

    Without names all that the product needs. Of the recommended ones those that can be had are installed;
    each of the others costs a line that says why, and what its absence costs, and the exit code is 1.
    """
    if names and recommended:
        raise UsageError("--recommended: it names the models itself; leave the names out, or the option")
    settings = load_settings(config_file)
    absent = 0
    for name in names or (recommended_models() if recommended else needed_models()):
        manifest = load_manifest(name)
        try:
            with progress(name) as step:
                path = fetch_model(
                    manifest, settings.models_path, mirror=mirror or settings.models_mirror, progress=step
                )
        except ModelError as error:
            if not recommended:
                raise
            absent += 1
            typer.echo(f"{printable(str(error))}; without it {manifest.without}", err=True)
        else:
            typer.echo(f"{name}: verified, {path}")
    if absent:
        raise typer.Exit(EX_FAILURE)


@app.command("list")
def list_models(config_file: ConfigOption = None) -> None:
    """List the known models: what each is for, whose data it has seen, and what is missing."""
    settings = load_settings(config_file)
    columns = ("name", "kind", "MB", "installed", "for", "licence", "trained on")
    table = Listing(*columns, copied=("name",))
    missing = []
    alive = settings.liveness.models if liveness_policy(settings) != "off" else ()
    for name in model_names(settings.models_path):
        manifest = load_manifest(name, settings.models_path)
        parts = parts_of(manifest, settings.models_path)
        installed = is_installed(manifest, settings.models_path)
        in_use = name in (settings.recognition.detector, settings.recognition.embedder, *alive)
        size = f"{sum(part.bytes for part in parts) / 1e6:.1f}"
        mark = f"{name} *" if in_use else name
        answer = "yes" if installed else "no"
        told = (manifest.description, manifest.licence, manifest.trained_on)
        table.add_row(mark, manifest.kind, size, answer, *told)
        if not installed and manifest.recommended:
            missing.append(f"{name} is missing: {manifest.without}; {manifest.mend}")
        elif not installed and in_use:
            missing.append(f"{name} is missing: this device recognises nobody without it; {manifest.mend}")
    table.print()
    typer.echo("* in use by this configuration")
    for line in missing:
        typer.echo(line)


@app.command()
def verify(names: NamesArgument = None, config_file: ConfigOption = None) -> None:
    """Check the hash of every model and that it computes what it should (golden vector)."""
    settings = load_settings(config_file)
    failures = []
    for name in names or model_names(settings.models_path):
        manifest = load_manifest(name, settings.models_path)
        if manifest.optional and not is_installed(manifest, settings.models_path) and not names:
            continue
        try:
            provider = check_model(
                name,
                settings.models_path,
                threads=settings.recognition.threads,
                providers=settings.recognition.runs_on,
            )
        except ModelError as error:
            failures.append(name)
            typer.echo(f"{name}: FAILED: {error}", err=True)
        else:
            typer.echo(f"{name}: hash and golden vector right ({provider})")
    if failures:
        raise ModelError(f"{len(failures)} of the models cannot be used: {', '.join(failures)}")


@app.command()
def bench(
    rounds: Annotated[int, typer.Option(min=10, max=10_000, help="Faces that every model embeds.")] = 100,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """Time every embedder on this device, alternately in one run: choose float or int8 by this."""
    from edge.lab.bench.embedders import measure_embedders  # a door that verifies models needs none
    from edge.lab.demo.media import fetch_media, media_dir

    settings = load_settings(config_file)
    with progress("clips") as step:
        fetch_media(media_dir(settings), step)
    with progress("bench") as step:
        report = measure_embedders(settings, media_dir(settings), rounds, step)
    tell(report, lambda: _print_bench(report), as_json=as_json)


def _print_bench(report: dict[str, Any]) -> None:
    table = Listing("model", "ms p50", "ms p95", "CPU ms p50", "MB", "cosine to its floats")
    for name, figures in report["models"].items():
        times = [f"{figures[key]:.2f}" for key in ("ms_p50", "ms_p95", "cpu_ms_p50")]
        cosine = figures["cosine_to_fp32"]
        size = f"{figures['bytes'] / 1e6:.1f}"
        table.add_row(name, *times, size, "-" if cosine is None else f"{cosine:.4f}")
    table.print()
    for reason in report["refused"].values():
        typer.echo(f"not timed: {reason}", err=True)
