"""The files that optional models are made from, as their authors publish them."""

import os
import shutil
from pathlib import Path

import pytest

from edge.device.settings.load import load
from edge.face.manifest import Manifest, installed_path, load_manifest, model_names, parts_of
from edge.face.weights import fetch
from tests.support.places import ROOT

WEIGHTS = Path(os.environ.get("WEIGHTS_FOLDER") or ROOT.parent / "shared" / "weights")


def install_recommended(models_dir: Path) -> Path:
    """Install every optional model in `models_dir` without a network; skips the test without the files.

    What a pair shares with every door comes from where `edge models fetch` installed it.
    """
    if not WEIGHTS.is_dir():
        pytest.skip(f"no files of recommended models at {WEIGHTS}; WEIGHTS_FOLDER names another place")
    optional = [each for each in map(load_manifest, model_names()) if each.optional]
    for manifest in [part for each in optional for part in parts_of(each)]:
        for path in published_files(manifest):
            shutil.copy(path, models_dir)
    for manifest in optional:
        fetch(manifest, models_dir, mirror=None, progress=lambda what, done, total: None)
    return models_dir


def published_files(manifest: Manifest) -> list[Path]:
    """Return the files from which a model can be installed without a network."""
    if not manifest.optional:
        return [installed_path(manifest, load().models_path)]
    upstream = manifest.build.upstream if manifest.build else ()
    return [WEIGHTS / file for file in ([manifest.file] if manifest.url else []) + [e.file for e in upstream]]
