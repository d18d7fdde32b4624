"""Configuration: strict, explained, and every mistake named in one line."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from edge.core.errors import ConfigError
from edge.device.settings.load import Settings, environment_sets, explain, load
from edge.device.settings.tables import CameraSettings
from tests.support.places import ROOT

EXAMPLE = ROOT / "deploy" / "edge.example.toml"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "edge.toml"
    path.write_text(text)
    return path


def fields(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str]]:
    """All (table, key) of the settings."""
    found = []
    for name, field in model.model_fields.items():
        if name == "cameras":
            found += fields(CameraSettings, "cameras.front")
        elif isinstance(field.default, BaseModel):
            found += fields(type(field.default), name)
        else:
            found.append((prefix, name))
    return found


def test_the_example_file_is_a_valid_configuration():
    assert load(EXAMPLE).cameras["front"].source == "/dev/video0"


def test_the_example_file_holds_every_setting_and_no_other():
    table, told = "", []
    for line in EXAMPLE.read_text().splitlines():
        if header := re.fullmatch(r"\[([a-z.]+)\]", line):
            table = header[1]
        elif key := re.match(r"(?:# )?([a-z_]+) = ", line):
            told.append((table, key[1]))
    assert sorted(told) == sorted(fields(Settings))


def test_the_defaults_in_the_example_file_are_the_real_ones():
    uncommented = re.sub(r"^# (?=[a-z_]+ = (?!.*unset by default))", "", EXAMPLE.read_text(), flags=re.M)
    values = tomllib.loads(uncommented)
    values["cameras"]["front"].pop("source")
    for table, key in fields(Settings):
        section = values
        for part in filter(None, table.split(".")):
            section = section.get(part, {})
        model = CameraSettings if table.startswith("cameras") else Settings
        if table and model is Settings:
            model = type(Settings.model_fields[table].default)
        if key in section:
            default = model.model_fields[key].default
            assert section[key] == (list(default) if isinstance(default, tuple) else default), (
                f"{table}.{key}"
            )


def test_every_setting_is_described():
    settings = load(EXAMPLE)
    assert [each.key for each in explain(settings) if len(each.meaning) < 10] == []


def test_a_list_of_models_by_name_and_by_directory_is_shown(tmp_path: Path) -> None:
    settings = load(overrides={"liveness": {"model": ["liveness-minifas-128", str(tmp_path)]}})
    shown = {each.key: each.value for each in explain(settings)}
    assert shown["liveness.model"] == f"liveness-minifas-128 {tmp_path}"


@pytest.mark.parametrize(
    ("recognition", "says"),
    [
        ({"providers": ["gpu"]}, "'tensorrt', 'cuda', 'openvino', 'coreml', 'qnn' or 'cpu'"),
        ({"providers": []}, "at least 1 item"),
        ({"providers": ["cuda", "cuda"]}, "leave one of them out"),
        ({"provider_options": {"cuda": {"device_id": "0"}}}, "none of providers; add it there"),
        ({"providers": ["cuda"], "provider_options": {"cuda": {"device_id": 0}}}, "valid string"),
    ],
)
def test_providers_that_cannot_be_meant_are_refused(recognition: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(overrides={"recognition": recognition})


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGE_MQTT__PORT", "1999")
    monkeypatch.setenv("EDGE_CAMERAS__SIDE__SOURCE", "/dev/video1")
    settings = load(write(tmp_path, 'device = "door-03"\n[mqtt]\nhost = "broker"\nport = 1'))
    assert (settings.mqtt.host, settings.mqtt.port, settings.device) == ("broker", 1999, "door-03")
    assert settings.cameras["side"].source == "/dev/video1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("sight = 'hq'", "sight: unknown key", id="unknown key"),
        pytest.param("[mqtt]\nhots = 'x'", "mqtt.hots: unknown key", id="unknown key in a table"),
        pytest.param("[mqtt]\nport = 'x'", "mqtt.port: input should be a valid integer", id="wrong type"),
        pytest.param("[mqtt]\nport = 70000", "mqtt.port: input should be less than", id="out of range"),
        pytest.param("[decision]\nmargin = nan", "decision.margin: input should be a finite", id="nan"),
        pytest.param("[decision]\npatience_s = inf", "decision.patience_s: input should be", id="infinity"),
        pytest.param(
            "site = 'Head Quarter'", "site: must be 1 to 32 of a-z, 0-9 and -", id="site is no slug"
        ),
        pytest.param("[cameras.'a/b']\nsource = 'x'", "cameras.a/b", id="camera is no slug"),
        pytest.param("[cameras.a]", "cameras.a: set exactly one of source and command", id="no source"),
        pytest.param(
            "[cameras.a]\ncommand=['x']\nformat='bgr24'", "needs width and height", id="raw without size"
        ),
        pytest.param("[decision]\nmin_shots = 9", "min_shots must not exceed max_shots", id="shots"),
        pytest.param(
            "[liveness]\npolicy = 'require'\nmodel = []", "model names none", id="no liveness model"
        ),
        pytest.param("[liveness]\nmodel = []", "set policy off", id="none to report"),
        pytest.param("[liveness]\nmodel = [3]", "liveness.model", id="no name of a model"),
        pytest.param("[liveness]\npolicy = 'on'", "liveness.policy: input should be 'auto'", id="policy"),
        pytest.param("[liveness]\nthreshold = 0", "liveness.threshold: input should", id="all alive"),
        pytest.param("[liveness]\nthreshold = 1.1", "liveness.threshold: input should", id="none alive"),
        pytest.param("[liveness]\nthreshold = nan", "liveness.threshold: input should be", id="nan liveness"),
        pytest.param("[mqtt]\npassword = 'x'", "a password needs a username", id="password alone"),
        pytest.param("[mqtt]\nca_file = '/ca.pem'", "need tls = true", id="ca without tls"),
        pytest.param("site = ", "not valid TOML", id="broken toml"),
        pytest.param("a = " + "[" * 3000, "not valid TOML", id="deep toml"),
        pytest.param("#" * 300_000, "larger than", id="huge file"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file_and_the_key(tmp_path: Path, text: str, says: str):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_told_at_once_and_no_secret_is(tmp_path: Path):
    path = write(tmp_path, "bogus = 1\n[mqtt]\nport = 0\nusername = 'u'\npassword = ['hunter2']")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert all(key in str(caught.value) for key in ("bogus:", "mqtt.port:", "mqtt.password:"))
    assert "hunter2" not in str(caught.value)


def test_an_absent_file_and_a_misspelt_variable_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml")
    monkeypatch.setenv("EDGE_DEVISE", "x")
    with pytest.raises(ConfigError, match="EDGE_DEVISE is not a setting"):
        load()


OLD_NAME = "gallery.shadow_share is called candidate_share now"


def test_a_name_of_the_last_release_is_read_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    path = write(tmp_path, "[gallery]\nshadow_share = 0.5")
    assert load(path).gallery.candidate_share == 0.5
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: {OLD_NAME}; the old name is read for this release only"
    ]
    pushed = {"gallery": {"shadow_share": 0.75}}
    assert load(path, pushed).gallery.candidate_share == 0.75, "a push is above the file"
    monkeypatch.setenv("EDGE_GALLERY__SHADOW_SHARE", "1.0")
    caplog.clear()
    assert load(write(tmp_path, "[gallery]\ncandidate_share = 0.25"), pushed).gallery.candidate_share == 1.0
    assert f"environment: {OLD_NAME}" in caplog.text
    assert environment_sets("gallery.candidate_share")


def test_a_name_of_the_last_release_is_bounded_like_the_one_now(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"gallery\.candidate_share: input should be less"):
        load(write(tmp_path, "[gallery]\nshadow_share = 2"))


def test_what_is_shown_hides_secrets(tmp_path: Path):
    path = write(
        tmp_path,
        "[mqtt]\nusername='u'\npassword='hunter2'\n[cameras.a]\nsource='rtsp://u:hunter2@host/x?key=hunter2'",
    )
    assert "hunter2" not in str(list(explain(load(path))))


def test_a_relative_path_starts_where_the_program_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = [
        'state_dir = "state"\nmodels_dir = "models"\n[cameras.a]\nsource = "http://c/a"\nca_file = "a.pem"',
        '[liveness]\nmodel = "alive"\n[mqtt]\ntls = true\nusername = "u"\npassword_file = "mqtt/password"',
        'ca_file = "ca.crt"\ncert_file = "door.crt"\nkey_file = "door.key"',
        '[gallery]\ndevice_key = "k/d.key"\n[remote]\nsecret = "k/site.key"\napi_key_file = "api"',
        '[sync]\ntrusted_root = "root.json"\nsealing_key = "k/front.key"',
    ]
    path = write(tmp_path, "\n".join(text))
    monkeypatch.chdir(tmp_path)
    found = _paths(load(path))
    monkeypatch.chdir("/")
    assert len(found) == 13
    assert all(value.is_relative_to(tmp_path) for value in found)


def test_the_name_of_a_secret_alone_stays_a_name_for_systemd_to_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/edge.service")
    alone = load(write(tmp_path, '[gallery]\ndevice_key = "device.key"'))
    assert alone.device_key_path == Path("/run/credentials/edge.service/device.key")
    monkeypatch.chdir(tmp_path)
    assert load(write(tmp_path, 'state_dir = "."')).device_key_path == tmp_path / "device.key"


def _paths(model: BaseModel) -> list[Path]:
    """All paths among the settings."""
    found: list[Path] = []
    for name in type(model).model_fields:
        value = getattr(model, name)
        for each in value.values() if isinstance(value, dict) else [value]:
            found += [each] if isinstance(each, Path) else _paths(each) if isinstance(each, BaseModel) else []
    return found
