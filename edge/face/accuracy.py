"""What was measured of an embedder, as its manifest tells it: truth to its reference, and false matches.

Measures nothing: `python -m edge.lab.weights.compare` and `edge calibrate` do.
"""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIN_MEAN = 0.997
MIN_P01 = 0.994
"""The bar: mean and first percentile of the cosine to the reference.

Measured: at .9979 and .9961 (`sface-int8`) TPIR at FPIR .01 is that of the reference, at .003 it is
.003 lower.
"""

Cosine = Annotated[float, Field(ge=-1, le=1)]


class Accuracy(BaseModel):
    """Cosine to `reference` over the faces of `source`: unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    reference: str = Field(min_length=1)
    cosine_mean: Cosine
    cosine_p01: Cosine
    faces: int = Field(ge=100)
    source: str = Field(min_length=1)

    @property
    def within_bar(self) -> bool:
        """Whether the embedder may stand in for its reference."""
        return self.cosine_mean >= MIN_MEAN and self.cosine_p01 >= MIN_P01


class Calibration(BaseModel):
    """False match rate over threshold, measured on pairs of different subjects.

    `fmr[i]` is the share of impostor pairs whose cosine is >= `thresholds[i]`. Rates below `fitted_below` are
    not measured but follow from a fit to the tail. `low` and `high` are the 95 % interval of each threshold.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

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
