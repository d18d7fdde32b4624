"""What is installed on a door: the program and the manifests of its models, no guides and no pictures."""

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.places import ROOT


def test_the_wheel_holds_every_manifest_and_no_guide_or_picture(tmp_path: Path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    data = {
        f"edge/{path.relative_to(ROOT).as_posix()}"
        for folder in (ROOT / "models").iterdir()
        if folder.is_dir()
        for path in folder.iterdir()
    }
    assert {name for name in names if name.startswith("edge/models/")} == data
    assert len({name for name in data if name.endswith("manifest.toml")}) >= 8
    assert [name for name in names if name.endswith((".md", ".png"))] == []
