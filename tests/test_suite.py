"""The suite itself: which tests come first."""

import pytest


def test_what_needs_nothing_but_python_runs_first(request: pytest.FixtureRequest):
    items = request.session.items
    real = [item.get_closest_marker("real") is not None for item in items]
    assert real == sorted(real)
    for item, is_real in zip(items, real, strict=True):
        assert isinstance(item, pytest.Function)
        assert is_real or "media" not in item.fixturenames
        assert is_real or item.get_closest_marker("e2e") is None, item.nodeid
