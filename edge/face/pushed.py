"""Install a model that a fleet has published: its weights, and its manifest where there is none of it here.

Where the files come from and who signed them is the caller's business; here they are held against the
manifest, and the model has to compute what it should first. Nothing that is installed is replaced.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.core import files as safefile
from edge.core.errors import ModelError
from edge.face import manifest as manifests
from edge.face.manifest import Manifest
from edge.face.session import Session, self_test
from edge.face.weights import installed_path, load_verified

MANIFEST = "manifest.toml"

Fetch = Callable[[str], bytes]
"""Returns a file of the model by its name."""


def install_pushed(name: str, fetch: Fetch, models_dir: Path, *, threads: int = 1) -> Manifest:
    """Return the manifest of the embedder `name`, which can be used from now on.

    Raises:
        ModelError: It is no embedder, not calibrated, not what its manifest says, computes something else
            than it should, another model of its name is here already, or it cannot be written.
    """
    try:
        if name in manifests.names():
            return _weights_of(manifests.load(name), fetch, models_dir, threads)
        return _whole(name, fetch, models_dir, threads)
    except OSError as error:
        raise ModelError(f"{models_dir}: the model {name} cannot be written: {error.strerror}") from None


def _weights_of(manifest: Manifest, fetch: Fetch, models_dir: Path, threads: int) -> Manifest:
    """Install the weights of a model that this software knows."""
    with _workshop(models_dir) as part:
        (part / manifest.file).write_bytes(fetch(manifest.file))
        _check(manifest, part, threads)
        safefile.write_whole(
            installed_path(manifest, models_dir), (part / manifest.file).read_bytes(), safefile.PUBLIC
        )
    return manifest


def _whole(name: str, fetch: Fetch, models_dir: Path, threads: int) -> Manifest:
    """Install a model of which this software knows nothing; the manifest comes last and makes it known."""
    text = fetch(MANIFEST)
    home = models_dir / name
    if (home / MANIFEST).exists():
        if (home / MANIFEST).read_bytes() != text:
            raise ModelError(f"another model named {name} is here already; publish it under a new name")
        return manifests.load(name, models_dir)
    with _workshop(models_dir) as workshop:
        part = workshop / name
        part.mkdir()
        (part / MANIFEST).write_bytes(text)
        manifest = manifests.read(part / MANIFEST)
        files = [file for file in (manifest.golden, manifest.file) if file is not None]
        for file in files:
            (part / file).write_bytes(fetch(file))
        _check(manifest, workshop, threads)
        home.mkdir(exist_ok=True)
        for file in (*files, MANIFEST):
            safefile.write_whole(home / file, (part / file).read_bytes(), safefile.PUBLIC)
    return manifests.load(name, models_dir)


@contextmanager
def _workshop(models_dir: Path) -> Iterator[Path]:
    models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=models_dir) as directory:
        yield Path(directory)


def _check(manifest: Manifest, models_dir: Path, threads: int) -> None:
    if manifest.kind != "embedder" or manifest.calibration is None:
        raise ModelError(f"{manifest.name}: is no calibrated embedder, which is what a fleet may push")
    session = Session.of(manifest, load_verified(manifest, models_dir), threads=threads)
    self_test(session, manifest)
