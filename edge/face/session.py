"""Run a model: the only file that knows onnxruntime.

A session is made from verified bytes, checked against its manifest, and refuses arrays it was not declared
for. Knows nothing of faces.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from threading import Lock

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.core import files
from edge.core.errors import ModelError, ModelIntegrityError, ModelShapeError
from edge.core.text import first_line
from edge.core.types import FloatArray
from edge.face.manifest import CPU, ON_CPU, Input, Manifest, Output, Provider

log = logging.getLogger(__name__)

QUIET = 3
"""Log severity of onnxruntime: errors only."""

MOST_SAID = 200
"""Characters of what onnxruntime says that are told."""

MAX_OUTPUT_VALUES = 4 * 1024 * 1024
"""Fixed output sizes above this are refused before anything runs: an 84-byte model can ask for 14 GB."""

GOLDEN_VALUES = 128
"""Values kept of each output in a golden file."""

ARENA = {
    "max_mem": 0,
    "arena_extend_strategy": 0,
    "initial_chunk_size_bytes": 1 << 20,
    "initial_growth_chunk_size_bytes": 1 << 20,
    "max_power_of_two_extend_bytes": 4 << 20,
}
"""How the buffers grow that all sessions share: by 1 to 4 MiB, or by what one needs; 0 is without a bound.

Source: onnxruntime_c_api.h, CreateArenaCfgV2.
"""

REGISTERING = Lock()
"""Held while the shared buffers are registered: onnxruntime refuses to do it twice."""


def delete_telemetry(cache: Path) -> bool:
    """Delete what onnxruntime kept below `cache` (~/.cache) before its telemetry was turned off.

    A device id and a database of events that were to be sent to its maker. Returns whether there was any.
    """
    left = cache / "Microsoft" / "DeveloperTools" / ".onnxruntime"
    if not left.is_dir():
        return False
    shutil.rmtree(left, ignore_errors=True)
    for folder in (left.parent, left.parent.parent):
        with suppress(OSError):  # somebody else's files are in it
            folder.rmdir()
    return not left.exists()


class Golden(BaseModel):
    """What a model must answer to `pattern`: `size` is (height, width), `outputs` the `sample` of each."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    size: tuple[int, int]
    min_cosine: float = Field(gt=0, le=1)
    outputs: dict[str, tuple[float, ...]]


class Session:
    """One loaded model with a fixed number of threads. `run` may be called from any thread.

    A session of `of` or `on_first` that fails on an accelerator goes on on the next provider.
    """

    def __init__(
        self,
        model: bytes,
        *,
        inputs: Input,
        outputs: Output,
        threads: int,
        providers: Sequence[Provider] = ON_CPU,
    ) -> None:
        """Load `model` for the first of `providers`; what that cannot run of it runs on those after it.

        Raises:
            ModelError: onnxruntime cannot load it, or the first of `providers` does not start.
            ModelShapeError: Its inputs or outputs are not the declared ones.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = QUIET
        # Without kept buffers a process that returns freed memory (`core.process`) asks the kernel for all of
        # them in each run: 5.7 ms of CPU instead of 3.6 for sface-int8.
        with REGISTERING:
            _share_buffers()
        options.add_session_config_entry("session.use_env_allocators", "1")
        # A plan keeps a block for each model and each size of frames: 7 MB with five models, and no faster.
        options.enable_mem_pattern = False
        # Spinning threads burn a core between frames. Measured: CPU per wall time .53 -> .10 at 15 frames/s.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        known = set(ort.get_available_providers())
        if providers[0].execution_provider not in known:
            raise ModelError(f"this onnxruntime has no {providers[0].execution_provider}")
        usable = [each for each in providers if each.execution_provider in known]
        try:
            self._session = ort.InferenceSession(
                model,
                options,
                providers=[each.execution_provider for each in usable],
                provider_options=[each.given(threads) for each in usable],
                enable_fallback=0,
            )
            # The binding keeps the bytes to fall back to other providers, which `of` does: 10 MB less memory.
            self._session._model_bytes = None
        except Exception as error:
            # onnxruntime's exceptions share no base class below Exception.
            raise ModelError(f"onnxruntime cannot load the model: {first_line(error)[:MOST_SAID]}") from None
        # One whose libraries are not there is left out without a word.
        if self.provider != providers[0].execution_provider:
            raise ModelError(
                f"{providers[0].execution_provider} does not start; are its libraries installed?"
            )
        self._inputs = inputs
        self._accepted: tuple[int, ...] = ()
        self.output_names = outputs.names
        self._names = list(outputs.names)
        self._check(inputs, outputs)
        self._next: Callable[[str], Session] | None = None  # loads it for the providers after this one
        self._falling_back = Lock()

    @classmethod
    def of(
        cls, manifest: Manifest, model: bytes, *, threads: int, providers: Sequence[Provider] = ON_CPU
    ) -> "Session":
        """Load the verified bytes of a manifest's model for the first of `providers` that can run it.

        An accelerator has to start, and to compute what the golden file says. One that does not, or that
        fails in a later run, is logged, and the next is taken. After all others that is the processor, whose
        self-test is the caller's. The bytes are kept as long as an accelerator is in use.

        Raises:
            ModelError: onnxruntime cannot load it, or is older than the model needs.
            ModelShapeError: Its inputs or outputs are not those of the manifest.
        """
        needed = manifest.needs_onnxruntime
        if needed and _release(ort.__version__) < _release(needed):
            raise ModelError(
                f"{manifest.name}: needs onnxruntime {needed} or newer, here is {ort.__version__}; upgrade "
                'it or set recognition.embedder = "auto", which takes a model that runs here'
            )
        try:
            return cls.on_first(providers, manifest, model, threads=threads)
        except ModelShapeError as error:
            raise ModelShapeError(f"{manifest.name}: {error}") from None
        except ModelError as error:
            raise ModelError(f"{manifest.name}: {error}; run `edge models verify`") from None

    @classmethod
    def on_first(
        cls, providers: Sequence[Provider], manifest: Manifest, model: bytes, *, threads: int
    ) -> "Session":
        """Do what `of` does, without a word of advice in what it raises.

        Raises:
            ModelError: The processor cannot run it either.
            ModelShapeError: Its inputs or outputs are not those of the manifest.
        """
        *accelerators, processor = _with_processor(providers)
        for place, provider in enumerate(accelerators):
            try:
                session = cls(
                    model,
                    inputs=manifest.input,
                    outputs=manifest.output,
                    threads=threads,
                    providers=(*accelerators[place:], processor),
                )
                if manifest.golden is not None:
                    self_test(session, manifest)
            except ModelError as error:
                log.error("%s does not run on %s: %s", manifest.name, provider.name, error)
            else:
                after = (*accelerators[place + 1 :], processor)
                session._next = partial(cls._instead, provider, after, manifest, model, threads)
                return session
        return cls(
            model, inputs=manifest.input, outputs=manifest.output, threads=threads, providers=(processor,)
        )

    @classmethod
    def _instead(
        cls, of: Provider, after: Sequence[Provider], manifest: Manifest, model: bytes, threads: int, why: str
    ) -> "Session":
        """Load the model for the first of `after`, and tell it, because it failed on another in a run.

        Raises:
            ModelError: It cannot be loaded, or the processor computes something else than it should.
        """
        session = cls.on_first(after, manifest, model, threads=threads)
        if session._next is None and manifest.golden is not None:
            self_test(session, manifest)
        told = "%s failed on %s while it ran, and goes on on %s until the next reload or start: %s"
        log.error(told, manifest.name, of.name, session.provider, why)
        return session

    @property
    def provider(self) -> str:
        """The execution provider in use, as onnxruntime calls it; another one after it has failed."""
        return str(self._session.get_providers()[0])

    def run(self, array: FloatArray, shapes: dict[str, tuple[int, ...]] | None = None) -> list[FloatArray]:
        """Run on float32 (1, 3, H, W); returns the outputs in the order of `output_names`.

        `shapes` are those that outputs must have. Without memory for an input of a new size, OpenVINO (in
        onnxruntime 1.24) answers with what it had said to the size before, and reports no error.

        Raises:
            ModelShapeError: The array is not of the declared type or size.
            ModelError: onnxruntime failed, and so did every provider that was left.
        """
        if array.shape != self._accepted or array.dtype != np.float32:
            self._accept(array)
        session = self._session
        try:
            results: list[FloatArray] = session.run(self._names, {self._inputs.name: array})
        except Exception as error:
            why = f"onnxruntime failed: {first_line(error)[:MOST_SAID]}"
        else:
            answered = {name: result.shape for name, result in zip(self._names, results, strict=True)}
            if answered == answered | (shapes or {}):
                return results
            why = f"onnxruntime answered with {answered} instead of {shapes}"
        self._fall_back(session, why)
        return self.run(array, shapes)

    def _fall_back(self, failed: ort.InferenceSession, why: str) -> None:
        """Replace what failed by the model on the next provider, unless another thread has done it.

        Raises:
            ModelError: There is no other, or it cannot be loaded now; the next failed run tries it again.
        """
        with self._falling_back:
            if self._session is not failed:
                return
            if self._next is None:
                raise ModelError(why)
            try:
                other = self._next(why)
            except ModelError as error:
                raise ModelError(f"{why}; and on the next provider: {error}") from None
            self._session, self._next = other._session, other._next

    def _accept(self, array: FloatArray) -> None:
        if array.dtype != np.float32 or not self._inputs.accepts(array.shape):
            raise ModelShapeError(
                f"input {array.dtype} {array.shape} is not float32 {_declared(self._inputs)}"
            )
        self._accepted = array.shape

    def _check(self, inputs: Input, outputs: Output) -> None:
        found = [node for node in self._session.get_inputs() if node.name == inputs.name]
        if not found or len(self._session.get_inputs()) != 1:
            has = ", ".join(node.name for node in self._session.get_inputs())
            raise ModelShapeError(f"the model's inputs are [{has}], the manifest declares [{inputs.name}]")
        shape = found[0].shape
        sides = inputs.size or ("free", "free")
        right = len(shape) == 4 and shape[:2] == [1, 3] and found[0].type == "tensor(float)"
        if not right or any(
            isinstance(a, int) != isinstance(b, int) for a, b in zip(shape[2:], sides, strict=True)
        ):
            raise ModelShapeError(f"input {found[0].type} {shape} is not float32 {_declared(inputs)}")
        if inputs.size and tuple(shape[2:]) != inputs.size:
            raise ModelShapeError(f"input {shape} is not {_declared(inputs)}")
        has_outputs = {node.name: node for node in self._session.get_outputs()}
        if missing := [name for name in outputs.names if name not in has_outputs]:
            raise ModelShapeError(f"the model has no output {', '.join(missing)}")
        for name in outputs.names:
            fixed = [side for side in has_outputs[name].shape if isinstance(side, int)]
            if int(np.prod(fixed, dtype=object)) > MAX_OUTPUT_VALUES:
                raise ModelShapeError(f"output {name} {has_outputs[name].shape} is absurdly large")
            if outputs.dim is not None and has_outputs[name].shape != [1, outputs.dim]:
                raise ModelShapeError(
                    f"output {name} {has_outputs[name].shape} is not [1, {outputs.dim}] as declared"
                )


def self_test(session: Session, manifest: Manifest) -> None:
    """Run the golden input and compare: catches a broken build, runtime or processor, not a wrong file.

    Raises:
        ModelIntegrityError: The model computes something else than on the machine that wrote the golden file.
        ModelError: The golden file cannot be read.
    """
    path = manifest.golden_path
    golden = read_golden(path)
    results = session.run(pattern(*golden.size))
    for name, result in zip(session.output_names, results, strict=True):
        expected = np.asarray(golden.outputs.get(name, ()), np.float64)
        actual = sample(result)
        if actual.shape != expected.shape:
            raise ModelIntegrityError(f"{manifest.name}: output {name} has another size than in {path}")
        cosine = _cosine(actual, expected)
        if not cosine >= golden.min_cosine:
            raise ModelIntegrityError(
                f"{manifest.name}: self-test failed: output {name} has cosine {cosine:.5f} to the expected "
                f"one, at least {golden.min_cosine} is needed; run `edge models verify`"
            )


def pattern(height: int, width: int) -> FloatArray:
    """Return the golden input: float32 (1, 3, height, width), whole numbers in 0..255."""
    y, x, channel = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    stripes = np.abs((7 * x + 3 * y + 90 * channel) % 510 - 255)
    rings = ((x - width // 2) ** 2 + (y - height // 2) ** 2) // 4 + 40 * channel
    image = (2 * stripes + np.abs(rings % 510 - 255)) // 3
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)


def sample(output: FloatArray) -> NDArray[np.float64]:
    """Return at most `GOLDEN_VALUES` evenly spaced values of an output: what a golden file keeps of it."""
    flat = output.reshape(-1).astype(np.float64)
    return flat[:: -(-len(flat) // GOLDEN_VALUES)]


def record_golden(session: Session, size: tuple[int, int], min_cosine: float) -> Golden:
    """Run the golden input of (height, width) and keep the answer."""
    results = session.run(pattern(*size))
    outputs = {
        name: tuple(float(f"{value:.6g}") for value in sample(result))
        for name, result in zip(session.output_names, results, strict=True)
    }
    return Golden(size=size, min_cosine=min_cosine, outputs=outputs)


def read_golden(path: Path) -> Golden:
    """Read a golden file.

    Raises:
        ModelError: It is absent or damaged.
    """
    try:
        return Golden.model_validate_json(files.read_regular(path))
    except OSError as error:
        raise ModelError(
            f"{path}: cannot read the golden file: {error.strerror}; install edge again"
        ) from None
    except ValidationError:
        raise ModelError(f"{path}: damaged golden file; install edge again") from None


@cache
def _share_buffers() -> None:
    """Keep what one run of any session needed for the next run of any other. Safe for several threads."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(ARENA))


def _with_processor(providers: Sequence[Provider]) -> list[Provider]:
    """Return those up to the processor, which is added where it is not named."""
    before = list(takewhile(lambda each: each.name != CPU, providers))
    return [*before, *(providers[len(before) : len(before) + 1] or ON_CPU)]


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the cosine in [-1, 1]; NaN where either is zero or not finite, which no threshold passes."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms > 0 else float("nan")


def _declared(inputs: Input) -> str:
    if inputs.size is not None:
        return f"(1, 3, {inputs.size[0]}, {inputs.size[1]})"
    return f"(1, 3, H, W) with H and W free multiples of {inputs.multiple_of_px}"


def _release(version: str) -> tuple[int, ...]:
    """Return major and minor number of a version such as 1.24.1 or 1.25.0.dev3."""
    return tuple(int(number) for number in version.split(".")[:2])
