"""`edge models bench`: every embedder in turn, the one that cannot run named with its reason."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import ModelMissingError
from edge.device.settings.load import load
from edge.face.manifest import is_installed, load_manifest, model_names, parts_of
from edge.lab.bench.embedders import REFERENCE, measure_embedders

KNOWN = {name for name in model_names() if load_manifest(name).kind == "embedder"}
EMBEDDERS = {name for name in KNOWN if is_installed(load_manifest(name), load().models_path)}


def quiet(what: str, done: float, total: float) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def report(media: Path) -> dict[str, Any]:
    return measure_embedders(load(), media, 10, quiet)


def test_every_embedder_is_timed_and_compared(report: dict[str, Any]) -> None:
    assert set(report["models"]) == EMBEDDERS >= {"sface-fp32", "sface-int8", "sface-int8-add"}
    assert report["refused"].keys() == KNOWN - EMBEDDERS
    for name, figures in report["models"].items():
        assert 0 < figures["ms_p50"] <= figures["ms_p95"], name
        assert figures["cpu_ms_p50"] > 0, name
        assert figures["bytes"] == sum(part.bytes for part in parts_of(load_manifest(name)))
        assert figures["model_id"] == load_manifest(name).model_id


def test_integers_are_faster_than_floats_and_answer_alike(report: dict[str, Any]) -> None:
    models = report["models"]
    assert models[REFERENCE]["cosine_to_fp32"] == pytest.approx(1, abs=1e-5)
    assert models["sface"]["cosine_to_fp32"] == pytest.approx(1, abs=1e-4)
    assert models["sface-int8"]["cosine_to_fp32"] >= 0.997
    assert models["sface-int8-add"]["cosine_to_fp32"] >= 0.996, "grey photos of 1994 lie below the bar's"
    for name in ("sface-int8", "sface-int8-add"):
        assert models[name]["ms_p50"] < models[REFERENCE]["ms_p50"]


def test_each_is_compared_with_its_own_floats(media: Path, models_dir: Path, recommended_dir: Path) -> None:
    everything = recommended_dir.with_name("everything")
    shutil.copytree(recommended_dir, everything)
    for name in (REFERENCE, "yunet"):
        shutil.copy(models_dir / load_manifest(name).file, everything)
    models = measure_embedders(load(overrides={"models_dir": str(everything)}), media, 10, quiet)["models"]
    assert models["omz-0095-int8"]["cosine_to_fp32"] >= 0.995
    assert models["omz-0095"]["cosine_to_fp32"] == pytest.approx(1, abs=1e-5)
    assert models["sface-0095"]["cosine_to_fp32"] is None, "there is no pair of floats"


def test_one_that_is_not_installed_is_named_and_the_others_are_timed(
    media: Path, models_dir: Path, tmp_path: Path
) -> None:
    for name in (REFERENCE, "yunet"):
        shutil.copy(models_dir / load_manifest(name).file, tmp_path)
    report = measure_embedders(load(overrides={"models_dir": str(tmp_path)}), media, 10, quiet)
    assert set(report["models"]) == {REFERENCE}
    assert "sface-int8.onnx is not there; run: edge models fetch" in report["refused"]["sface-int8"]


def test_without_the_reference_nothing_can_be_compared(media: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="sface-fp32"):
        measure_embedders(load(overrides={"models_dir": str(tmp_path)}), media, 10, quiet)
