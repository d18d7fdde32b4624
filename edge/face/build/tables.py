"""What was measured on faces, as data: read, checked and written. Measures nothing."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.core.errors import ModelError

Percent = Annotated[int, Field(ge=1, le=200)]
Positive = Annotated[float, Field(gt=0)]


class Measured(BaseModel):
    """A table of the statistics: unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LayerStatistics(Measured):
    """One convolution. `low` and `high` bound the value around its PReLU after equalisation.

    Per output channel: `equalise` divides the output, `clip_percent` of the largest weight becomes 127,
    `correction` is added to the integer bias.
    """

    name: str
    low: float = Field(lt=0)
    high: float = Field(gt=0)
    equalise: tuple[Positive, ...]
    clip_percent: tuple[Percent, ...]
    correction: tuple[int, ...]


class FcStatistics(Measured):
    """The fully connected layer; `correction` is added to the float bias."""

    clip_percent: tuple[Percent, ...]
    correction: tuple[float, ...]


class Statistics(Measured):
    """All that the int8 recipe needs beside the parent's weights. `source` says what it was measured on."""

    source: str
    layers: tuple[LayerStatistics, ...]
    fc: FcStatistics


def read_statistics(text: bytes) -> Statistics:
    """Parse committed statistics.

    Raises:
        ModelError: They are damaged.
    """
    try:
        return Statistics.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise ModelError(f"statistics: {where}: {first['msg']}; install edge again") from None


def write_statistics(statistics: Statistics) -> str:
    """Return JSON with one line per list, so that a change can be read."""
    text = statistics.model_dump_json()
    return text.replace('],"', '],\n"').replace('{"name"', '\n{"name"') + "\n"
