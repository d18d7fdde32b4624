"""Commands about kept visits, of people whom nobody knew and of matches: list, show, purge."""

import json
from typing import Annotated, Any

import typer

from edge.cli.options import ConfigOption, JsonOption, SheetOption, load_settings
from edge.cli.output import Listing
from edge.core import files
from edge.core.clock import SystemClock
from edge.core.errors import EnrollmentError, UsageError
from edge.device.assembly.recognizer import choose_embedder, decision_rule
from edge.device.assembly.stores import visit_store
from edge.device.settings.load import Settings
from edge.face.manifest import load_manifest
from edge.gallery.gallery import Gallery
from edge.gallery.store.crops import MAX_CROPS, encode_sheet
from edge.gallery.store.kept_visits import SAME_FMR, KeptVisit, Stranger, group

LATEST = 3
"""Visits of one face that a table names; `--json` has all of them."""

app = typer.Typer(no_args_is_help=True)


@app.callback()
def strangers() -> None:
    """Visits of people whom nobody knew, and matches, kept while `strangers.keep_hours` says so."""


@app.command("list")
def list_strangers(
    matched: Annotated[
        bool, typer.Option("--matched", help="Visits that were a match instead, by subject.")
    ] = False,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """List strangers by face, or matches by subject; who came last first."""
    settings = load_settings(config_file)
    found = _matches(settings) if matched else known_strangers(settings)
    if as_json:
        typer.echo(json.dumps([_told(each) for each in found], indent=2))
        return
    if not found:
        kept = settings.strangers.keep_hours
        typer.echo("no visits are kept" + ("" if kept else "; strangers.keep_hours is 0"))
        return
    whom = ("subject",) if matched else ()
    columns = (*whom, "seen", "first at", "last at", "camera", "best visit", "visits")  # 80 wide
    table = Listing(*columns, copied=(*whom, "best visit", "visits"))
    for each in found:
        visits = [visit.visit_id for visit in each.visits]
        table.add_row(
            *(each.best.taken_for for _ in whom),
            f"{len(visits)} times" if len(visits) > 1 else "once",
            *(f"{each.visits[i].at:%Y-%m-%d %H:%M} UTC" for i in (0, -1)),
            ", ".join(_told(each)["cameras"]),
            each.best.visit_id,
            "\n".join(_latest(visits)),
        )
    table.print()
    typer.echo(
        "was one of them somebody else? `edge gallery deny SUBJECT --visit ID`"
        if matched
        else "enrol one with `edge enroll SUBJECT --visit ID`"
    )


@app.command()
def show(
    visit: Annotated[str, typer.Argument(help="Which visit, as in the list.")],
    sheet: SheetOption,
    config_file: ConfigOption = None,
) -> None:
    """Write the pictures of one stranger's visits side by side, where strangers.keep_pictures kept some."""
    settings = load_settings(config_file)
    store = visit_store(settings)
    who = [each for each in known_strangers(settings) if visit in {seen.visit_id for seen in each.visits}]
    visits = who[0].visits if who else ()
    pictures = [picture for each in visits[-MAX_CROPS:] if (picture := store.picture(each)) is not None]
    if not pictures:
        raise EnrollmentError(
            f"no picture is kept of a stranger's visit {visit[:40]!r}; see strangers.keep_pictures"
        )
    files.write_whole(sheet, encode_sheet(pictures, sheet))
    typer.echo(f"{sheet}: {len(pictures)} picture(s) of one face; delete the file when you have seen it")


@app.command()
def purge(
    visit: Annotated[list[str] | None, typer.Option(help="Which visit; several times.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Delete kept visits."""
    if bool(visit) == everything:
        raise UsageError("name a --visit, or say --all")
    settings = load_settings(config_file)
    store = visit_store(settings)
    typer.echo(f"deleted {store.purge() if everything else store.remove(visit or [])} visit(s)")


def known_strangers(settings: Settings) -> list[Stranger]:
    """Return the kept visits of strangers by face, at the embedder's calibrated threshold."""
    return _by_face(settings, [each for each in _kept(settings) if not each.taken_for])


def strangers_visits(
    settings: Settings, visit_id: str, *, all_visits: bool, model_id: str
) -> list[KeptVisit]:
    """Return a kept visit of a stranger, or all of the same stranger's, the best first.

    Raises:
        EnrollmentError: There is no such visit, it was a match, or it is of another embedder.
    """
    found = kept_visit(settings, visit_id, model_id)
    if found.taken_for:
        raise EnrollmentError(
            f"visit {visit_id} was a match for {found.taken_for!r}; if that was somebody else, say `edge "
            f"gallery deny {found.taken_for} --visit {visit_id}`, and enrol from a photo or a later visit"
        )
    if not all_visits:
        return [found]
    for stranger in known_strangers(settings):
        if visit_id in {visit.visit_id for visit in stranger.visits}:
            return sorted(stranger.visits, key=lambda each: -each.probe.quality.weight)
    return [found]


def kept_visit(settings: Settings, visit_id: str, model_id: str) -> KeptVisit:
    """Return a kept visit, a stranger's or a match.

    Raises:
        EnrollmentError: There is no such visit, or it is of another embedder.
    """
    found = next((each for each in _kept(settings) if each.visit_id == visit_id), None)
    if found is None:
        raise EnrollmentError(
            f"visit {visit_id[:40]!r} is not kept; see `edge strangers list`, also with --matched"
        )
    if found.probe.model_id != model_id:
        raise EnrollmentError(f"visit {visit_id}: seen by another embedder; use a photo")
    return found


def _kept(settings: Settings) -> list[KeptVisit]:
    return visit_store(settings).load(SystemClock().now())


def _by_face(settings: Settings, visits: list[KeptVisit]) -> list[Stranger]:
    manifest = load_manifest(choose_embedder(settings).name, settings.models_path)
    calibration = decision_rule(settings, manifest, Gallery.empty(manifest.model_id)).calibration
    return group(visits, calibration.threshold_at(SAME_FMR) if calibration else 1.0)


def _matches(settings: Settings) -> list[Stranger]:
    """Return the kept matches by subject, who came last first."""
    by_subject: dict[str, list[KeptVisit]] = {}
    for visit in _kept(settings):
        if visit.taken_for:
            by_subject.setdefault(visit.taken_for, []).append(visit)
    found = [Stranger(tuple(visits)) for visits in by_subject.values()]
    return sorted(found, key=lambda each: each.visits[-1].at, reverse=True)


def _latest(visits: list[str]) -> list[str]:
    """Return the ids of the latest visits, and how many came before."""
    before = len(visits) - LATEST
    return [*visits[-LATEST:], *([f"and {before} more"] if before > 0 else [])]


def _told(stranger: Stranger) -> dict[str, Any]:
    return {
        **({"subject": stranger.best.taken_for} if stranger.best.taken_for else {}),
        "seen": len(stranger.visits),
        "first_at": stranger.visits[0].at.isoformat(),
        "last_at": stranger.visits[-1].at.isoformat(),
        "cameras": sorted({visit.camera for visit in stranger.visits}),
        "best_visit": stranger.best.visit_id,
        "quality": round(stranger.best.probe.quality.weight, 2),
        "visits": [visit.visit_id for visit in stranger.visits],
    }
