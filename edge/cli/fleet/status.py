"""The command that shows how a fleet stands: `edge fleet status`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli.fleet.publish import tell_arrival
from edge.cli.options import HERE, FleetOption, JsonOption, load_settings
from edge.cli.output import Listing
from edge.core.clock import SystemClock
from edge.device.assembly.delivery import build_broker
from edge.device.settings.load import Settings
from edge.fleet.fleet import open_fleet
from edge.fleet.keys import KeyRing
from edge.fleet.rollout.gallery import Arrival, Wanted, as_reported
from edge.fleet.status import RoleStatus, ScopeStatus


def status(
    as_json: JsonOption = False,
    revoked: Annotated[bool, typer.Option("--revoked", help="Show who is revoked.")] = False,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="With --revoked: show which doors at its broker lack a removal."),
    ] = None,
    fleet: FleetOption = HERE,
) -> None:
    """Show the scopes, the versions published for them, and when signatures expire. Needs no key."""
    opened = open_fleet(fleet, KeyRing(fleet / "keys"), SystemClock())
    scopes, roles = opened.status(), opened.roles()
    doors = _doors(load_settings(config_file), scopes) if revoked and config_file is not None else None
    if as_json:
        document = {
            "tenant": opened.tenant,
            "revoked": list(opened.revoked) if revoked else len(opened.revoked),
            "doors": doors and {name: doors.came_to(each)[0] for name, each in doors.concerned().items()},
            "scopes": [_scope(each) for each in scopes],
            "roles": [{**asdict(each), "expires": each.expires.isoformat()} for each in roles],
        }
        typer.echo(json.dumps(document, indent=2))
        return
    _scopes(scopes, opened.tenant).print()
    _roles(roles).print()
    hint = "" if revoked or not opened.revoked else "; --revoked shows whom"
    typer.echo(f"{len(opened.revoked)} subject(s) revoked{hint}")
    for subject_id in opened.revoked if revoked else ():
        typer.echo(subject_id)
    if doors is not None and tell_arrival(doors):
        typer.echo("who was revoked may still pass where it is missing")


def _doors(settings: Settings, scopes: list[ScopeStatus]) -> Arrival:
    """Return which doors have reported that they have removed who is no longer in their scope."""
    wanted = {each.scope: Wanted(each.version, removal=True) for each in scopes if each.version}
    return as_reported(build_broker(settings.mqtt), settings.site, wanted, SystemClock())


def _scope(status: ScopeStatus) -> dict[str, Any]:
    """Return a scope's status as JSON has it; `beside` is the candidate's name in the last release."""
    told = asdict(status)
    return told | {"beside": told["candidate"]}


def _scopes(scopes: list[ScopeStatus], tenant: str) -> Listing:
    table = Listing(
        "scope",
        "version",
        "subjects",
        "groups",
        "embedder",
        "trusted until",
        "candidate",
        copied=("scope", "embedder", "candidate"),
        title=f"fleet {tenant}",
    )
    for each in scopes:
        candidate = each.candidate
        table.add_row(
            each.scope,
            str(each.version),
            str(each.count),
            ", ".join(each.groups) or "everybody",
            each.model_id or "-",
            f"{each.not_after[:16].replace('T', ' ')} UTC" if each.not_after else "-",
            f"{candidate.model_id} version {candidate.version}, {candidate.count} subject(s)"
            if candidate
            else "-",
        )
    return table


def _roles(roles: list[RoleStatus]) -> Listing:
    table = Listing("role", "version", "must agree", "keys", "expires", copied=("role", "keys"))
    for each in roles:
        expires = f"{each.expires:%Y-%m-%d %H:%M} UTC"
        agree = f"{each.threshold} of {each.keys}"
        table.add_row(each.role, str(each.version), agree, "\n".join(each.key_ids), expires)
    return table
