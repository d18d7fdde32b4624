"""`edge models fetch --recommended` and `edge models list`: what can be had, and what cannot is told."""

import shutil
from pathlib import Path

import pytest

from edge.face.manifest import load_manifest, recommended_models
from tests.support.command_line import edge
from tests.support.weights import WEIGHTS

LOST = "a printed photo of a subject can be recognised"
CHECKPOINT = "4_0_0_80x80_MiniFASNetV1SE.pth"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device without models, whose network leads nowhere."""
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_RETRIES", "0")  # pip would try each wheel again for eight seconds
    path = tmp_path / "edge.toml"
    path.write_text(f'state_dir = "{tmp_path}/state"\nmodels_dir = "{tmp_path}/models"\n')
    return path


def fetch(config: Path, *arguments: str) -> tuple[int, str, str]:
    done = edge("models", "fetch", *arguments, "--config", str(config))
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def liveness_models() -> list[str]:
    return [name for name in recommended_models() if load_manifest(name).kind == "liveness"]


def test_what_cannot_be_had_costs_a_line_each_that_says_what_is_lost(config: Path) -> None:
    code, out, err = fetch(config, "--recommended")
    assert (code, out) == (1, "")
    for name in liveness_models():
        [line] = [line for line in err.splitlines() if line.startswith(f"{name}: ") and LOST in line]
        assert "cannot be reached" in line
        assert "set a mirror that has" in line
    listed = edge("models", "list", "--config", str(config)).stdout
    for name in liveness_models():
        assert f"{name} is missing: {LOST}; run: edge models fetch --recommended" in listed
    assert "this device recognises nobody without it; run: edge models fetch" in listed


def test_a_mirror_serves_where_its_authors_cannot_be_reached(config: Path, tmp_path: Path) -> None:
    if not WEIGHTS.is_dir():
        pytest.skip(f"no files of recommended models at {WEIGHTS}")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    shutil.copy(WEIGHTS / CHECKPOINT, mirror)
    code, out, err = fetch(config, "--recommended", "--mirror", str(mirror))
    assert code == 1
    assert "liveness-minifasnet-v1se: verified" in out
    assert any("facenox-minifas-128.onnx" in line and LOST in line for line in err.splitlines())
    shutil.copy(WEIGHTS / "facenox-minifas-128.onnx", mirror)
    (mirror / CHECKPOINT).unlink()
    code, out, _ = fetch(config, *liveness_models(), "--mirror", str(mirror))
    assert code == 0, "what is finished is not fetched again"
    assert out.count("verified") == 2
    assert fetch(config, *liveness_models())[0] == 0, "and needs neither network nor mirror"


def test_a_file_with_other_bytes_is_not_opened(config: Path, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / CHECKPOINT).write_bytes(b"cposix\nsystem\n(X\x01\x00\x00\x00atR.")
    code, _, err = fetch(config, "liveness-minifasnet-v1se", "--mirror", str(mirror))
    assert code == 78
    assert "what was offered is not the pinned file (sha256, size)" in err
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


def test_names_and_the_option_contradict_each_other(config: Path) -> None:
    code, _, err = fetch(config, "sface", "--recommended")
    assert code == 2
    assert "--recommended: it names the models itself" in err
