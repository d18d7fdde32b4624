import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.core.errors import ModelError
from edge.face.build.fp32 import free_input_size
from edge.face.manifest import load_manifest, model_names
from edge.face.recipes import run_recipe
from edge.face.session import Session, pattern
from edge.face.weights import build_data, load_verified


def place_of(name: str) -> str:
    """The fixture that is the directory which has the model."""
    return "recommended_dir" if load_manifest(name).optional else "models_dir"


BUILT = [name for name in model_names() if load_manifest(name).build]

BUILD = """
import hashlib, sys
from pathlib import Path
from edge.face.recipes import run_recipe
from edge.face.manifest import load_manifest
from edge.face.weights import build_data, build_parts
manifest = load_manifest(sys.argv[1])
parts = build_parts(manifest, Path(sys.argv[2]))
print(hashlib.sha256(run_recipe(manifest.build.recipe, *parts, data=build_data(manifest))).hexdigest())
"""


@pytest.mark.parametrize("name", BUILT)
def test_every_process_builds_the_pinned_bytes(name: str, request: pytest.FixtureRequest) -> None:
    models_dir = request.getfixturevalue(place_of(name))
    command = [sys.executable, "-c", BUILD, name, str(models_dir)]
    # Without numpy's dispatch to newer instructions: what a plainer processor would compute.
    plain = {**os.environ, "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX2 FMA3", "PYTHONHASHSEED": "1"}
    usual = {**os.environ, "PYTHONHASHSEED": "2"}
    built = {
        subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()
        for env in (plain, usual)
    }
    assert built == {load_manifest(name).sha256}


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ModelError, match="no recipe named 'magic'"):
        run_recipe("magic", b"", b"")


def test_only_an_image_model_can_be_freed() -> None:
    from edge.face.build.graph import GraphWriter, float_tensor

    graph = GraphWriter()
    graph.node("Relu", ["x"], "y")
    with pytest.raises(ModelError, match="not exactly one image input"):
        free_input_size(graph.finish([float_tensor("x", [1, 8])], [float_tensor("y", [1, 8])], name="t"))


@pytest.mark.parametrize("name", ["sface-int8", "sface-int8-add"])
def test_the_quantized_model_is_small_and_pinned(models_dir: Path, name: str) -> None:
    model = load_verified(load_manifest(name), models_dir)
    assert len(model) <= 11_000_000
    assert hashlib.sha256(model).hexdigest() == load_manifest(name).sha256


def test_both_integer_models_say_the_same_of_a_picture(models_dir: Path) -> None:
    answers = []
    for name in ("sface-int8", "sface-int8-add"):
        manifest = load_manifest(name)
        session = Session.of(manifest, load_verified(manifest, models_dir), threads=1)
        answers.append(session.run(pattern(112, 112))[0][0])
    cosine = answers[0] @ answers[1] / np.linalg.norm(answers[0]) / np.linalg.norm(answers[1])
    assert 0.99 < cosine < 1, "the same network, rounded in two ways"


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    manifest = load_manifest("sface-int8").model_copy(update={"directory": tmp_path})
    with pytest.raises(
        ModelError, match=r"sface-int8: cannot read .*statistics.json: .*; install edge again"
    ):
        build_data(manifest)
    assert build_data(load_manifest("sface-int8-add")) == build_data(load_manifest("sface-int8"))
