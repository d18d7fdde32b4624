"""Builds the remote gallery as the settings say: client, secret rotation, and who asks it when."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from edge.core import files
from edge.core.clock import Clock
from edge.core.download import Progress
from edge.core.errors import ConfigError, FileError, RemoteGalleryError
from edge.device.assembly.stores import erased_here
from edge.device.settings.load import Settings, credential_path
from edge.gallery.gallery import Gallery
from edge.gallery.remote.engine_matcher import EngineMatcher, RemoteEngine, upload
from edge.gallery.remote.question import RemoteGallery
from edge.gallery.remote.rotation import Rotation
from edge.gallery.remote.signed_rows import RowSigner

MAX_API_KEY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Remote:
    """The configured engine, and what a site's secret makes of what is exchanged with it."""

    engine: RemoteEngine
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
    timeout_s = values.timeout_ms / 1e3
    matcher = EngineMatcher(
        remote.engine,
        gallery,
        remote.rotation,
        remote.signer,
        groups=settings.access.groups,
        timeout_s=timeout_s,
    )
    stack = ExitStack()
    stack.callback(remote.engine.close)
    stack.callback(matcher.close)
    return RemoteGallery(
        matcher,
        erased_here(settings),
        timeout_s=timeout_s,
        clock=clock.monotonic,
        on_close=stack.close,
    )


def connect_remote(settings: Settings, dim: int) -> Remote:
    """Return the configured engine, for embeddings of length `dim`.

    Raises:
        ConfigError: As `build_remote`.
    """
    values = settings.remote
    if values.url is None or values.secret is None:
        raise ConfigError("remote: url and secret are not set")
    try:
        secret = files.read_key(credential_path(values.secret), "bring the site's secret to it")
        password = None
        if values.api_key_file is not None:
            data = files.read_bounded(credential_path(values.api_key_file), MAX_API_KEY_BYTES)
            if not data:
                raise FileError(f"{values.api_key_file}: holds no API key")
            password = data.decode(errors="replace").strip()
        engine = _engine(values.url, values.collection, password)
        return Remote(engine, Rotation(secret, dim), RowSigner(secret, values.collection))
    except (FileError, RemoteGalleryError) as error:
        raise ConfigError(f"remote: {error}") from None


def _engine(url: str, collection: str, password: str | None) -> RemoteEngine:
    try:
        if url.startswith(("postgresql://", "postgres://")):
            from edge.gallery.remote.pgvector import PgvectorEngine

            return PgvectorEngine.at(url, collection, password=password)
        from edge.gallery.remote.qdrant import QdrantEngine

        return QdrantEngine.at(url, collection, api_key=password)
    except ImportError as error:
        extra = "postgres" if error.name == "psycopg" else "remote"
        raise ConfigError(f"remote: install the extra `{extra}` to ask {url.split(':')[0]}") from None


def upload_gallery(
    settings: Settings, gallery: Gallery, own_shifts: Mapping[str, float], step: Progress
) -> None:
    """Make the engine hold exactly this gallery, with the shifts of its subjects.

    Raises:
        ConfigError, RemoteGalleryError: It cannot be reached, or refuses it.
    """
    remote = connect_remote(settings, gallery.dim)
    try:
        upload(remote.engine, gallery, remote.rotation, remote.signer, own_shifts, step)
    finally:
        remote.engine.close()
