"""The cache of embeddings, and the whole command on real photos: the ORL subjects as a small LFW."""

import json
import stat
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.photo import read_photo
from edge.core.errors import ClusterError, MediaError
from edge.device.settings.load import load
from edge.face.manifest import load_manifest
from edge.lab.demo.media import orl_photo
from edge.lab.photos.embeddings import EmbeddingCache, PhotoEmbedder
from tests.support.command_line import run_json


def row(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=8).astype(np.float32)


def test_the_cache_remembers_faces_and_their_absence_over_restarts(tmp_path: Path):
    path = tmp_path / "sub" / "m.cache"
    keys = [bytes([i]) * 31 + b"\0" for i in range(1, 4)]
    cache = EmbeddingCache(path, 8)
    cache.put(keys[0], row(0))
    cache.put(keys[1], None)
    again = EmbeddingCache(path, 8)
    assert np.array_equal(again[keys[0]], row(0))
    assert again[keys[1]] is None
    assert keys[2] not in again
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_torn_end_of_the_cache_is_ignored(tmp_path: Path):
    path = tmp_path / "m.cache"
    cache = EmbeddingCache(path, 8)
    for i in range(3):
        cache.put(bytes([i + 1]) * 32, row(i))
    path.write_bytes(path.read_bytes()[:-5])
    assert b"\x02" * 32 in EmbeddingCache(path, 8)
    assert b"\x03" * 32 not in EmbeddingCache(path, 8)


def test_a_photo_that_cannot_be_read_is_named(tmp_path: Path):
    def nobody(*_):
        raise AssertionError("no recognizer is needed for this")

    cache = EmbeddingCache(tmp_path / "m.cache", 8)
    embedder = PhotoEmbedder("nobodys", load())
    with pytest.raises(MediaError, match=r"gone\.jpg"):
        embedder.remembered([tmp_path / "gone.jpg"], nobody, cache, lambda *_: None)


def test_a_photo_that_kills_its_workers_is_told_when_the_others_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path
):
    class Cluster:
        def map(self, work, chunks):
            for chunk in chunks:
                yield chunk, [np.ones(8, np.float32), ClusterError("every worker died")]

    monkeypatch.setattr("edge.lab.photos.embeddings.joined", lambda *_: nullcontext(Cluster()))
    photos = [orl_photo(media, 1, shot) for shot in (1, 2)]
    cache = EmbeddingCache(tmp_path / "m.cache", 8)
    embedder = PhotoEmbedder("sface-int8", load(), "tcp://nowhere")
    told = rf"^1 of 2 photos could not be looked at: {photos[1]}: every worker died$"
    with pytest.raises(ClusterError, match=told):
        embedder.remembered(photos, pytest.fail, cache, lambda *_: None)
    assert [sha256(photo.read_bytes()).digest() in cache for photo in photos] == [True, False]


@pytest.fixture(scope="module")
def orl(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Path:
    """Twelve ORL subjects with five photos each, and twelve strangers with one."""
    images = tmp_path_factory.mktemp("orl")
    for subject in range(1, 25):
        folder = images / f"S{subject:02}"
        folder.mkdir()
        for number in range(1, 6 if subject <= 12 else 2):
            photo = read_photo(orl_photo(media, subject, number))
            cv2.imwrite(str(folder / f"S{subject:02}_{number:04}.jpg"), photo)
    return images


def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict:
    monkeypatch.setenv("EDGE_MODELS_DIR", str(load().models_path))
    monkeypatch.setenv("EDGE_STATE_DIR", str(tmp_path / "state"))
    [report] = run_json("evaluate", *arguments, "--json", "--json-file", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == report
    return report["models"]


def test_identify_measures_two_models_and_draws_the_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orl: Path
):
    models = evaluated(
        tmp_path,
        monkeypatch,
        *("identify", "--images", str(orl), "--model", "sface-fp32", "--model", "sface-int8"),
        *("--at-target-fpir", "0.01", "--plots", str(tmp_path / "plots")),
    )
    for figures in models.values():
        assert (figures["n_subjects"], figures["n_genuine"], figures["n_unknown"]) == (12, 24, 12)
        assert figures["fta"] == 0
        assert figures["rank1"] >= 0.95
        assert figures["tpir"].keys() == {"0.01", "0.003", "0.001"}
        assert 0.2 < figures["at_target_fpir"]["threshold"] < 0.6
    assert models["sface-int8"]["cosine_to_reference"]["mean"] > 0.99
    picture = cv2.imread(str(tmp_path / "plots" / "det.png"))
    assert picture is not None
    assert picture.std() > 5


def test_verify_measures_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orl: Path):
    lines = [f"S{i:02}\t1\t{j}" for i in range(1, 11) for j in (2, 3)]
    lines += [f"S{i:02}\t{j}\tS{i + 1:02}\t1" for i in range(1, 11) for j in (2, 3)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    models = evaluated(
        tmp_path, monkeypatch, "verify", "--images", str(orl), "--pairs", str(tmp_path / "pairs.txt")
    )
    assert models["sface-int8"]["accuracy"] >= 0.9
    assert models["sface-int8"]["n_pairs"] == 40


def test_an_embedder_that_was_never_calibrated_can_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orl: Path
):
    lines = [f"S{i:02}\t1\t{j}" for i in range(1, 3) for j in (2, 3)]
    lines += [f"S{i:02}\t{j}\tS{i + 1:02}\t1" for i in range(1, 3) for j in (2, 3)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    assert load_manifest("sface").calibration is None
    pairs = ("--pairs", str(tmp_path / "pairs.txt"))
    models = evaluated(tmp_path, monkeypatch, "verify", "--images", str(orl), *pairs, "--model", "sface")
    assert models["sface"]["n_pairs"] == 8
