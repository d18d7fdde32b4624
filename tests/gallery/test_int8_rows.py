"""int8 rows: what they say, and that older values of them never change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.errors import GalleryError
from edge.core.types import FloatArray
from edge.gallery.int8_matcher import GAPS, SPARE, Int8Rows, quantize, quantize_one
from tests.support.gallery_samples import unit_rows


def read(rows: Int8Rows) -> FloatArray:
    """Return what the codes say, float32 (rows, D), gaps left out."""
    values = rows.codes * rows.scales[:, None]
    return np.delete(values, rows.gaps, axis=0)


@pytest.mark.parametrize("dim", [2, 128, 512])
def test_no_row_is_farther_from_its_codes_than_the_error(dim: int):
    matrix = unit_rows(300, dim)
    rows = Int8Rows.of(matrix)
    distances = np.linalg.norm(read(rows) - matrix, axis=1)
    assert rows.error == pytest.approx(distances.max(), rel=1e-4)
    assert rows.nbytes == 300 * (dim + 4)


def test_one_row_is_quantized_like_many():
    matrix = unit_rows(50)
    codes, scales, error = quantize(matrix)
    alone = [quantize_one(row) for row in matrix]
    assert all((one[0] == row).all() for one, row in zip(alone, codes, strict=True))
    assert [one[1] for one in alone] == pytest.approx(scales.tolist())
    assert max(one[2] for one in alone) == pytest.approx(error, rel=1e-5)


@settings(max_examples=60, deadline=None, database=None)
@given(
    start=st.integers(1, 200),
    changes=st.lists(st.tuples(st.booleans(), st.integers(1, 60), st.integers(0, 2**31)), max_size=25),
)
def test_rows_follow_a_plain_list_and_older_ones_stay_as_they_are(
    start: int, changes: list[tuple[bool, int, int]]
):
    plain = unit_rows(start, 8)
    rows = Int8Rows.of(plain)
    history = [(rows, read(rows).copy())]
    for adds, count, seed in changes:
        if adds:
            new = unit_rows(count, 8, seed)
            plain, rows = np.concatenate((plain, new)), rows.appended(new)
        else:
            some = np.random.default_rng(seed).permutation(len(plain))[: min(count, len(plain) - 1)]
            plain, rows = np.delete(plain, some, axis=0), rows.without(np.sort(some))
        history.append((rows, read(rows).copy()))
        assert len(rows) == len(plain)
        np.testing.assert_allclose(read(rows), plain, atol=0.01)
        at = rows.positions(np.arange(len(rows)))
        assert (rows.numbers(at) == np.arange(len(rows))).all()
        np.testing.assert_array_equal(rows.codes[at] * rows.scales[at, None], read(rows))
    for old, was in history:
        np.testing.assert_array_equal(read(old), was)


def test_rows_that_fork_do_not_write_over_each_other():
    base = Int8Rows.of(unit_rows(10))
    left, right = base.appended(unit_rows(1, seed=1)), base.appended(unit_rows(1, seed=2))
    np.testing.assert_allclose(read(left)[-1], unit_rows(1, seed=1)[0], atol=0.01)
    np.testing.assert_allclose(read(right)[-1], unit_rows(1, seed=2)[0], atol=0.01)


def test_a_row_more_or_less_copies_nothing_but_now_and_then():
    rows = Int8Rows.of(unit_rows(20_000))
    copies, memory = 0, rows.memory
    new = unit_rows(1, seed=5)
    for _ in range(5000):
        rows = rows.appended(new)
        copies, memory = copies + (rows.memory is not memory), rows.memory
    assert copies <= 5000 / (20_000 * SPARE)
    copies = 0
    for number in range(2000):
        rows = rows.without(np.array([number * 7]))
        copies, memory = copies + (rows.memory is not memory), rows.memory
    assert copies <= 2000 / (20_000 * GAPS)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(np.full(128, np.nan, np.float32), id="NaN"),
        pytest.param(np.where(np.arange(128) == 3, np.inf, 0).astype(np.float32), id="infinity"),
        pytest.param(np.full(128, 1e30, np.float32), id="overflow"),
        pytest.param(unit_rows(1)[0] * 50, id="norm 50"),
        pytest.param(np.zeros(128, np.float32), id="norm 0"),
    ],
)
def test_a_row_that_would_match_everybody_is_refused(row: FloatArray):
    rows = Int8Rows.of(unit_rows(3))
    for count in (1, 2):
        with pytest.raises(GalleryError, match="unit norm"):
            rows.appended(np.stack([unit_rows(1)[0]] * (count - 1) + [row]))
    assert len(rows.appended(unit_rows(1))) == 4, "what was refused left nothing behind"
