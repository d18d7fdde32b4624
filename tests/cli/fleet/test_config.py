"""`edge config` as an operator calls it: keys, envelopes, what is refused before it is sent, the schema."""

import hashlib
import json
import stat
from pathlib import Path

import jsonschema
import pytest

from edge.cli.fleet.config import detail_table, push_table, row, status_table
from edge.core.errors import EdgeError
from edge.device.pushes.push import MAX_ENVELOPE_BYTES, PAYLOAD_TYPE, document, marks
from edge.fleet.rollout.config import SiteView
from edge.mqtt.contract.envelope import opened
from tests.support.command_line import run, write_config
from tests.support.places import ROOT
from tests.support.pushes import push

SCHEMA = ROOT / "deploy" / "edge.schema.json"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write_config(tmp_path, site="test", device="office", state_dir=tmp_path / "state")
    (tmp_path / "patch.toml").write_text("[decision]\nmargin = 0.1\n")
    return tmp_path


def refused(*arguments: str) -> str:
    with pytest.raises(EdgeError) as caught:
        run("config", *arguments)
    return str(caught.value)


def test_a_key_signs_what_devices_that_trust_it_open(site: Path):
    told = run("config", "keygen", str(site / "push.pem"))
    trusted = json.loads(told.split("trusted_keys = ")[1])
    assert stat.S_IMODE((site / "push.pem").stat().st_mode) == 0o600
    settings = ("--config", str(site / "edge.toml"), "--key", str(site / "push.pem"))
    envelope = run("config", "sign", str(site / "patch.toml"), "--name", "door", "--version", "5", *settings)
    content = json.loads(opened(envelope.strip().encode(), PAYLOAD_TYPE, trusted, MAX_ENVELOPE_BYTES))
    assert content == {
        "schema": "edge.config-desired/1",
        "scope": "device",
        "site": "test",
        "name": "door",
        "version": 5,
        "patch": {"decision": {"margin": 0.1}},
    }
    assert "never overwritten" in refused("keygen", str(site / "push.pem"))


@pytest.mark.parametrize(
    ("patch", "options", "says"),
    [
        pytest.param(
            "[mqtt]\nhost = 'evil'", ("--name", "door"), "mqtt.host: may not be pushed", id="a host"
        ),
        pytest.param("[decisions]\nmargin = 1", ("--name", "door"), "unknown key", id="unknown"),
        pytest.param("margin = ", ("--name", "door"), "cannot be read", id="no TOML"),
        pytest.param("[decision]\nmargin = 0.1", (), "--name", id="nobody named"),
        pytest.param(
            "[decision]\nmargin = 0.1", ("--scope", "fleet", "--name", "x"), "--name", id="a named fleet"
        ),
        pytest.param("[decision]\nmargin = 0.1", ("--name", "Door 1"), "cannot be in a topic", id="no slug"),
        pytest.param(
            "[decision]\nthreshold = 7",
            ("--name", "d"),
            "decision.threshold: input should be less",
            id="range",
        ),
        pytest.param(
            "[decision]\nmargin = nan", ("--name", "d"), "decision.margin: input", id="not a number"
        ),
        pytest.param("[decision]\nmargin = 'x'", ("--name", "d"), "decision.margin: input", id="wrong type"),
        pytest.param(
            "[decision]\nmargin = 0.1", ("--name", "d", "--version", "0"), "--version: 0 is not", id="0"
        ),
        pytest.param(
            "[decision]\nmargin = 0.1", ("--name", "d", "--version", "-1"), "--version: -1", id="below 0"
        ),
        pytest.param(
            "[decision]\nmargin = 0.1", ("--name", "d", "--version", "9" * 20), "--version: 999", id="beyond"
        ),
    ],
)
def test_what_devices_would_refuse_is_refused_here(
    site: Path, patch: str, options: tuple[str, ...], says: str
):
    run("config", "keygen", str(site / "push.pem"))
    (site / "patch.toml").write_text(patch)
    settings = ("--config", str(site / "edge.toml"), "--key", str(site / "push.pem"))
    for verb in ("sign", "push"):
        assert says in refused(verb, str(site / "patch.toml"), *options, *settings)


def test_a_key_that_others_may_read_signs_nothing(site: Path):
    run("config", "keygen", str(site / "push.pem"))
    (site / "push.pem").chmod(0o644)
    told = refused("sign", str(site / "patch.toml"), "--name", "door", "--key", str(site / "push.pem"))
    assert "chmod 600" in told


def test_a_difference_says_what_takes_effect_when(site: Path):
    (site / "patch.toml").write_text("[decision]\nmargin = 0.1\n[log]\nlevel = 'debug'\n[mqtt]\nhost = 'x'\n")
    told = run("config", "diff", str(site / "patch.toml"), "--config", str(site / "edge.toml"), code=1)
    for part in ("0.05", "0.1", "live", "restart", "may not be"):
        assert part in told


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        pytest.param("[decision]\nthreshold = 7", "less than or equal to 1", id="range"),
        pytest.param("[decision]\nmargin = nan", "finite", id="not a number"),
        pytest.param("[decision]\nmargin = '[/x]'", "[/x]", id="what looks like markup"),
    ],
)
def test_a_difference_that_no_device_would_take_is_refused(site: Path, patch: str, says: str):
    (site / "patch.toml").write_text(patch)
    told = run("config", "diff", str(site / "patch.toml"), "--config", str(site / "edge.toml"), code=1)
    assert says in " ".join(told.replace("│", " ").split())


def test_a_difference_that_does_not_go_with_the_rest_is_refused_in_one_line(site: Path):
    (site / "patch.toml").write_text("[decision]\nmin_shots = 20\n")
    assert "min_shots must not exceed" in refused(
        "diff", str(site / "patch.toml"), "--config", str(site / "edge.toml")
    )


def test_the_schema_is_current_and_says_of_every_setting_what_a_push_may_do():
    assert json.loads(SCHEMA.read_text()) == document(), "edge config schema > deploy/edge.schema.json"
    jsonschema.Draft202012Validator.check_schema(document())
    jsonschema.validate({"decision": {"margin": 0.1}}, document())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"decision": {"margins": 0.1}}, document())
    said = [field["push"] for table in document()["$defs"].values() for field in table["properties"].values()]
    assert set(said) == {"never", "live", "restart", "stricter"}
    assert said.count("live") == list(marks().values()).count("live")


def report(**changes: object) -> bytes:
    told = {
        "schema": "edge.config-reported/1",
        "at": "2026-11-24T12:00:00.000Z",
        "status": "applied",
        "layer": "fleet",
        "version": 7,
        "keys": {},
        "error": None,
        "versions": {"fleet": 7},
        "effective": "0" * 64,
    }
    return json.dumps(told | changes).encode()


def refused_push(data: bytes, count: int) -> dict[str, object]:
    return {
        "at": "2026-11-24T12:00:00.000Z",
        "layer": "fleet",
        "reason": "untrusted_key",
        "error": "not signed by a key that is trusted here",
        "sha256": hashlib.sha256(data).hexdigest(),
        "count": count,
    }


def test_the_operators_view_follows_what_devices_publish():
    data = push(7, scope="fleet", name=None)
    view = SiteView()
    view.hear("edge/v1/test/h/config/reported", report(versions={}, version=6, refused=refused_push(data, 1)))
    pushed = view.push("fleet", None, 7, data)
    for name, told in {
        "a": report(),
        "b": report(status="rolled_back", versions={}, error="no frame"),
        "c": report(status="pending"),
        "d": report(layer="device", version=3, versions={"fleet": 7, "device": 3}),
        "e": report(version=6, versions={"fleet": 6}),
        "f": b"nonsense",
        "h": report(versions={}, version=6, refused=refused_push(data, 1)),
        "i": report(versions={}, version=6, refused=refused_push(data, 2)),
        "j": report(versions={}, version=6, refused=refused_push(b"somebody else's", 9)),
        "k": report(versions={}, version=6, groups=["north"]),
    }.items():
        view.hear(f"edge/v1/test/{name}/status", b"online")
        view.hear(f"edge/v1/test/{name}/config/reported", told)
    view.hear("edge/v1/test/g/status", b"offline")
    view.hear("edge/v1/test/_fleet/config/desired", data)
    view.hear("edge/v1/test/_group-north/config/desired", push(2, scope="group", name="north"))
    view.hear("edge/v1/test/a/config/desired", b"\xff")
    view.hear("edge/v1/test/typo/config/desired", push(1, name="typo"))
    assert view.layers == {"fleet": 7, "group:north": 2}
    assert view.came_to(pushed) == {
        "a": ("applied", ""),
        "b": ("rolled_back", "no frame"),
        "c": ("pending", ""),
        "d": ("applied", ""),
        "e": ("waiting", "no answer yet"),
        "f": ("waiting", "no answer yet"),
        "g": ("offline", ""),
        "h": ("waiting", "no answer yet"),
        "i": ("refused", "not signed by a key that is trusted here"),
        "j": ("waiting", "no answer yet"),
        "k": ("waiting", "no answer yet"),
    }
    assert list(view.concerned("group:north", "north")) == ["k"], "also where it never heard of this layer"
    assert view.concerned("device", "typo") == {}, "what was published for it does not make it be there"
    assert list(view.concerned("device", "a")) == ["a"]


def test_what_a_device_says_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]):
    view = SiteView()
    view.hear("edge/v1/test/a/config/reported", report(error="[red]\x1b]0;owned\x07\n[/nonsense]"))
    status_table("test", {"a": row(view.devices["a"])}).print()
    detail_table("a", view.devices["a"]).print()
    push_table("[b", {"\x1b[2J": ("applied", "\x1b[31m")}).print()
    shown = capsys.readouterr().out
    assert "[red]" in shown
    assert "[/nonsense]" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown
