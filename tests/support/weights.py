"""The files that recommended models are made from, as their authors publish them."""

import os
import shutil
from pathlib import Path

import pytest

from edge.face.manifest import load_manifest, recommended_models
from edge.face.weights import fetch
from tests.support.places import ROOT

WEIGHTS = Path(os.environ.get("WEIGHTS_FOLDER") or ROOT.parent / "shared" / "weights")


def install_recommended(models_dir: Path) -> Path:
    """Install every recommended model in `models_dir` without a network; skips the test without the files."""
    if not WEIGHTS.is_dir():
        pytest.skip(f"no files of recommended models at {WEIGHTS}; WEIGHTS_FOLDER names another place")
    for name in recommended_models():
        manifest = load_manifest(name)
        upstream = manifest.build.upstream if manifest.build else ()
        for file in ([manifest.file] if manifest.url else []) + [each.file for each in upstream]:
            shutil.copy(WEIGHTS / file, models_dir / file)
    for name in recommended_models():
        fetch(load_manifest(name), models_dir, mirror=None, progress=lambda what, done, total: None)
    return models_dir
