"""Commands of whoever runs a fleet of doors: `edge fleet`; those that make and renew it stand here."""

from typing import Annotated

import typer

from edge.cli.fleet.devices import command, command_key, enroll_device, enroll_user, forget
from edge.cli.fleet.publish import opened_fleet, publish, reembed, revoke, switch, tell
from edge.cli.fleet.status import status
from edge.cli.options import FleetOptions, with_option_groups
from edge.core.clock import SystemClock
from edge.core.errors import UsageError
from edge.fleet.fleet import init_fleet
from edge.fleet.keys import key_ring
from edge.fleet.plan import PLANS
from edge.fleet.repository import RolePlan

app = typer.Typer(
    help="Galleries for many doors: signed, sealed for each scope, published as files.", no_args_is_help=True
)

SEALING = "sealing-"


@app.command()
@with_option_groups
def init(
    tenant: Annotated[str, typer.Argument(help="Whose fleet it is: a-z, 0-9 and -.")],
    scope: Annotated[list[str] | None, typer.Option(help="A door, or doors alike; several times.")] = None,
    root_keys: Annotated[int, typer.Option(help="Root keys to make.")] = PLANS["root"].keys,
    root_threshold: Annotated[int, typer.Option(help="Root keys that must agree.")] = PLANS["root"].threshold,
    scope_keys: Annotated[int, typer.Option(help="Keys to make for each scope.")] = PLANS["scope"].keys,
    scope_threshold: Annotated[int, typer.Option(help="Keys of a scope that must agree.")] = PLANS[
        "scope"
    ].threshold,
    online_days: Annotated[
        int, typer.Option(help="Days after which a device notices that updates are held back.")
    ] = PLANS["timestamp"].days,
    *,
    options: FleetOptions,
) -> None:
    """Make a fleet: its keys, its scopes, and an empty directory to publish."""
    plans = {
        "root": RolePlan(root_keys, root_threshold, PLANS["root"].days),
        "scope": RolePlan(scope_keys, scope_threshold, PLANS["scope"].days),
        "snapshot": RolePlan(1, 1, online_days),
        "timestamp": RolePlan(1, 1, online_days),
    }
    ring = key_ring(options.directory, options.passphrase_file)
    made = init_fleet(options.fleet, ring, tenant, SystemClock(), plans, scope or ())
    root = f"{made.published}/metadata/{made.repository.root().signed.version}.root.json"
    typer.echo(
        f"fleet {tenant} with {len(made.scopes())} scope(s): publish {made.published} with any web server\n"
        f"keep {ring.directory}/offline apart from any network; run `edge fleet renew` every day\n"
        f"a device needs {root} and its scope's key in {ring.directory}/sealing"
    )


@app.command("scope")
@with_option_groups
def add_scope(
    name: Annotated[str, typer.Argument(help="A door, or doors alike: a-z, 0-9 and -.")],
    *,
    options: FleetOptions,
) -> None:
    """Add a scope; its devices need its sealing key."""
    with opened_fleet(options) as opened:
        opened.add_scope(name)
    typer.echo(f"scope {name}: publish its gallery with `edge fleet publish {name}`")


@app.command()
@with_option_groups
def renew(*, options: FleetOptions) -> None:
    """Sign again what would expire; needs the online keys only. To be run every day."""
    with opened_fleet(options) as opened:
        typer.echo(f"renewed: {', '.join(opened.repository.renew())}")


@app.command("rotate-key")
@with_option_groups
def rotate_key(
    role: Annotated[
        str,
        typer.Argument(
            help="root, targets, snapshot, timestamp, models, scope-NAME (it signs), sealing-NAME (it seals)."
        ),
    ],
    prepare: Annotated[
        bool, typer.Option(help="sealing-NAME: only make the new key, so that doors have it before its use.")
    ] = False,
    *,
    options: FleetOptions,
) -> None:
    """Replace the oldest key of a role by a new one; devices follow by themselves.

    Only a sealing key has to be brought to the doors of its scope: until then they keep what they have.
    """
    scope = role.removeprefix(SEALING) if role.startswith(SEALING) else None
    if prepare and scope is None:
        raise UsageError(f"--prepare: {role} has no key that doors need; it is for {SEALING}NAME")
    with opened_fleet(options) as opened:
        if scope is None:
            typer.echo(f"{role}: its oldest key is trusted no more; destroy {opened.rotate_key(role)}")
            return
        published = opened.rotate_sealing(scope, prepare=prepare)
        path = opened.sealing_path(scope)
    if prepare:
        typer.echo(
            f"scope {scope}: bring {path} to its doors; with it they open what is sealed with either key. "
            f"Then put the new one in use: edge fleet rotate-key {role}"
        )
        return
    if published is not None:
        tell(published)
    typer.echo(
        f"scope {scope}: sealed with a new key; bring {path} to its doors. One that has not got it refuses "
        "what is published and keeps its last gallery"
    )


for each in (
    publish,
    switch,
    reembed,
    revoke,
    status,
    enroll_device,
    enroll_user,
    command_key,
    command,
    forget,
):
    app.command(each.__name__.replace("_", "-"))(each)
