"""What `deploy/slim` removes from a door is not missed there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from edge.device.settings.load import environment_without_settings
from tests.support.places import ROOT

PACKAGES = Path(np.__file__).parents[1]
SLIMMED = ("onnxruntime", "numpy", "numpy.libs")


def size_mb(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6


def linked(source: str, target: str) -> None:
    """Give a file a second name, or copy it to another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def test_what_is_removed_from_a_door_is_not_missed(tmp_path: Path, models_dir: Path):
    packages = tmp_path / "door" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    for name in SLIMMED:
        if (PACKAGES / name).is_dir():
            shutil.copytree(PACKAGES / name, packages / name, copy_function=linked)
    assert Path(onnxruntime.__file__).is_relative_to(PACKAGES)
    before_mb = size_mb(packages)
    subprocess.run([ROOT / "deploy" / "slim", tmp_path / "door"], check=True)
    assert size_mb(packages) < before_mb - 30
    assert not list(packages.glob("numpy/**/tests"))

    code = (
        "import sys, numpy, onnxruntime; from edge.cli.app import app\n"
        f"assert all(module.__file__.startswith({str(packages)!r}) for module in (numpy, onnxruntime))\n"
        "app(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "models", "verify", "yunet", "sface-int8"],
        env=environment_without_settings() | {"PYTHONPATH": os.pathsep.join((str(packages), str(ROOT)))},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.count("golden vector right")) == (0, 2), done.stderr + done.stdout
