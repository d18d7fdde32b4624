"""Commands of whoever runs a fleet of doors: init, scope, publish, revoke, renew, rotate-key, status."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edge import safefile
from edge.cli.migrate import beside_gallery, gallery_in_force, reembed_gallery
from edge.cli.operate import ConfigOption, load_settings
from edge.clock import SystemClock
from edge.errors import ConfigError
from edge.face import manifest as manifests
from edge.face.weights import load_verified
from edge.fleet.authoring import Fleet, init_fleet, open_fleet
from edge.fleet.config import PLANS
from edge.fleet.keyring import KeyRing
from edge.fleet.reports import Published
from edge.fleet.repository import RolePlan

app = typer.Typer(
    help="Galleries for many doors: signed, sealed for each scope, published as files.", no_args_is_help=True
)

LOCK_TIMEOUT_S = 10.0
MAX_PASSPHRASE_BYTES = 1024

FleetOption = Annotated[Path, typer.Option("--fleet", help="Directory of the fleet.")]
KeysOption = Annotated[
    Path | None, typer.Option("--keys", help="Directory of its keys; FLEET/keys when unset.")
]
PassphraseOption = Annotated[
    Path | None, typer.Option("--passphrase-file", help="Its first line encrypts the signing keys.")
]
HERE = Path("fleet")


@app.command()
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
    fleet: FleetOption = HERE,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Make a fleet: its keys, its scopes, and an empty directory to publish."""
    plans = {
        "root": RolePlan(root_keys, root_threshold, PLANS["root"].days),
        "scope": RolePlan(scope_keys, scope_threshold, PLANS["scope"].days),
        "snapshot": RolePlan(1, 1, online_days),
        "timestamp": RolePlan(1, 1, online_days),
    }
    ring = _ring(fleet, keys, passphrase_file)
    made = init_fleet(fleet, ring, tenant, SystemClock(), plans)
    for name in scope or ():
        made.add_scope(name)
    root = f"{made.published}/metadata/{made.repository.root().signed.version}.root.json"
    typer.echo(
        f"fleet {tenant} with {len(made.scopes())} scope(s): publish {made.published} with any web server\n"
        f"keep {ring.directory}/offline apart from any network; run `edge fleet renew` every day\n"
        f"a device needs {root} and its scope's key in {ring.directory}/sealing"
    )


@app.command("scope")
def add_scope(
    name: Annotated[str, typer.Argument(help="A door, or doors alike: a-z, 0-9 and -.")],
    fleet: FleetOption = HERE,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Add a scope; its devices need its sealing key."""
    with _opened(fleet, keys, passphrase_file) as opened:
        opened.add_scope(name)
    typer.echo(f"scope {name}: publish its gallery with `edge fleet publish {name}`")


@app.command()
def publish(
    scope: Annotated[str | None, typer.Argument(help="Scope to publish this device's gallery for.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Only subjects of this group; several times.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Publish this installed model as well.")] = None,
    valid_days: Annotated[
        float | None, typer.Option(min=0, help="Days after which doors trust it no more; forever when unset.")
    ] = None,
    beside: Annotated[
        bool, typer.Option(help="Publish what `edge fleet reembed` made, to be tried and switched to.")
    ] = False,
    allow_empty: Annotated[bool, typer.Option(help="Lock everybody out.")] = False,
    fleet: FleetOption = HERE,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Publish the gallery that was enrolled here (`edge enroll`) for a scope, or a model, or both."""
    if scope is None and model is None:
        raise typer.BadParameter("name a scope, or a --model, or both")
    settings = load_settings(config_file)
    with _opened(fleet, keys, passphrase_file) as opened:
        if model is not None:
            manifest = manifests.load(model, settings.models_path)
            files = {path.name: path.read_bytes() for path in manifest.directory.iterdir() if path.is_file()}
            opened.publish_model(
                model, {**files, manifest.file: load_verified(manifest, settings.models_path)}
            )
            typer.echo(f"model {model}: published with {len(files)} file(s) and its weights")
        if scope is not None:
            gallery, manifest = beside_gallery(settings) if beside else gallery_in_force(settings)
            if group:
                wanted = set(group)
                gallery = gallery.without_subjects(
                    {each.subject_id for each in gallery.subjects if wanted.isdisjoint(each.groups)}
                )
            if valid_days is not None:
                gallery = replace(gallery, not_after=SystemClock().now() + timedelta(days=valid_days))
            _tell(
                opened.publish_gallery(
                    scope, gallery, model=manifest.name, beside=beside, allow_empty=allow_empty
                )
            )


@app.command()
def switch(
    scope: Annotated[str, typer.Argument(help="Scope whose gallery and the one beside it change places.")],
    drop: Annotated[
        bool, typer.Option(help="Instead, withdraw the one beside: there is no way back then.")
    ] = False,
    fleet: FleetOption = HERE,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Move the doors of a scope to the gallery beside theirs, model and threshold with it; again: back."""
    with _opened(fleet, keys, passphrase_file) as opened:
        if drop:
            opened.drop_beside(scope)
            typer.echo(f"scope {scope}: nothing lies beside its gallery any more")
            return
        _tell(opened.switch(scope))


@app.command()
def reembed(
    photos: Annotated[Path, typer.Option(help="Each subject a photo, or a folder of them, of its id.")],
    model: Annotated[str, typer.Option(help="The embedder to move to; see `edge models list`.")],
    processes: Annotated[int, typer.Option(min=1, help="Processes that embed.")] = os.cpu_count() or 1,
    report: Annotated[Path | None, typer.Option(help="Write what became of each to this CSV file.")] = None,
    config_file: ConfigOption = None,
) -> None:
    """Embed everybody who is enrolled here anew, beside the gallery in force, which stays as it is.

    Run it again to go on where it stopped. Exits 1 if somebody could not be embedded: find better photos and
    run it again, or enrol these by hand after the switch.
    """
    raise typer.Exit(reembed_gallery(load_settings(config_file), photos, model, processes, report))


@app.command()
def revoke(
    subject: Annotated[str, typer.Argument(help="Opaque id of the subject.")],
    undo: Annotated[bool, typer.Option(help="Let the subject be published again.")] = False,
    fleet: FleetOption = HERE,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Take a subject out of every scope, and keep it out of what is published later."""
    with _opened(fleet, keys, passphrase_file) as opened:
        if undo:
            opened.reinstate(subject)
            typer.echo(f"{subject} may be published again; publish the scopes it belongs to")
            return
        for published in opened.revoke(subject):
            _tell(published)
    typer.echo(f"{subject} is revoked")


@app.command()
def renew(
    fleet: FleetOption = HERE, keys: KeysOption = None, passphrase_file: PassphraseOption = None
) -> None:
    """Sign again what would expire; needs the online keys only. To be run every day."""
    with _opened(fleet, keys, passphrase_file) as opened:
        typer.echo(f"renewed: {', '.join(opened.repository.renew())}")


@app.command("rotate-key")
def rotate_key(
    role: Annotated[str, typer.Argument(help="root, targets, snapshot, timestamp, models or scope-NAME.")],
    fleet: FleetOption = HERE,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Replace the oldest key of a role by a new one; devices follow by themselves."""
    with _opened(fleet, keys, passphrase_file) as opened:
        opened.rotate_key(role)
    typer.echo(f"{role}: its oldest key is trusted no more; destroy it")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    fleet: FleetOption = HERE,
) -> None:
    """Show the scopes, the versions published for them, and when signatures expire. Needs no key."""
    opened = open_fleet(fleet, KeyRing(fleet / "keys"), SystemClock())
    scopes, roles = opened.status(), opened.roles()
    if as_json:
        document = {
            "tenant": opened.tenant,
            "revoked": len(opened.revoked),
            "scopes": [asdict(each) for each in scopes],
            "roles": [{**asdict(each), "expires": each.expires.isoformat()} for each in roles],
        }
        typer.echo(json.dumps(document, indent=2))
        return
    console = Console(markup=False, emoji=False)
    table = Table("scope", "version", "subjects", "embedder", title=f"fleet {opened.tenant}")
    for each in scopes:
        table.add_row(each.scope, str(each.version), str(each.count), each.model_id or "-")
    console.print(table)
    table = Table("role", "version", "keys", "must agree", "expires")
    for role in roles:
        expires = f"{role.expires:%Y-%m-%d %H:%M} UTC"
        table.add_row(role.role, str(role.version), str(role.keys), str(role.threshold), expires)
    console.print(table)


@contextmanager
def _opened(fleet: Path, keys: Path | None, passphrase_file: Path | None) -> Iterator[Fleet]:
    """Open the fleet for a change that nobody else makes at the same time."""
    opened = open_fleet(fleet, _ring(fleet, keys, passphrase_file), SystemClock())
    with safefile.sole_user(opened.lock_path, LOCK_TIMEOUT_S, SystemClock().monotonic):
        yield open_fleet(fleet, _ring(fleet, keys, passphrase_file), SystemClock())


def _ring(fleet: Path, keys: Path | None, passphrase_file: Path | None) -> KeyRing:
    passphrase = None
    if passphrase_file is not None:
        data = safefile.read_bounded(passphrase_file, MAX_PASSPHRASE_BYTES) or b""
        passphrase = data.decode(errors="replace").split("\n")[0]
        if not passphrase:
            raise ConfigError(f"{passphrase_file}: holds no passphrase; write it into the first line")
    return KeyRing(keys or fleet / "keys", passphrase)


def _tell(published: Published) -> None:
    change = f", difference {published.delta_bytes} bytes" if published.delta_bytes else ""
    left_out = f"; {published.excluded} revoked left out" if published.excluded else ""
    typer.echo(
        f"scope {published.scope}: version {published.version} with {published.count} subject(s), "
        f"{published.bytes} bytes{change}{left_out}"
    )
