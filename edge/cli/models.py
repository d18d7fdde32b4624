"""Commands about models: fetch, list, verify, bench."""

import json
from typing import Annotated

import typer

from edge.cli.options import ConfigOption, JsonOption, load_settings
from edge.cli.output import Listing, progress
from edge.core.errors import ModelError
from edge.face.manifest import installed_path, load_manifest, model_names
from edge.face.session import Session, self_test
from edge.face.weights import fetch as fetch_model
from edge.face.weights import load_verified

app = typer.Typer(help="The models: where they come from and whether they are intact.", no_args_is_help=True)

NamesArgument = Annotated[list[str] | None, typer.Argument(help="Models; all when left out.")]


@app.command()
def fetch(
    names: NamesArgument = None,
    mirror: Annotated[str, typer.Option(help="Directory or URL to ask before the package registry.")] = "",
    config_file: ConfigOption = None,
) -> None:
    """Fetch or build the models, verify and install them. What is installed is not fetched again."""
    settings = load_settings(config_file)
    for name in names or model_names():
        manifest = load_manifest(name)
        with progress(name) as step:
            path = fetch_model(
                manifest, settings.models_path, mirror=mirror or settings.models_mirror, progress=step
            )
        typer.echo(f"{name}: verified, {path}")


@app.command("list")
def list_models(config_file: ConfigOption = None) -> None:
    """List the known models and whether they are installed."""
    settings = load_settings(config_file)
    table = Listing("name", "kind", "MB", "licence", "installed", "description", copied=("name",))
    for name in model_names(settings.models_path):
        manifest = load_manifest(name, settings.models_path)
        installed = "yes" if installed_path(manifest, settings.models_path).is_file() else "no"
        in_use = name in (settings.recognition.detector, settings.recognition.embedder)
        size = f"{manifest.bytes / 1e6:.1f}"
        mark = f"{name} *" if in_use else name
        table.add_row(mark, manifest.kind, size, manifest.licence, installed, manifest.description)
    table.print()
    typer.echo("* in use by this configuration")


@app.command()
def verify(names: NamesArgument = None, config_file: ConfigOption = None) -> None:
    """Check the hash of every model and that it computes what it should (golden vector)."""
    settings = load_settings(config_file)
    failures = []
    for name in names or model_names(settings.models_path):
        manifest = load_manifest(name, settings.models_path)
        try:
            model = load_verified(manifest, settings.models_path)
            session = Session.of(manifest, model, threads=settings.recognition.threads)
            self_test(session, manifest)
        except ModelError as error:
            failures.append(name)
            typer.echo(f"{name}: FAILED: {error}", err=True)
        else:
            typer.echo(f"{name}: hash and golden vector right ({session.provider})")
    if failures:
        raise ModelError(f"{len(failures)} of the models cannot be used: {', '.join(failures)}")


@app.command()
def bench(
    rounds: Annotated[int, typer.Option(min=10, max=10_000, help="Faces that every model embeds.")] = 100,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """Time every embedder on this device, alternately in one run: choose float or int8 by this."""
    from edge.lab.bench.embedders import (  # a door that verifies models needs none
        REFERENCE,
        measure_embedders,
    )
    from edge.lab.demo.media import fetch_media, media_dir

    settings = load_settings(config_file)
    with progress("clips") as step:
        fetch_media(media_dir(settings), step)
    with progress("bench") as step:
        report = measure_embedders(settings, media_dir(settings), rounds, step)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    table = Listing("model", "ms p50", "ms p95", "MB", f"cosine to {REFERENCE}")
    for name, figures in report["models"].items():
        cells = (f"{figures['ms_p50']:.2f}", f"{figures['ms_p95']:.2f}", f"{figures['bytes'] / 1e6:.1f}")
        table.add_row(name, *cells, f"{figures['cosine_to_fp32']:.4f}")
    table.print()
    for reason in report["refused"].values():
        typer.echo(f"not timed: {reason}", err=True)
