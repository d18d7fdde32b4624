"""Commands about visits of people whom nobody knew: list, purge."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edge.assembly import choose_embedder, decision_rule
from edge.cli.operate import ConfigOption, load_settings
from edge.clock import SystemClock
from edge.config import Settings
from edge.errors import ConfigError, EnrollmentError
from edge.face import manifest as manifests
from edge.gallery.visits import SAME_FMR, KeptVisit, Stranger, group
from edge.stores import visit_store

app = typer.Typer(no_args_is_help=True)


@app.callback()
def strangers() -> None:
    """Visits of people whom nobody knew, kept while `strangers.keep_hours` says so."""


@app.command("list")
def list_strangers(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """List them by face, who came last first."""
    settings = load_settings(config_file)
    found = known_strangers(settings)
    if as_json:
        typer.echo(json.dumps([_told(stranger) for stranger in found], indent=2))
        return
    if not found:
        kept = settings.strangers.keep_hours
        typer.echo("no visits are kept" + ("" if kept else "; strangers.keep_hours is 0"))
        return
    table = Table("seen", "first at", "last at", "cameras", "best visit", "quality", "visits")
    for stranger in found:
        told = _told(stranger)
        visits = [visit.visit_id for visit in stranger.visits]
        table.add_row(
            f"{len(visits)} times" if len(visits) > 1 else "once",
            *(f"{stranger.visits[i].at:%Y-%m-%d %H:%M} UTC" for i in (0, -1)),
            ", ".join(told["cameras"]),
            stranger.best.visit_id,
            f"{stranger.best.probe.quality.weight:.2f}",
            " ".join(visits[-3:]),
        )
    Console(markup=False, emoji=False).print(table)
    typer.echo("enrol one with `edge enroll SUBJECT --visit ID`")


@app.command()
def purge(
    visit: Annotated[list[str] | None, typer.Option(help="Which visit; several times.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Delete kept visits."""
    if bool(visit) == everything:
        raise ConfigError("name a --visit, or say --all")
    settings = load_settings(config_file)
    store = visit_store(settings)
    wanted = [each.visit_id for each in store.load(SystemClock().now())] if everything else visit or []
    typer.echo(f"deleted {store.remove(wanted)} visit(s)")


def known_strangers(settings: Settings) -> list[Stranger]:
    """Return the kept visits by face, at the embedder's calibrated threshold."""
    manifest = manifests.load(choose_embedder(settings).name, settings.models_path)
    calibration = decision_rule(settings, manifest).calibration
    threshold = calibration.threshold_at(SAME_FMR) if calibration else 1.0
    return group(visit_store(settings).load(SystemClock().now()), threshold)


def kept_visits(settings: Settings, visit_id: str, *, all_visits: bool, model_id: str) -> list[KeptVisit]:
    """Return a kept visit, or all of the same stranger's, the best first.

    Raises:
        EnrollmentError: There is no such visit, or it is of another embedder.
    """
    for stranger in known_strangers(settings):
        if visit_id in {visit.visit_id for visit in stranger.visits}:
            chosen = [each for each in stranger.visits if all_visits or each.visit_id == visit_id]
            if chosen[0].probe.model_id != model_id:
                raise EnrollmentError(f"visit {visit_id}: seen by another embedder; use a photo")
            return sorted(chosen, key=lambda each: -each.probe.quality.weight)
    raise EnrollmentError(f"visit {visit_id[:40]!r} is not kept; see `edge strangers list`")


def _told(stranger: Stranger) -> dict[str, Any]:
    return {
        "seen": len(stranger.visits),
        "first_at": stranger.visits[0].at.isoformat(),
        "last_at": stranger.visits[-1].at.isoformat(),
        "cameras": sorted({visit.camera for visit in stranger.visits}),
        "best_visit": stranger.best.visit_id,
        "visits": [visit.visit_id for visit in stranger.visits],
    }
