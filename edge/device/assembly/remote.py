"""Builds the remote gallery as the settings say: client, secret rotation, and who asks it when."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from edge.core import files
from edge.core.clock import Clock
from edge.core.errors import ConfigError, FileError, RemoteGalleryError
from edge.device.assembly.stores import erased_here
from edge.device.settings.load import Settings, credential_path
from edge.gallery.gallery import Gallery
from edge.gallery.remote.question import RemoteGallery
from edge.gallery.remote.rotation import Rotation
from edge.gallery.remote.signed_rows import RowSigner

MAX_API_KEY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Remote:
    """The configured server's client, and what a site's secret makes of what is exchanged with it."""

    client: Any
    rotation: Rotation
    signer: RowSigner


def build_remote(settings: Settings, gallery: Gallery, dim: int, clock: Clock) -> RemoteGallery | None:
    """Return what asks the remote gallery about probes of the embedder of `gallery`; None: nobody is asked.

    Nothing is sent before the first question.

    Raises:
        ConfigError: The address, the secret or the API key cannot be used, or the extra is not installed.
    """
    values = settings.remote
    if values.policy == "off":
        return None
    remote = connect_remote(settings, dim)
    from edge.gallery.remote.qdrant import QdrantMatcher

    timeout_s = values.timeout_ms / 1e3
    matcher = QdrantMatcher(
        remote.client,
        values.collection,
        gallery,
        remote.rotation,
        remote.signer,
        groups=settings.access.groups,
        timeout_s=timeout_s,
    )
    stack = ExitStack()
    stack.callback(remote.client.close)
    stack.callback(matcher.close)
    return RemoteGallery(
        matcher,
        erased_here(settings),
        timeout_s=timeout_s,
        clock=clock.monotonic,
        on_close=stack.close,
    )


def connect_remote(settings: Settings, dim: int) -> Remote:
    """Return the configured server, for embeddings of length `dim`.

    Raises:
        ConfigError: As `build_remote`.
    """
    values = settings.remote
    if values.url is None or values.secret is None:
        raise ConfigError("remote: url and secret are not set")
    try:
        from edge.gallery.remote.qdrant import connect
    except ImportError:
        raise ConfigError("remote: install the extra `remote` to ask a Qdrant server") from None
    try:
        secret = files.read_key(credential_path(values.secret), "bring the site's secret to it")
        api_key = None
        if values.api_key_file is not None:
            data = files.read_bounded(credential_path(values.api_key_file), MAX_API_KEY_BYTES)
            if not data:
                raise FileError(f"{values.api_key_file}: holds no API key")
            api_key = data.decode(errors="replace").strip()
        client = connect(values.url, api_key=api_key)
        return Remote(client, Rotation(secret, dim), RowSigner(secret, values.collection))
    except (FileError, RemoteGalleryError) as error:
        raise ConfigError(f"remote: {error}") from None


def upload_gallery(settings: Settings, gallery: Gallery, own_shifts: Mapping[str, float]) -> None:
    """Make the remote collection hold exactly this gallery, with the shifts of its subjects.

    Raises:
        ConfigError, RemoteGalleryError: It cannot be reached, or refuses it.
    """
    remote = connect_remote(settings, gallery.dim)
    from edge.gallery.remote.qdrant import upload

    try:
        collection = settings.remote.collection
        upload(remote.client, collection, gallery, remote.rotation, remote.signer, own_shifts)
    finally:
        remote.client.close()
