"""A push by a setting's name in the last release is the same push as one by its name now."""

import pytest

from edge.device.pushes.push import PushLayer, acknowledged, keys_of, merged, mistakes, refusals
from edge.device.settings.load import Settings

OLD, NEW = {"gallery": {"shadow_share": 0.5}}, {"gallery": {"candidate_share": 0.25}}


def test_it_may_be_pushed_and_its_mistakes_are_found():
    assert refusals(OLD, Settings()) == {}
    assert mistakes(OLD) == {}
    assert mistakes({"gallery": {"shadow_share": 2}}).keys() == {"gallery.candidate_share"}
    assert keys_of(OLD) == {"gallery.candidate_share": 0.5}


@pytest.mark.parametrize(
    ("weak", "strong", "share"),
    [pytest.param(NEW, OLD, 0.5, id="old"), pytest.param(OLD, NEW, 0.25, id="new")],
)
def test_the_stronger_layer_wins_by_whichever_name(
    weak: dict[str, object], strong: dict[str, object], share: float
):
    layers = {"fleet": PushLayer(version=1, patch=weak), "device": PushLayer(version=1, patch=strong)}
    assert merged(layers.values()) == {"gallery": {"candidate_share": share}}
    assert acknowledged("fleet", layers) == {"gallery.candidate_share": "overridden by device"}
