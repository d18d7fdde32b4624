"""What a reload puts in force at once, and what it keeps until a restart."""

from typing import Any

import pytest

from edge.device.settings.load import kept, load


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        pytest.param({"site": "other"}, ["site"], id="a name"),
        pytest.param({"mqtt": {"port": 1884}}, ["mqtt"], id="a table"),
        pytest.param({"homeassistant": {"discovery": True}}, ["homeassistant"], id="discovery"),
        pytest.param({"homeassistant": {"prefix": "ha"}}, ["homeassistant"], id="its prefix"),
        pytest.param({"push": {"groups": ["north"]}}, ["push.groups"], id="a key of a table"),
    ],
)
def test_what_needs_a_restart_is_named_and_stays(changes: dict[str, Any], names: list[str]):
    now = load(None, {})
    assert kept(now, load(None, changes)) == (now, names)


def test_the_rest_of_a_table_changes_at_once():
    now, wanted = load(None, {}), load(None, {"push": {"groups": ["north"], "probation_s": 7}})
    settings, names = kept(now, wanted)
    assert (settings.push.groups, settings.push.probation_s, names) == ((), 7, ["push.groups"])
    settings, names = kept(now, load(None, {"decision": {"margin": 0.1}}))
    assert (settings.decision.margin, names) == (0.1, [])
