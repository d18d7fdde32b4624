"""deploy/install.sh: what it refuses before it changes anything, and what it says it would do."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.debian.build import host_arch
from tests.support.places import ROOT

SCRIPT = ROOT / "deploy/install.sh"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def install(*arguments: str | Path) -> tuple[int, str]:
    """Run the script with this Python as the system's; returns its exit code and what it said."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", SCRIPT, "--dry-run", *arguments], capture_output=True, text=True, env={"PATH": path}
    )
    return done.returncode, done.stdout + done.stderr


def package(directory: Path, arch: str, python: str) -> Path:
    """Build an empty package that says it is for this architecture and Python."""
    control = directory / "tree/DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(
        f"Package: edge-recognizer\nVersion: 9.9\nArchitecture: {arch}\nMaintainer: a <a@b>\n"
        f"Depends: python3 (>= {python}~), python3 (<< 3.99~)\nDescription: a door\n"
    )
    made = directory / "door.deb"
    subprocess.run(["dpkg-deb", "--build", directory / "tree", made], check=True, capture_output=True)
    return made


def test_a_package_would_be_installed_and_nothing_is(tmp_path: Path):
    made = package(tmp_path, host_arch(), PYTHON)
    code, said = install("--package", made)
    assert code == 0, said
    assert f"would run: apt-get install --yes --no-install-recommends {made}\n" in said
    assert "set camera and broker in /etc/edge/edge.toml" in said


def test_a_wheel_would_be_installed_with_what_the_lock_names(tmp_path: Path):
    wheel = tmp_path / "edge.whl"
    wheel.write_bytes(b"a wheel")
    right = hashlib.sha256(b"a wheel").hexdigest()
    code, said = install("--wheel", wheel, "--models", "/srv/m", "--onnxruntime", wheel, "--sha256", right)
    assert code == 0, said
    assert f"--require-hashes --only-binary :all: -r {ROOT}/requirements.lock" in said
    assert "EDGE_MODELS_MIRROR=/srv/m /opt/edge/bin/edge models fetch yunet sface-int8" in said
    assert f"pip install --quiet --disable-pip-version-check --no-deps {wheel}\n" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name the --package or the --wheel"),
        (("--package", "DEB", "--wheel", "DEB"), "either --package or --wheel"),
        (("--package", "nowhere.deb"), "nowhere.deb is not there"),
        (("--frobnicate",), "unknown option --frobnicate"),
        (("--wheel",), "--wheel needs a value"),
        (("--wheel", "DEB", "--onnxruntime", "DEB"), "needs its --sha256"),
        (("--wheel", "DEB", "--onnxruntime", "DEB", "--sha256", "00"), "has another sha256"),
        (("--package", "DEB", "--onnxruntime", "DEB"), "the package brings its own"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(arguments: tuple[str, ...], says: str, tmp_path: Path):
    made = package(tmp_path, host_arch(), PYTHON)
    code, said = install(*(str(made) if word == "DEB" else word for word in arguments))
    assert code == 1
    assert says in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("other_arch", "python", "says"),
    [
        (True, PYTHON, f"this machine is {host_arch()}: make deb ARCH={host_arch()}"),
        (False, "3.9", f"is for Python 3.9, here is {PYTHON}: make deb"),
    ],
)
def test_a_package_for_another_machine_is_refused(other_arch: bool, python: str, says: str, tmp_path: Path):
    other = "arm64" if platform.machine() == "x86_64" else "amd64"
    code, said = install("--package", package(tmp_path, other if other_arch else host_arch(), python))
    assert code == 1
    assert says in said.splitlines()[-1]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
@pytest.mark.parametrize("script", ["deploy/install.sh", "deploy/container/healthy", "deploy/slim"])
def test_the_scripts_have_no_usual_mistake(script: str):
    done = subprocess.run(["shellcheck", ROOT / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
