"""Build a model and pin it: write its hash, size and golden file into its manifest's directory.

For whoever changes a recipe: `python -m edge.lab.weights.pin MODELS_DIR NAME...` in a checkout. A device
never does this; it only compares.
"""

import hashlib
import re
import sys
from pathlib import Path

from edge.face.manifest import Manifest, load_manifest
from edge.face.recipes import run_recipe
from edge.face.session import Session, record_golden
from edge.face.weights import build_data, build_parts, load_verified

GOLDEN_SIZE = (64, 64)
"""Golden input of a detector whose size is free."""

MIN_COSINE = {"sface-int8": 0.98, "sface-int8-add": 0.98, "omz-0095-int8": 0.98}
MIN_COSINE_FLOAT = 0.9999
"""Another processor rounds floats elsewhere; integers that meet a threshold once may differ by a step."""


def pin(name: str, models_dir: Path) -> None:
    """Build `name` from what was installed of its parents, pin hash and size, record the golden file."""
    manifest = load_manifest(name)
    path = manifest.directory / "manifest.toml"
    if manifest.build is not None:
        parts = build_parts(manifest, models_dir)
        model = run_recipe(manifest.build.recipe, *parts, data=build_data(manifest))
        text = path.read_text()
        digest = hashlib.sha256(model).hexdigest()
        text = re.sub(r'^sha256 = ".*"$', f'sha256 = "{digest}"', text, count=1, flags=re.M)
        text = re.sub(r"^bytes = .*$", f"bytes = {len(model)}", text, count=1, flags=re.M)
        path.write_text(text)
        manifest = load_manifest(name)
        (models_dir / manifest.file).unlink(missing_ok=True)
        (models_dir / manifest.file).write_bytes(model)
    record(manifest, load_verified(manifest, models_dir))


def record(manifest: Manifest, model: bytes) -> None:
    """Write the golden file of a model's verified bytes."""
    session = Session.of(manifest, model, threads=1)
    golden = record_golden(
        session, manifest.input.size or GOLDEN_SIZE, MIN_COSINE.get(manifest.name, MIN_COSINE_FLOAT)
    )
    text = golden.model_dump_json().replace('],"', '],\n"').replace('{"', '{\n"')
    manifest.golden_path.write_text(text + "\n")


if __name__ == "__main__":
    for each in sys.argv[2:]:
        pin(each, Path(sys.argv[1]))
