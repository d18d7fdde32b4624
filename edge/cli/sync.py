"""The command that a device fetches its gallery with: started by a timer, by the daemon, or by hand."""

import logging
from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from edge.cli.options import ConfigOption, load_settings
from edge.core import files
from edge.core.clock import SystemClock
from edge.core.errors import ConfigError, EdgeError, FileError
from edge.device.assembly.recognizer import embedding_dim
from edge.device.assembly.stores import candidate_store, gallery_store
from edge.device.removal import forget_departed
from edge.device.settings.load import Settings, credential_path
from edge.device.sync.outcome import SyncOutcome, refusal, save_outcome
from edge.device.sync.sync import Sync, SyncSource
from edge.face import manifest as manifests
from edge.face.choice import AUTO
from edge.face.weights import Fetch, install_pushed, installed_path
from edge.gallery.doctor import self_test
from edge.gallery.format.seal import MAX_KEYS

log = logging.getLogger(__name__)

MAX_ROOT_BYTES = 256 * 1024


def sync(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document, also when it is refused.")
    ] = False,
    config_file: ConfigOption = None,
) -> None:
    """Fetch the gallery that is published for this door; a running daemon follows at once.

    Exits 0 when the published gallery serves, 1 when it is refused or cannot be had: the last one serves on.
    """
    now = SystemClock().now
    try:
        settings = load_settings(config_file)
    except EdgeError as error:
        if as_json:
            typer.echo(refusal(error, now()).to_json())
        raise
    scope = settings.sync_scope
    try:
        outcome = replace(synchronise(settings), at=now(), scope=scope)
    except EdgeError as error:
        outcome = refusal(error, now(), scope)
        _leave(settings, outcome)
        if as_json:
            typer.echo(outcome.to_json())
        raise
    _leave(settings, outcome)
    if as_json:
        typer.echo(outcome.to_json())
        return
    what = "installed" if outcome.status == "updated" else "serves already"
    typer.echo(f"gallery version {outcome.version} with {outcome.count} subject(s) {what}")
    if outcome.error is not None:
        typer.echo(f"error: {outcome.error}", err=True)


def _leave(settings: Settings, outcome: SyncOutcome) -> None:
    """Let a running daemon know what came of it, whoever started this."""
    if settings.sync.url is None:
        return
    try:
        files.make_private_directory(settings.sync_path)
        save_outcome(settings.sync_path, outcome)
    except FileError as error:
        log.warning("what came of this cannot be left for the daemon: %s", error)


def synchronise(settings: Settings) -> SyncOutcome:
    """Synchronise the device that these settings describe.

    Raises:
        ConfigError: There is nothing to synchronise with, or a file that belongs to it is missing.
        GalleryError: It is refused; what was in force still is.
    """
    values = settings.sync
    if values.url is None or values.trusted_root is None or values.sealing_key is None:
        raise ConfigError("sync.url: not set; this device has a gallery of its own, see `edge enroll`")
    try:
        root = files.read_bounded(values.trusted_root, MAX_ROOT_BYTES)
        if root is None:
            raise FileError(
                f"{values.trusted_root}: it is not there; copy the fleet's newest root.json to it"
            )
        keys = files.read_keys(credential_path(values.sealing_key), MAX_KEYS)
    except FileError as error:
        raise ConfigError(f"sync: {error}") from None
    source = SyncSource(
        values.url,
        values.tenant or settings.site,
        settings.sync_scope,
        root,
        keys,
        timeout_s=values.timeout_s,
    )
    auto = settings.recognition.embedder == AUTO
    outcome = Sync(
        source,
        gallery_store(settings),
        settings.sync_path,
        _embedders(settings),
        SystemClock(),
        self_test,
        adopt=partial(_adopt, settings) if auto else None,
        candidate=candidate_store(settings) if auto else None,
    ).synchronise()
    problems = [*([outcome.error] if outcome.error else []), *forget_departed(settings, SystemClock().now())]
    return replace(outcome, error="; ".join(problems) or None)


def _embedders(settings: Settings) -> dict[str, int]:
    """Return model id and dimension of what this device may embed with, and could now."""
    directory, chosen = settings.models_path, settings.recognition.embedder
    if chosen != AUTO:
        manifest = manifests.load(chosen, directory)
        return {manifest.model_id: embedding_dim(manifest)}
    known = [manifests.load(name, directory) for name in manifests.names(directory)]
    usable = [each for each in known if each.kind == "embedder" and installed_path(each, directory).is_file()]
    return {each.model_id: embedding_dim(each) for each in usable}


def _adopt(settings: Settings, name: str, fetch: Fetch) -> tuple[str, int]:
    manifest = install_pushed(name, fetch, settings.models_path, threads=settings.recognition.threads)
    return manifest.model_id, embedding_dim(manifest)
