"""The example for a web server, in a real nginx: what caches may keep, and doors that ask through one."""

import http.client
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from edge.core.errors import HeldBackError, ModelError
from edge.fleet.fleet import Fleet
from tests.support.fleets import Device, make_device, make_fleet, people
from tests.support.gallery_samples import MODEL, assert_equal
from tests.support.nginx import Nginx, running_cache, running_nginx

MANY = tuple(f"p-{number}" for number in range(200))
DAY, YEAR = "public, max-age=86400, immutable", "public, max-age=31536000, immutable"
MODEL_BYTES = 3 << 20

DEAF = "proxy_ignore_headers Cache-Control Expires; proxy_cache_valid any 1h;"
"""A cache that keeps everything for an hour, whatever it is told: also what is not there."""


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = make_fleet(tmp_path / "fleet", "front")
    fleet.publish_gallery("front", people(*MANY))
    return fleet


@pytest.fixture
def web(tmp_path: Path, fleet: Fleet) -> Iterator[Nginx]:
    with running_nginx(tmp_path / "nginx", fleet.published) as running:
        yield running


@pytest.fixture
def door(tmp_path: Path, fleet: Fleet, web: Nginx) -> Device:
    return make_device(tmp_path / "door", fleet, "front", web.url)


def get(web: Nginx, path: str, **asked: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(web.url.removeprefix("http://"), timeout=60)
    connection.request("GET", path, headers=asked)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_what_has_a_name_of_its_own_is_kept_by_caches_and_nothing_else(fleet: Fleet, web: Nginx):
    fleet.publish_model("net", {"net.onnx": b"x" * 100})
    fleet.rotate_key("root")
    paths = [path.relative_to(fleet.published).as_posix() for path in fleet.published.rglob("*.*")]
    kept = {path: get(web, f"/{path}").headers["Cache-Control"] for path in paths}
    assert kept.pop("metadata/timestamp.json") == "no-cache"
    models = {path for path in paths if path.startswith("targets/models/")}
    assert {kept.pop(path) for path in models} == {YEAR}
    assert len(kept) > 8
    assert set(kept.values()) == {DAY}
    for path in ("/metadata/3.root.json", "/metadata/timestamp.json.old", "/targets/galleries/front/x", "/a"):
        answer = get(web, path)
        assert (answer.status, answer.headers.get("Cache-Control")) == (
            404,
            "no-store" if path != "/a" else None,
        )


def test_a_cache_asks_again_for_little(web: Nginx):
    first = get(web, "/metadata/timestamp.json")
    again = get(web, "/metadata/timestamp.json", **{"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.headers["Cache-Control"]) == (304, "no-cache")


def test_nothing_but_the_published_files_is_offered(fleet: Fleet, web: Nginx):
    assert get(web, "/metadata/../../fleet.json").status == 400
    assert get(web, "/metadata/").status == 403
    assert get(web, "/").status == 404


def asked(web: Nginx, since: int = 0) -> list[str]:
    return [answer.path for answer in web.answers()[since:]]


def test_a_second_door_has_from_the_cache_what_the_first_one_had(tmp_path: Path, fleet: Fleet, web: Nginx):
    with running_cache(tmp_path / "cache", web.url) as cache:
        doors = [make_device(tmp_path / f"door-{number}", fleet, "front", cache.url) for number in range(3)]
        assert [door.sync().status for door in doors] == ["updated"] * 3
        assert len([path for path in asked(web) if path.endswith(".full.edge")]) == 1
        assert asked(web).count("/metadata/timestamp.json") == 3

        fleet.rotate_key("root")
        fleet.rotate_key("timestamp")
        fleet.publish_gallery("front", people(*MANY, "alice"))
        fleet.revoke("p-7")
        before = len(web.answers())
        assert [door.sync().version for door in doors] == [3] * 3
        assert "p-7" not in doors[2].known()
        targets = [path for path in asked(web, before) if path.startswith("/targets/galleries/")]
        assert [path.split(".", 1)[1] for path in targets] == ["full.edge"], (
            "a revocation leaves no difference"
        )

        names = [*MANY, "alice"]
        for name in ("bob", "carol", "dora"):
            names.append(name)
            fleet.publish_gallery("front", people(*names))
        before = len(web.answers())
        assert [door.sync().version for door in doors] == [6] * 3
        targets = [path for path in asked(web, before) if path.startswith("/targets/galleries/")]
        assert [path.split(".", 1)[1] for path in targets] == ["from-3.edge", "from-4.edge", "from-5.edge"]
        assert_equal(replace(doors[2].store.load(MODEL), version=6), fleet.gallery("front"))


def test_a_cache_that_keeps_everything_holds_doors_back_and_makes_no_storm(
    tmp_path: Path, fleet: Fleet, web: Nginx
):
    with running_cache(tmp_path / "cache", web.url, DEAF) as cache:
        door = make_device(tmp_path / "door", fleet, "front", cache.url)
        assert door.sync().version == 1
        fleet.rotate_key("root")
        fleet.rotate_key("timestamp")
        fleet.revoke("p-7")
        before = len(web.answers())
        assert (door.sync().status, door.sync().version) == ("current", 1)
        door.clock.shift = timedelta(days=8)
        for _ in range(3):
            with pytest.raises(HeldBackError, match="expired"):
                door.sync()
        assert len(door.known()) == 200
        assert asked(web, before) == []
    with running_cache(tmp_path / "other", web.url) as cache:
        door.source = replace(door.source, url=cache.url)
        door.clock.shift = timedelta(days=1)
        assert door.sync().version == 2
        assert "p-7" not in door.known()


def test_a_model_that_cannot_be_used_is_not_fetched_again_and_again(fleet: Fleet, web: Nginx, door: Device):
    weights = random.Random(0).randbytes(MODEL_BYTES)
    fleet.publish_model("net", {"manifest.toml": b"", "net.onnx": weights})
    fleet.publish_gallery("front", people(*MANY, model_id="net@12345678"), model="net")
    answers: list[tuple[str, int] | None] = [None, None, ("net@12345678", 128)]

    def adopt(name: str, fetch: Callable[[str], bytes]) -> tuple[str, int]:
        assert fetch("net.onnx") == weights
        if (answer := answers.pop(0)) is None:
            raise ModelError("it computes something else than it should")
        return answer

    for status in ("refused", "refused", "updated"):
        assert replace(door.syncer(), adopt=adopt).run().status == status
    assert len([path for path in asked(web) if path.endswith(".net.onnx")]) == 1
    assert not list((door.cache / "parts").iterdir())
