"""What `edge sync` does: fetch the gallery that is published for this device, as its settings say.

Runs as a child of the daemon or by a timer: loads neither the inference engine nor the daemon, unless a model
is installed that came with the gallery.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from edge.core import files
from edge.core.clock import Clock
from edge.core.errors import ConfigError, EdgeError, FileError
from edge.device.assembly.stores import candidate_store, gallery_store
from edge.device.assembly.time import device_clock
from edge.device.settings.load import Settings, credential_path
from edge.device.sync.outcome import SyncOutcome, refusal, save_outcome
from edge.device.sync.sync import Sync, SyncSource
from edge.device.upkeep.removal import forget_departed
from edge.face.manifest import AUTO, embedding_dim, usable_embedders
from edge.gallery.alike.doctor import self_test
from edge.gallery.format.seal import MAX_KEYS

log = logging.getLogger(__name__)

SEALING_ADVICE = "copy it from the operator's keys/sealing directory"

MAX_ROOT_BYTES = 256 * 1024
"""More than ten times what the root of a fleet with many keys has."""


def synchronise(settings: Settings, clock: Clock) -> tuple[SyncOutcome, EdgeError | None]:
    """Synchronise the device that these settings describe, and leave the daemon a note of what it came to.

    Returns:
        What it came to, and why where it is refused: then what was in force still is.
    """
    why: EdgeError | None
    try:
        outcome, why = _synchronise(settings, clock)
    except EdgeError as error:
        outcome, why = refusal(error), error
    outcome = replace(outcome, at=clock.now(), scope=settings.sync_scope)
    _leave(settings, outcome)
    return outcome, why


def _leave(settings: Settings, outcome: SyncOutcome) -> None:
    """Let a running daemon know what came of it, whoever started this."""
    if settings.sync.url is None:
        return
    try:
        files.make_private_directory(settings.sync_path)
        save_outcome(settings.sync_path, outcome)
    except FileError as error:
        log.warning("what came of this cannot be left for the daemon: %s", error)


def _synchronise(settings: Settings, clock: Clock) -> tuple[SyncOutcome, EdgeError | None]:
    """Synchronise; as `synchronise` where a gallery was refused whose rights were followed.

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
        keys = files.read_keys(credential_path(values.sealing_key), MAX_KEYS, SEALING_ADVICE)
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
    sync = Sync(
        source,
        gallery_store(settings),
        settings.sync_path,
        usable_embedders(settings.recognition.embedder, settings.models_path),
        clock,
        self_test,
        built_at=device_clock(settings, clock).least(),
        adopt=partial(_adopt, settings) if auto else None,
        candidate=candidate_store(settings) if auto else None,
    )
    try:
        outcome = sync.synchronise()
    except EdgeError as error:
        if sync.rights is None:
            raise
        problems = [str(error), *forget_departed(settings, clock.now())]
        return replace(refusal(error), rights=sync.rights, error="; ".join(problems)), error
    problems = [*([outcome.error] if outcome.error else []), *forget_departed(settings, clock.now())]
    return replace(outcome, error="; ".join(problems) or None), None


def _adopt(settings: Settings, name: str, fetch: Callable[[str], bytes]) -> tuple[str, int]:
    from edge.face.weights import install_pushed  # loads the inference engine

    manifest = install_pushed(name, fetch, settings.models_path, threads=settings.recognition.threads)
    return manifest.model_id, embedding_dim(manifest)
