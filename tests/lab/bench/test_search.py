"""`edge bench gallery`: real searches, in turn, with the figures that the README quotes."""

from pathlib import Path
from typing import Any

import pytest

from edge.lab.bench.search import measure_galleries, plot_galleries
from tests.support.command_line import run, run_json

ENGINES = {"read_floor", "int8", "dense", "numpy_float32", "face_distance", "face_distance_array"}


def quiet(what: str, done: float, total: float) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return measure_galleries([1000, 20_000], 128, 8, quiet)


def test_every_engine_is_timed_and_names_whom_float32_names(report: dict[str, Any]):
    assert (report["rows"], report["dim"]) == (20_000, 128)
    assert [smaller["rows"] for smaller in report["smaller"]] == [1000]
    for size in (report, *report["smaller"]):
        assert set(size["engines"]) == ENGINES
        for name, figures in size["engines"].items():
            assert 0 < figures["ms_p50"] <= figures["ms_p95"], name
            assert figures["agreement"] == (None if name == "read_floor" else 1.0), name
        assert size["engines"]["read_floor"]["floor_ratio"] == 1


def test_int8_reads_a_quarter_and_is_far_faster_than_distances(report: dict[str, Any]):
    engines = report["engines"]
    assert engines["int8"]["bytes"] == 20_000 * 132
    assert engines["dense"]["bytes"] == 20_000 * 512
    assert engines["int8"]["ms_p50"] * 10 < engines["face_distance"]["ms_p50"]


def test_a_small_scope_costs_less_than_all(report: dict[str, Any]):
    scoped = report["scoped"]
    assert scoped["hundredth"]["ms_p50"] < scoped["all"]["ms_p50"]
    assert scoped["half"]["ms_p50"] < 2 * scoped["all"]["ms_p50"]


def test_the_figures_can_be_drawn(report: dict[str, Any], tmp_path: Path):
    plot_galleries(report, tmp_path / "plots")
    drawn = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert drawn == ["gallery_bytes.png", "gallery_ms_p50.png"]
    assert all((tmp_path / "plots" / name).stat().st_size > 5000 for name in drawn)


def test_the_command_prints_one_document():
    [report] = run_json("bench", "gallery", "--rows", "500", "--rounds", "10", "--json")
    assert set(report["engines"]) == ENGINES


def test_a_gallery_beyond_a_device_is_refused():
    assert "1000000" in run("bench", "gallery", "--rows", "1000001", code=2)
