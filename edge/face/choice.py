"""Load models by name, and choose the embedder where the settings say "auto".

The gallery decides, because its templates can be compared with no other model's embeddings. Where it is
empty, a pair is taken that is installed and fast enough here; else the fastest of those whose manifests
promise enough accuracy. What is loaded to be timed is not kept.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from edge.core.errors import ConfigError, ModelError, ModelMissingError
from edge.face.embedder import Embedder, EmbedderPair
from edge.face.manifest import (
    AUTO,
    ON_CPU,
    Accuracy,
    Manifest,
    Provider,
    load_manifest,
    model_names,
    parts_of,
)
from edge.face.session import Session, pattern, self_test
from edge.face.weights import load_verified

log = logging.getLogger(__name__)

BUDGET_S = 0.5
"""Time for the runs themselves. Measured: .70-.87 s for choosing among three models on two busy vCPUs."""

LEAST_ROUNDS, MOST_ROUNDS = 3, 20
"""Rounds that are timed; one more before them is not, since first runs allocate."""

FAST_ENOUGH_MS = 100.0
"""Time for one face up to which a pair is preferred: two shots, which most visits need, in .2 s."""

ALIKE = 0.95
"""Only a model that needs less than this share of a more accurate one's time is preferred to it."""


def load_session(
    name: str, kind: str, models_dir: Path, *, threads: int, providers: Sequence[Provider] = ON_CPU
) -> tuple[Manifest, Session]:
    """Load a model by name from verified bytes and run its self-test.

    Raises:
        ConfigError: The model is of another kind.
        ModelError: It is unknown, absent, damaged or computes something else than it should.
    """
    manifest = _of_kind(name, kind, models_dir)
    session = Session.of(manifest, load_verified(manifest, models_dir), threads=threads, providers=providers)
    self_test(session, manifest)
    return manifest, session


def load_embedder(
    name: str, models_dir: Path, *, threads: int, providers: Sequence[Provider] = ON_CPU
) -> tuple[Manifest, Embedder]:
    """Load an embedder by name, which may be a pair, from verified bytes and run its self-test.

    Raises:
        ConfigError: The model is of another kind.
        ModelError: It is unknown, absent, damaged or computes something else than it should.
    """
    manifest = _of_kind(name, "embedder", models_dir)
    return manifest, _embedder_of(manifest, models_dir, threads, providers)


def check_model(name: str, models_dir: Path, *, threads: int, providers: Sequence[Provider] = ON_CPU) -> str:
    """Check the hash of every file of a model, and that it computes what it should; returns what runs it.

    Raises:
        ModelError: It is unknown, absent, damaged or computes something else than it should.
    """
    provider = ""
    for part in parts_of(load_manifest(name, models_dir), models_dir):
        session = Session.of(part, load_verified(part, models_dir), threads=threads, providers=providers)
        self_test(session, part)
        provider = session.provider
    return provider


def _of_kind(name: str, kind: str, models_dir: Path) -> Manifest:
    manifest = load_manifest(name, models_dir)
    if manifest.kind != kind:
        raise ConfigError(f"recognition.{kind}: {name!r} is a {manifest.kind}; see `edge models list`")
    return manifest


def _embedder_of(
    manifest: Manifest, models_dir: Path, threads: int, providers: Sequence[Provider]
) -> Embedder:
    loaded = []
    for part in parts_of(manifest, models_dir):
        loaded.append(
            (Session.of(part, load_verified(part, models_dir), threads=threads, providers=providers), part)
        )
    embedder = Embedder(*loaded[0]) if manifest.pair is None else EmbedderPair(manifest, *loaded)
    embedder.self_test()
    return embedder


@dataclass(frozen=True, slots=True)
class Choice:
    """The embedder to use, by name, and the reason, for people to read."""

    name: str
    why: str


def choose(
    name: str,
    enrolled_with: str | None,
    models_dir: Path,
    *,
    threads: int,
    providers: Sequence[Provider] = ON_CPU,
) -> Choice:
    """Return the embedder that `name` means on this device.

    `enrolled_with` is the model id of the gallery's templates, None where there are none.

    Raises:
        ModelError: "auto", and the gallery's model is unknown here, or no embedder can be used.
    """
    if name != AUTO:
        return Choice(name, "configured")
    if enrolled_with is not None:
        return Choice(_of_gallery(enrolled_with, models_dir), "auto: the gallery was enrolled with it")
    return fastest(accurate_enough(), models_dir, threads=threads, providers=providers)


def accurate_enough() -> list[Manifest]:
    """Return the embedders that may be chosen: within the accuracy bar and calibrated."""
    known = [load_manifest(name) for name in model_names()]
    return [
        m for m in known if m.calibration is not None and m.accuracy is not None and m.accuracy.within_bar
    ]


def fastest(
    embedders: list[Manifest],
    models_dir: Path,
    *,
    threads: int,
    providers: Sequence[Provider] = ON_CPU,
    clock: Callable[[], float] = perf_counter,
) -> Choice:
    """Time the embedders that work here in turn, on a generated picture, and return the one to use.

    A pair is worth its time up to `FAST_ENOUGH_MS`. `clock` gives seconds. Those not installed are passed
    over; those that do not work are, with a warning.

    Raises:
        ModelError: None of them works; says why of each.
    """
    taken_ms = timed(embedders, models_dir, threads=threads, providers=providers, clock=clock)
    accuracy = {m.name: m.accuracy for m in embedders if m.accuracy is not None}
    pairs = [m.name for m in embedders if m.pair and taken_ms.get(m.name, np.inf) <= FAST_ENOUGH_MS]
    single = {m.name: taken_ms[m.name] for m in embedders if m.name in taken_ms and not m.pair}
    name = min(pairs, key=taken_ms.__getitem__) if pairs else prefer(single or taken_ms, accuracy)
    return Choice(name, f"auto: the gallery is empty; timed here: {times_told(taken_ms)}")


def timed(
    embedders: list[Manifest],
    models_dir: Path,
    *,
    threads: int,
    providers: Sequence[Provider] = ON_CPU,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, float]:
    """Return how many milliseconds each embedder that works here takes for a face; as `fastest`.

    Raises:
        ModelError: None of them works; says why of each.
    """
    working: dict[str, Embedder] = {}
    refused: list[str] = []
    for manifest in embedders:
        try:
            working[manifest.name] = _embedder_of(manifest, models_dir, threads, providers)
        except ModelMissingError as error:
            refused.append(str(error))
        except ModelError as error:
            refused.append(str(error))
            log.warning("an embedder is passed over: %s", error)
    if not working:
        raise ModelError(f"recognition.embedder: auto found no embedder that works: {'; '.join(refused)}")
    face = pattern(112, 112)[0].transpose(1, 2, 0).astype(np.uint8)
    return times_ms({name: partial(each.embed, face) for name, each in working.items()}, clock)


def times_told(taken_ms: Mapping[str, float]) -> str:
    """Say how long each takes for a face, the fastest first."""
    return ", ".join(f"{name} {taken_ms[name]:.1f} ms" for name in sorted(taken_ms, key=taken_ms.__getitem__))


def prefer(taken_ms: Mapping[str, float], accuracy: Mapping[str, Accuracy]) -> str:
    """Return the fastest; of those about as fast as it is, the most accurate."""
    least = min(taken_ms.values())
    alike = [name for name, time_ms in taken_ms.items() if time_ms * ALIKE <= least]
    return max(alike, key=lambda name: (accuracy[name].cosine_mean, -taken_ms[name]))


def times_ms(runs: Mapping[str, Callable[[], object]], clock: Callable[[], float]) -> dict[str, float]:
    """Return the least time of each run, made in turn until `BUDGET_S` is spent; `clock` gives seconds.

    The least, because what else the machine does only ever adds.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    begun_s = clock()
    for number in range(1 + MOST_ROUNDS):
        if number > LEAST_ROUNDS and clock() - begun_s > BUDGET_S:
            break
        for name, run in runs.items():
            started_s = clock()
            run()
            taken[name].append((clock() - started_s) * 1e3)
    return {name: min(durations[1:]) for name, durations in taken.items()}


def _of_gallery(model_id: str, models_dir: Path) -> str:
    known = [load_manifest(name, models_dir) for name in model_names(models_dir)]
    for manifest in known:
        if manifest.kind == "embedder" and manifest.model_id == model_id:
            return manifest.name
    raise ModelError(
        f"recognition.embedder: the gallery was enrolled with {model_id!r}, which is none of "
        f"{', '.join(m.model_id for m in known if m.kind == 'embedder')}; install the version of edge that "
        "has it, or move the gallery's directory away and enrol again"
    )
