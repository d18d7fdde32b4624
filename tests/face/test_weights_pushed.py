"""Models that a fleet has published: what is installed works and is what its manifest says, or nothing is."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.core.errors import ModelError
from edge.face.manifest import installed_path, load_manifest, model_names, parts_of
from edge.face.weights import MANIFEST, install_pushed, load_verified

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def int8(models_dir: Path) -> Files:
    """The files of a real embedder."""
    manifest = load_manifest("sface-int8")
    return {
        MANIFEST: (manifest.directory / MANIFEST).read_bytes(),
        "golden.json": manifest.golden_path.read_bytes(),
        manifest.file: load_verified(manifest, models_dir),
    }


def renamed(files: Files, name: str = "door-net", **changes: tuple[str, str]) -> Files:
    """Return the same model under a name that this software does not know."""
    text = files[MANIFEST].decode().replace('name = "sface-int8"', f'name = "{name}"')
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return {**files, MANIFEST: text.encode()}


def test_an_unknown_model_is_known_and_usable_afterwards(int8: Files, tmp_path: Path):
    files = renamed(int8)
    manifest = install_pushed("door-net", files.__getitem__, tmp_path)
    assert manifest.model_id == f"door-net@{manifest.sha256[:8]}"
    assert "door-net" in model_names(tmp_path)
    assert "door-net" not in model_names()
    assert hashlib.sha256(load_verified(manifest, tmp_path)).hexdigest() == manifest.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["door-net"], "nothing is left over"
    assert install_pushed("door-net", files.__getitem__, tmp_path) == manifest, "twice is once"


def test_a_known_model_gets_its_weights_only(int8: Files, tmp_path: Path):
    asked = []

    def fetch(file: str) -> bytes:
        asked.append(file)
        return int8[file]

    manifest = install_pushed("sface-int8", fetch, tmp_path)
    assert asked == [manifest.file], "its manifest came with the package and is believed"
    assert installed_path(manifest, tmp_path) == tmp_path / manifest.file
    assert load_verified(manifest, tmp_path) == int8[manifest.file]


def test_weights_that_are_here_already_are_not_fetched(int8: Files, tmp_path: Path):
    first = install_pushed("sface-int8", int8.__getitem__, tmp_path)
    asked = []

    def fetch(file: str) -> bytes:
        asked.append(file)
        return renamed(int8)[file]

    other = install_pushed("door-net", fetch, tmp_path)
    assert asked == [MANIFEST, "golden.json"]
    assert load_verified(other, tmp_path) == load_verified(first, tmp_path)
    installed_path(first, tmp_path).write_bytes(b"damaged")
    installed_path(other, tmp_path).write_bytes(b"damaged")
    asked.clear()
    install_pushed("sface-int8", fetch, tmp_path)
    assert asked == [first.file], "only what is whole counts"


def test_an_interrupted_installation_is_made_good(int8: Files, tmp_path: Path):
    files = renamed(int8)
    (tmp_path / "door-net").mkdir()
    (tmp_path / "door-net" / "golden.json").write_text("half")
    assert "door-net" not in model_names(tmp_path)
    assert install_pushed("door-net", files.__getitem__, tmp_path).name == "door-net"


def other_name(files: Files) -> Files:
    return {**files, MANIFEST: files[MANIFEST].replace(b'name = "door-net"', b'name = "other"')}


WEIGHTS = load_manifest("sface-int8").file


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda f: f | {WEIGHTS: f[WEIGHTS][:-1]}, "not the pinned file", id="truncated"),
        pytest.param(
            lambda f: f | {WEIGHTS: b"\0" * len(f[WEIGHTS])}, "not the pinned file", id="other weights"
        ),
        pytest.param(lambda f: f | {"golden.json": b"{}"}, "golden", id="golden without a vector"),
        pytest.param(lambda f: f | {MANIFEST: b"name = "}, "not valid TOML", id="no manifest"),
        pytest.param(lambda f: other_name(f), "must be that of its directory", id="another name"),
        pytest.param(
            lambda f: renamed(f, file=(f'file = "{WEIGHTS}"', 'file = "../x"')), "file", id="file is a path"
        ),
        pytest.param(
            lambda f: renamed(f, kind=('kind = "embedder"', 'kind = "detector"')), "embedders", id="detector"
        ),
        pytest.param(
            lambda f: f | {MANIFEST: renamed(f)[MANIFEST].split(b"[calibration]")[0]}, "calibrated", id="raw"
        ),
    ],
)
def test_what_is_not_as_it_should_be_leaves_nothing(
    int8: Files, tmp_path: Path, change: Callable[[Files], Files], says: str
):
    files = change(renamed(int8))
    with pytest.raises(ModelError, match=says):
        install_pushed("door-net", files.__getitem__, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_are_never_replaced_under_the_same_name(int8: Files, tmp_path: Path):
    install_pushed("door-net", renamed(int8).__getitem__, tmp_path)
    other = renamed(int8, licence=("licence = ", "# \nlicence = "))
    with pytest.raises(ModelError, match="new name"):
        install_pushed("door-net", other.__getitem__, tmp_path)


def test_a_read_only_directory_is_one_line(int8: Files, tmp_path: Path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(ModelError, match="cannot be written"):
        install_pushed("door-net", renamed(int8).__getitem__, tmp_path / "models")


def test_a_pair_gets_the_weights_of_both_its_parts(recommended_dir: Path, tmp_path: Path):
    parts = parts_of(load_manifest("sface-0095"))
    files = {part.file: load_verified(part, recommended_dir) for part in parts}
    manifest = install_pushed("sface-0095", files.__getitem__, tmp_path)
    assert manifest.name == "sface-0095"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    damaged = {**files, parts[1].file: files[parts[1].file][::-1]}
    with pytest.raises(ModelError, match=r"omz-0095-int8.* is not the pinned file"):
        install_pushed("sface-0095", damaged.__getitem__, tmp_path / "other")
    assert not [path for path in (tmp_path / "other").iterdir() if path.suffix == ".onnx"]


def test_a_pair_that_this_release_does_not_know_is_refused(tmp_path: Path):
    shipped = load_manifest("sface-0095")
    text = (shipped.directory / MANIFEST).read_text().replace('"sface-0095"', '"other-pair"')
    with pytest.raises(ModelError, match="other-pair: a pair that this release does not know"):
        install_pushed("other-pair", {MANIFEST: text.encode()}.__getitem__, tmp_path)
