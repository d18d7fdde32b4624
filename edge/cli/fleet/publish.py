"""Commands that change what the doors of a fleet serve: publish, switch, reembed, revoke."""

import logging
import math
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edge.cli.options import (
    ConfigOption,
    FleetOptions,
    NudgeOptions,
    ReportOption,
    SchedulerOption,
    load_settings,
    photos_option,
    with_option_groups,
)
from edge.cli.output import Listing, progress
from edge.core.clock import SystemClock
from edge.core.errors import FleetError, LinkError, UsageError
from edge.core.text import printable
from edge.device.assembly.candidate import candidate_gallery, gallery_in_force
from edge.device.assembly.delivery import build_broker
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_elsewhere, build_recognizer
from edge.device.assembly.stores import candidate_store
from edge.device.settings.load import Settings
from edge.face.manifest import load_manifest, parts_of
from edge.face.weights import load_verified
from edge.fleet.cluster import Cluster, Needs, joined
from edge.fleet.fleet import Fleet, fleet_for_change
from edge.fleet.keys import key_ring
from edge.fleet.reembed import reembed as reembed_gallery
from edge.fleet.rollout.gallery import Arrival, Wanted, cannot_follow, nudge_doors
from edge.fleet.status import Publication
from edge.gallery.gallery import Gallery
from edge.recognition.enrolment.bulk import tell_refusals, write_outcomes
from edge.recognition.enrolment.roster import from_folder

log = logging.getLogger(__name__)

MAX_VALID_DAYS = 3650
"""Ten years."""

SHOWN_DOORS = 5
"""Of the doors that a message names."""


@with_option_groups
def publish(
    scope: Annotated[str | None, typer.Argument(help="Scope to publish this device's gallery for.")] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Only subjects of this group; several times. Remembered for the next time."),
    ] = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="Forget the groups of the scope.")] = False,
    model: Annotated[str | None, typer.Option(help="Publish this installed model as well.")] = None,
    valid_days: Annotated[
        float | None, typer.Option(help="Days after which doors trust it no more; forever when unset.")
    ] = None,
    candidate: Annotated[
        bool,
        typer.Option("--candidate", help="Publish what `edge fleet reembed` made, to try and switch to."),
    ] = False,
    beside: Annotated[bool, typer.Option("--beside", hidden=True)] = False,
    allow_empty: Annotated[bool, typer.Option(help="Lock everybody out.")] = False,
    allow_missing: Annotated[
        bool, typer.Option(help="With --candidate: also where it lacks somebody of the gallery in force.")
    ] = False,
    *,
    nudging: NudgeOptions,
    options: FleetOptions,
    config_file: ConfigOption = None,
) -> None:
    """Publish the gallery that was enrolled here (`edge enroll`) for a scope, or a model, or both."""
    if scope is None and model is None:
        raise typer.BadParameter("name a scope, or a --model, or both")
    if group and everybody:
        raise typer.BadParameter("--group and --everybody say different things")
    if beside:
        log.warning("--beside is called --candidate; the old name goes with the next release")
        candidate = True
    lifetime = _lifetime(valid_days)
    settings = load_settings(config_file)
    published = None
    with opened_fleet(options) as opened:
        if model is not None:
            _publish_model(opened, settings, model)
        if scope is not None:
            gallery, manifest = candidate_gallery(settings) if candidate else gallery_in_force(settings)
            if lifetime is not None:
                gallery = replace(gallery, not_after=SystemClock().now() + lifetime)
            published = opened.publish_gallery(
                scope,
                gallery,
                model=manifest.name,
                groups=() if everybody else group,
                candidate=candidate,
                allow_empty=allow_empty,
                allow_missing=allow_missing,
            )
            tell(published)
    if nudging.nudge and published is not None:
        wanted = {published.scope: Wanted(published.version, published.candidate)}
        raise typer.Exit(ask_doors(settings, wanted, nudging.device, nudging.wait))


@with_option_groups
def switch(
    scope: Annotated[str, typer.Argument(help="Scope whose gallery and its candidate change places.")],
    drop: Annotated[
        bool, typer.Option(help="Instead, withdraw the candidate: there is no way back then.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option(help="Also where the candidate lacks somebody, who is then locked out.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Ask no door whether it can use the model. One that cannot keeps its gallery, and only who "
            "was removed or restricted is so there as well.",
        ),
    ] = False,
    *,
    nudging: NudgeOptions,
    options: FleetOptions,
    config_file: ConfigOption = None,
) -> None:
    """Move the doors of a scope to their candidate, model and threshold with it; again: back.

    What the doors report at the broker of --config has to say that they can use the model.
    """
    asks = not (drop or force)
    settings = load_settings(config_file) if nudging.nudge or asks else None
    with opened_fleet(options) as opened:
        if drop:
            opened.drop_candidate(scope)
            typer.echo(f"scope {scope}: there is no candidate any more")
            wanted = Wanted(0, candidate=True)
        else:
            if settings is not None and asks:
                _check_doors(settings, opened, scope)
            published = opened.switch(scope, allow_missing=allow_missing)
            tell(published)
            typer.echo(
                'its doors need recognition.embedder = "auto"; one with a fixed embedder refuses this '
                "gallery and all after it"
            )
            wanted = Wanted(published.version)
    if settings is not None and nudging.nudge:
        raise typer.Exit(ask_doors(settings, {scope: wanted}, nudging.device, nudging.wait))


def reembed(
    photos: Annotated[
        Path,
        photos_option("Each subject a photo, or a folder of them, of its id."),
    ],
    model: Annotated[str, typer.Option(help="The embedder to move to; see `edge models list`.")],
    processes: Annotated[int, typer.Option(min=1, help="Processes that embed.")] = os.cpu_count() or 1,
    scheduler: SchedulerOption = None,
    report: ReportOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Embed everybody who is enrolled here anew: the candidate. The gallery in force stays as it is.

    Run it again to go on where it stopped. Exits 1 if somebody could not be embedded: find better photos and
    run it again, or enrol these by hand after the switch.
    """
    settings = load_settings(config_file)
    recognition = settings.recognition.model_copy(update={"embedder": model})
    chosen = settings.model_copy(update={"recognition": recognition})
    current = gallery_in_force(settings)[0]
    entries = from_folder(photos)
    build = partial(build_recognizer, gallery=Gallery.empty("none"), side_px=PHOTO_SIDE_PX)
    workers: AbstractContextManager[Cluster | None] = nullcontext()
    if scheduler is not None:
        first = next((photo for entry in entries for photo in entry.photos), photos)
        workers = joined(
            scheduler, Needs.of(build(chosen), first), partial(build_elsewhere, build, recognition)
        )
    with progress("reembed") as told, workers as cluster:
        outcomes = reembed_gallery(
            current,
            entries,
            partial(build, chosen),
            candidate_store(settings),
            max_prototypes=settings.gallery.prototypes,
            processes=processes,
            at=SystemClock().now,
            told=told,
            cluster=cluster,
        )
    tell_refusals(outcomes, partial(typer.echo, err=True))
    if report:
        write_outcomes(outcomes, report)
    counts = Counter(each.status for each in outcomes if not each.photo)
    typer.echo(", ".join(f"{count} {status}" for status, count in counts.items()) or "nobody is enrolled")
    raise typer.Exit(1 if counts["refused"] else 0)


@with_option_groups
def revoke(
    subject: Annotated[str, typer.Argument(help="Opaque id of the subject.")],
    undo: Annotated[bool, typer.Option(help="Let the subject be published again.")] = False,
    *,
    nudging: NudgeOptions,
    options: FleetOptions,
    config_file: ConfigOption = None,
) -> None:
    """Take a subject out of every scope, and keep it out of what is published later."""
    settings = load_settings(config_file) if nudging.nudge else None
    published: list[Publication] = []
    refused: FleetError | None = None

    def told(each: Publication) -> None:
        published.append(each)
        tell(each)

    with opened_fleet(options) as opened:
        if undo:
            opened.reinstate(subject)
            typer.echo(f"{subject} may be published again; publish the scopes it belongs to")
            return
        try:
            opened.revoke(subject, told)
            typer.echo(f"{subject} is revoked")
        except FleetError as error:
            refused = error
    try:
        if settings is not None and published:
            wanted = {each.scope: Wanted(each.version, each.candidate, removal=True) for each in published}
            raise typer.Exit(ask_doors(settings, wanted, nudging.device, nudging.wait))
    finally:
        if refused is not None:
            raise refused


def _lifetime(valid_days: float | None) -> timedelta | None:
    """Return how long a gallery is trusted, None for ever.

    Raises:
        ConfigError: No such time can be.
    """
    if valid_days is None:
        return None
    if not math.isfinite(valid_days) or not 0 < valid_days <= MAX_VALID_DAYS:
        raise UsageError(
            f"--valid-days {valid_days:g}: must be more than 0 and at most {MAX_VALID_DAYS}; past its end a "
            "gallery closes the doors, see sync.stale"
        )
    return timedelta(days=valid_days)


def _publish_model(opened: Fleet, settings: Settings, model: str) -> None:
    manifest = load_manifest(model, settings.models_path)
    files = {path.name: path.read_bytes() for path in manifest.directory.iterdir() if path.is_file()}
    parts = parts_of(manifest, settings.models_path)
    weights = {part.file: load_verified(part, settings.models_path) for part in parts}
    opened.publish_model(model, {**files, **weights})
    typer.echo(f"model {model}: published with {len(files)} file(s) and its weights")


def opened_fleet(options: FleetOptions) -> AbstractContextManager[Fleet]:
    """Open the fleet that the options name for a change."""
    return fleet_for_change(
        options.fleet, key_ring(options.directory, options.passphrase_file), SystemClock()
    )


def tell(published: Publication) -> None:
    """Print what was published for a scope."""
    change = f", difference {published.delta_bytes} bytes" if published.delta_bytes else ""
    groups = f" of {', '.join(published.groups)}" if published.groups else ""
    left_out = f"; {published.excluded} revoked left out" if published.excluded else ""
    typer.echo(
        f"scope {published.scope}: version {published.version} with {published.count} subject(s){groups}, "
        f"{published.bytes} bytes{change}{left_out}"
    )


def _check_doors(settings: Settings, fleet: Fleet, scope: str) -> None:
    """Accept a switch that all doors of the scope can follow, by what they report.

    Raises:
        FleetError: One cannot, or nobody knows.
    """
    candidate = fleet.candidate(scope)
    if candidate is None:
        return  # `Fleet.switch` says so
    try:
        cannot, known = cannot_follow(
            build_broker(settings.mqtt), settings.site, scope, candidate.model_id, SystemClock()
        )
    except LinkError as error:
        raise FleetError(
            f"nothing was switched, because no door can be asked whether it can use {candidate.model_id!r}: "
            f"{error}; name the broker with --config, or say --force"
        ) from None
    if not known:
        raise FleetError(
            f"nothing was switched: no door has reported at this broker that it serves {scope}, so nobody "
            f"knows whether its doors can use {candidate.model_id!r}; say --force if that is meant"
        )
    if cannot:
        few = "; ".join(f"{name}: {why}" for name, why in list(cannot.items())[:SHOWN_DOORS])
        more = f"; and {len(cannot) - SHOWN_DOORS} more" if len(cannot) > SHOWN_DOORS else ""
        raise FleetError(
            f"nothing was switched: {len(cannot)} of {known} door(s) cannot use {candidate.model_id!r}: "
            f'{printable(few)}{more}; set recognition.embedder = "auto" there and synchronise, or say --force'
        )


def ask_doors(
    settings: Settings, wanted: Mapping[str, Wanted], devices: list[str] | None, wait_s: float
) -> int:
    """Ask doors to synchronise, wait, and print who has it; returns the exit code."""
    broker = build_broker(settings.mqtt)
    with progress("nudge") as told:
        arrival = nudge_doors(
            broker, settings.site, wanted, devices or [], wait_s=wait_s, clock=SystemClock(), told=told
        )
    return tell_arrival(arrival)


def tell_arrival(arrival: Arrival) -> int:
    """Print which doors have it; returns the exit code."""
    doors = arrival.concerned()
    scopes = ", ".join(arrival.wanted)
    if not doors:
        print(f"no door has reported at this broker that it serves {scopes}; name it with --device")
        return 1
    states = {name: arrival.came_to(door) for name, door in doors.items()}
    if Console().is_terminal:
        table = Listing("door", "published", "why", copied=("door",), title=scopes)
        for name, (state, why) in states.items():
            table.add_row(name, state, printable(why))
        table.print()
    else:
        for name, (state, why) in states.items():
            print(printable(f"{name}: {state}{f': {why}' if why else ''}"))
    without = [name for name, (state, _) in states.items() if state != "has it"]
    if without:
        print(printable(f"{len(without)} of {len(states)} door(s) have not got it: {', '.join(without)}"))
    return 1 if without else 0
