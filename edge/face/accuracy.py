"""How alike an embedder's answers are to those of the model it was made from, as its manifest tells it.

Measures nothing: `python -m edge.face.build.compare` does, and prints these figures.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

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
