import pytest

from edge.core.errors import ConfigError
from edge.mqtt.contract.topics import Topics

BAD_SLUGS = [
    pytest.param("", id="empty"),
    pytest.param("a" * 33, id="too long"),
    pytest.param("Front", id="capital"),
    pytest.param("front door", id="space"),
    pytest.param("a/b", id="another level"),
    pytest.param("+", id="wildcard for a level"),
    pytest.param("#", id="wildcard for all"),
    pytest.param("$SYS", id="the broker's own"),
    pytest.param("tür", id="not ASCII"),
    pytest.param("front\n", id="newline at the end"),
    pytest.param("..", id="dots"),
]


def test_topics_are_those_of_the_contract() -> None:
    topics = Topics("hq", "door-03")

    assert topics.status == "edge/v1/hq/door-03/status"
    assert topics.info == "edge/v1/hq/door-03/info"
    assert topics.health == "edge/v1/hq/door-03/health"
    assert topics.camera_status("front") == "edge/v1/hq/door-03/camera/front/status"
    assert topics.camera_info("front") == "edge/v1/hq/door-03/camera/front/info"
    assert topics.event("front") == "edge/v1/hq/door-03/camera/front/event"
    assert topics.journal("front") == "edge/v1/hq/door-03/camera/front/journal"
    assert topics.state("front") == "edge/v1/hq/door-03/camera/front/state"


@pytest.mark.parametrize("slug", BAD_SLUGS)
def test_a_bad_name_is_refused_at_birth(slug: str) -> None:
    with pytest.raises(ConfigError, match=r"^site: "):
        Topics(slug, "door")
    with pytest.raises(ConfigError, match=r"^device: "):
        Topics("hq", slug)
    with pytest.raises(ConfigError, match=r"^camera: .*use 1 to 32"):
        Topics("hq", "door").event(slug)


def test_two_devices_never_share_a_client_id() -> None:
    assert Topics("a-b", "c").client_id != Topics("a", "b-c").client_id
