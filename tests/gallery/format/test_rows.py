"""Embeddings as text: they come back to the bit, and what is none is refused."""

import base64

import numpy as np
import pytest

from edge.gallery.format.rows import are_unit, rows_of, rows_text
from tests.support.gallery_samples import unit_rows


def test_rows_come_back_to_the_bit():
    rows = unit_rows(3)
    assert rows_of(rows_text(rows), 128).tobytes() == rows.tobytes()
    assert rows_of(rows_text(rows), 128).shape == (3, 128)
    [row] = rows_of(rows_text(rows[1]))
    assert row.tobytes() == rows[1].tobytes()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("%%%%", id="no base64"),
        pytest.param(base64.b64encode(bytes(7)).decode(), id="no whole number"),
        pytest.param(base64.b64encode(bytes(4 * 127)).decode(), id="too short"),
    ],
)
def test_what_holds_no_rows_is_refused(text: str):
    with pytest.raises(ValueError):  # noqa: PT011
        rows_of(text, 128)


@pytest.mark.parametrize(
    ("factor", "unit"), [(1.0, True), (1.0005, True), (1.01, False), (np.nan, False), (1e30, False)]
)
def test_rows_of_another_norm_are_seen(factor: float, unit: bool):
    rows = unit_rows(2)
    rows[1] *= np.float32(factor)
    assert are_unit(rows) == unit
