"""The choice of an embedder: by the gallery, else by time among the accurate ones."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import chain, count, repeat
from pathlib import Path

import numpy as np
import pytest

from edge.core.clock import SystemClock
from edge.core.errors import ModelError, ModelMissingError
from edge.core.types import Quality, Subject, Template
from edge.device.assembly.recognizer import build_recognizer, choose_embedder
from edge.device.assembly.stores import gallery_store
from edge.device.reports import info
from edge.device.settings.load import Settings, load
from edge.face.choice import (
    BUDGET_S,
    FAST_ENOUGH_MS,
    LEAST_ROUNDS,
    MOST_ROUNDS,
    Choice,
    accurate_enough,
    choose,
    fastest,
    load_embedder,
    prefer,
    times_ms,
)
from edge.face.manifest import Accuracy, load_manifest, parts_of
from edge.gallery.gallery import Gallery
from tests.support.waits import Stopwatch


def accuracy(mean: float = 0.998, p01: float = 0.996) -> Accuracy:
    return Accuracy(reference="sface", cosine_mean=mean, cosine_p01=p01, faces=1000, source="a test")


def settings_of(tmp_path: Path, models_dir: Path, embedder: str = "auto") -> Settings:
    recognition = {"embedder": embedder}
    return load(
        overrides={
            "state_dir": str(tmp_path / "state"),
            "models_dir": str(models_dir),
            "recognition": recognition,
        }
    )


def enrol_somebody(settings: Settings, embedder: str) -> None:
    manifest = load_manifest(embedder)
    vector = np.zeros(128, np.float32)
    vector[0] = 1
    quality = Quality(100.0, 0.9, 0.0, 0.5, 0.9, 0.9)
    template = Template(vector, manifest.model_id, quality, "photo", datetime(2026, 1, 1, tzinfo=UTC))
    gallery = Gallery.empty(manifest.model_id).with_subject(Subject("p-1", "one"), [template])
    gallery_store(settings).commit(gallery)


def test_a_name_is_taken_as_it_stands(models_dir: Path) -> None:
    assert choose("sface-fp32", "another@00000000", models_dir, threads=1) == Choice(
        "sface-fp32", "configured"
    )


@pytest.mark.parametrize("name", ["sface", "sface-fp32", "sface-int8-add"])
def test_the_gallerys_own_model_wins_without_any_timing(name: str, tmp_path: Path) -> None:
    choice = choose("auto", load_manifest(name).model_id, tmp_path / "no models here", threads=1)
    assert choice == Choice(name, "auto: the gallery was enrolled with it")


def test_a_gallery_of_a_model_that_nobody_knows_is_refused(models_dir: Path) -> None:
    with pytest.raises(
        ModelError, match=r"'sface-int8@00000000', which is none of .*sface-fp32@.*enrol again"
    ):
        choose("auto", "sface-int8@00000000", models_dir, threads=1)


def test_only_accurate_and_calibrated_embedders_are_asked() -> None:
    named = {m.name for m in accurate_enough()}
    assert named == {"sface-fp32", "sface-int8", "sface-int8-add", "sface-0095"}


@pytest.mark.parametrize(
    ("mean", "p01", "within"),
    [
        pytest.param(0.9979, 0.9961, True, id="as the integer model"),
        pytest.param(0.997, 0.994, True, id="just so"),
        pytest.param(0.9969, 0.996, False, id="a poor mean"),
        pytest.param(0.998, 0.9939, False, id="a poor tail"),
    ],
)
def test_the_bar_is_on_mean_and_tail(mean: float, p01: float, within: bool) -> None:
    assert accuracy(mean, p01).within_bar is within


@pytest.mark.parametrize(
    ("times_ms", "chosen"),
    [
        pytest.param({"exact": 15.0, "good": 6.0, "fair": 7.0}, "good", id="the fastest"),
        pytest.param(
            {"exact": 15.0, "good": 6.2, "fair": 6.0}, "good", id="about as fast, but more accurate"
        ),
        pytest.param({"exact": 15.0, "good": 7.0, "fair": 6.0}, "fair", id="clearly faster, still accurate"),
        pytest.param({"exact": 5.0, "good": 6.0, "fair": 7.0}, "exact", id="where floats are faster"),
    ],
)
def test_the_fastest_is_preferred_and_accuracy_breaks_a_draw(times_ms: dict[str, float], chosen: str) -> None:
    known = {"exact": accuracy(1.0, 1.0), "good": accuracy(0.9979), "fair": accuracy(0.9974)}
    assert prefer(times_ms, known) == chosen


def test_an_embedder_that_is_not_installed_or_damaged_is_passed_over(
    tmp_path: Path, models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    by_name = {m.name: m for m in accurate_enough()}
    shutil.copy(models_dir / by_name["sface-int8-add"].file, tmp_path)
    damaged = tmp_path / by_name["sface-int8"].file
    damaged.write_bytes(bytes(by_name["sface-int8"].bytes))
    choice = fastest(accurate_enough(), tmp_path, threads=1)
    assert choice.name == "sface-int8-add"
    assert [r.message for r in caplog.records if "sface-int8.onnx is not the pinned file" in r.message]
    assert not [r.message for r in caplog.records if "sface-fp32" in r.message]


def test_where_nothing_works_the_error_says_why_of_each(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"auto found no embedder that works: .*sface-fp32.*sface-int8-add"):
        fastest(accurate_enough(), tmp_path, threads=1)


class Processor:
    """Work that takes the time it is told to, on a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.order: list[str] = []

    def work(self, name: str, durations_s: Iterator[float]) -> None:
        self.order.append(name)
        self.now_s += next(durations_s)


def test_runs_are_timed_in_turn_and_the_first_does_not_count() -> None:
    processor = Processor()
    runs = {
        "a": partial(processor.work, "a", chain([9.0], repeat(0.006))),
        "b": partial(processor.work, "b", chain([0.001], repeat(0.012))),
    }
    taken_ms = times_ms(runs, lambda: processor.now_s)
    assert taken_ms == pytest.approx({"a": 6.0, "b": 12.0})
    assert processor.order == ["a", "b"] * (1 + LEAST_ROUNDS), "the slow first run spent the budget"


def test_a_slow_device_spends_little_more_than_the_budget() -> None:
    processor = Processor()
    times_ms({name: partial(processor.work, name, repeat(0.03)) for name in "abc"}, lambda: processor.now_s)
    assert BUDGET_S <= processor.now_s < BUDGET_S + 3 * 0.03 + 1e-9


def test_a_fast_device_does_not_spend_the_budget() -> None:
    processor = Processor()
    times_ms({"a": partial(processor.work, "a", repeat(0.001))}, lambda: processor.now_s)
    assert len(processor.order) == 1 + MOST_ROUNDS


def test_one_outlier_does_not_decide() -> None:
    processor = Processor()
    noisy = chain([0.006] * 4, [1.0], repeat(0.006))
    runs = {"a": partial(processor.work, "a", noisy), "b": partial(processor.work, "b", repeat(0.007))}
    taken_ms = times_ms(runs, lambda: processor.now_s)
    assert taken_ms["a"] < taken_ms["b"]


def test_a_pair_that_is_installed_is_preferred_where_it_is_fast_enough(recommended_dir: Path) -> None:
    quick = partial(next, count(0.0, FAST_ENOUGH_MS / 1000 * 0.9))
    assert fastest(accurate_enough(), recommended_dir, threads=1, clock=quick).name == "sface-0095"
    slow = partial(next, count(0.0, FAST_ENOUGH_MS / 1000 * 1.1))
    choice = fastest(accurate_enough(), recommended_dir, threads=1, clock=slow)
    assert choice.name == "sface-int8"
    assert "sface-0095 110.0 ms" in choice.why


def test_half_a_pair_is_none(tmp_path: Path, recommended_dir: Path) -> None:
    for part in parts_of(load_manifest("sface-0095"))[:1]:
        shutil.copy(recommended_dir / part.file, tmp_path)
    assert fastest(accurate_enough(), tmp_path, threads=1).name == "sface-int8"
    with pytest.raises(ModelMissingError, match=r"omz-0095-int8.* is not there; run: edge models fetch omz"):
        load_embedder("sface-0095", tmp_path, threads=1)


def test_on_this_machine_an_empty_gallery_gets_integers_within_a_second(
    tmp_path: Path, models_dir: Path
) -> None:
    needed = tmp_path / "needed"
    needed.mkdir()
    for name in ("sface-int8", "sface-int8-add"):
        shutil.copy(models_dir / load_manifest(name).file, needed)
    watch = Stopwatch()
    choice = choose_embedder(settings_of(tmp_path, needed))
    assert choice.name in ("sface-int8", "sface-int8-add")
    assert watch.undisturbed_s < 5, "under a second on an idle machine"


def test_info_and_recognizer_say_what_was_chosen_and_why(tmp_path: Path, models_dir: Path) -> None:
    settings = settings_of(tmp_path, models_dir)
    enrol_somebody(settings, "sface-int8-add")
    recognizer = build_recognizer(settings)
    told = info(settings, recognizer, SystemClock())
    assert told.models["embedder"].id == load_manifest("sface-int8-add").model_id
    assert told.embedder_choice == "auto: the gallery was enrolled with it"
    assert recognizer.matcher.gallery.size == 1


def test_the_default_is_the_integer_model_as_configured(tmp_path: Path, models_dir: Path) -> None:
    settings = load(overrides={"state_dir": str(tmp_path), "models_dir": str(models_dir)})
    assert choose_embedder(settings) == Choice("sface-int8", "configured")
