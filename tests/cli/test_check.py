"""`edge check`: true of what lies on this machine, a line for each thing that is wrong, and short."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.core import files
from tests.support.command_line import ended, invoke, on_terminal, run, write_config

CAMERA = 'cameras.front.source = "rtsp://10.0.0.5/live"'


def problems(
    tmp_path: Path, models: Path, *lines: str, state_dir: str = "", models_dir: str = ""
) -> list[str]:
    """Return what a check says is wrong; its exit code agrees."""
    places = {"state_dir": state_dir or tmp_path / "state", "models_dir": models_dir or models}
    done = ended("check", config=write_config(tmp_path, *lines, **places))
    assert "Traceback" not in done.stderr
    found = [line.removeprefix("edge: ") for line in done.stderr.splitlines() if line.startswith("edge: ")]
    assert done.returncode == (78 if found else 0), done.stderr
    return found


def test_a_device_that_can_work_has_no_problem_and_is_left_as_it_was(tmp_path: Path, models_dir: Path):
    assert problems(tmp_path, models_dir, CAMERA) == []
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["edge.toml"]


@pytest.mark.parametrize(
    ("lines", "settings", "says"),
    [
        pytest.param([], {}, "cameras: there is none; add a table [cameras.front]", id="no camera"),
        pytest.param(
            [CAMERA], {"state_dir": "/proc/x/y"}, "state_dir: /proc/x/y cannot be made", id="no place"
        ),
        pytest.param(
            [CAMERA], {"state_dir": "/etc/passwd"}, "state_dir: /etc/passwd cannot be wr", id="a file"
        ),
        pytest.param(
            [CAMERA], {"state_dir": "/etc/passwd/x"}, "cannot be made below /etc/passwd", id="in a file"
        ),
        pytest.param([CAMERA], {"models_dir": "/nowhere"}, "edge models fetch", id="no models"),
        pytest.param(
            ['cameras.front.source = "/none/clip.mp4"'],
            {},
            "cameras.front.source: /none/clip.mp4: no such clip or folder",
            id="no clip",
        ),
        pytest.param(['cameras.front.source = "/etc/passwd"'], {}, "cannot be decoded", id="no video"),
        pytest.param(
            ['cameras.front.source = "/dev/video99"'],
            {},
            "/dev/video99: there is no such device",
            id="no device",
        ),
        pytest.param(['cameras.front.source = "/dev/shm"'], {}, "/dev/shm is no camera", id="another device"),
        pytest.param(
            ['cameras.front.source = "ftp://x"'], {}, "ftp://x: not a camera", id="no camera's address"
        ),
        pytest.param(
            ['cameras.front.command = ["nosuch"]'], {}, "there is no program 'nosuch'", id="no program"
        ),
        pytest.param(
            [CAMERA, 'cameras.front.ca_file = "/none.pem"'],
            {},
            "cameras.front.ca_file: /none.pem: holds no certificates",
            id="no authority of a camera",
        ),
        pytest.param(
            [CAMERA, "mqtt.tls = true", 'mqtt.ca_file = "/etc/passwd"'],
            {},
            "mqtt.ca_file: cannot use",
            id="no PEM",
        ),
        pytest.param(
            [CAMERA, 'mqtt.username = "a"', 'mqtt.password_file = "/none"'],
            {},
            "mqtt.password_file: cannot read /none",
            id="no password",
        ),
        pytest.param(
            [CAMERA, 'gallery.device_key = "/none.key"'],
            {},
            "device key: /none.key: there is no key",
            id="no device key",
        ),
        pytest.param(
            [CAMERA, 'remote.policy = "unknown"', 'remote.url = "https://x:1"', 'remote.secret = "/none"'],
            {},
            "remote: /none: there is no key",
            id="no secret",
        ),
        pytest.param(
            [CAMERA, "[liveness]", 'policy = "report"', 'model = "/none"'],
            {},
            "/none",
            id="no liveness model",
        ),
    ],
)
def test_what_cannot_work_is_told(
    tmp_path: Path, models_dir: Path, lines: list[str], settings: dict[str, str], says: str
):
    (found,) = problems(tmp_path, models_dir, *lines, **settings)
    assert says in found


def test_each_thing_that_is_wrong_has_its_line(tmp_path: Path, models_dir: Path):
    key = tmp_path / "sealing.key"
    files.write_key(key, bytes(32))
    key.chmod(0o644)
    fleet = f'[sync]\nurl = "/srv/none"\ntrusted_root = "/none.json"\nsealing_key = "{key}"'
    found = problems(tmp_path, models_dir, 'cameras.front.source = "/none"', fleet, state_dir="/proc/x")
    assert [line.split(":")[0] for line in found] == [
        "state_dir",
        "cameras.front.source",
        "sync.url",
        "sync.trusted_root",
        "sync.sealing_key",
    ]


def test_wrong_settings_have_a_line_each_without_patterns(tmp_path: Path, models_dir: Path):
    wrong = (
        ('site = "A b"', "site: must be 1 to 32 of a-z, 0-9 and -"),
        ('homeassistant.prefix = "a b"', "homeassistant.prefix: must be 1 to 64 of A-Z, a-z, 0-9, _ and -"),
        ('push.trusted_keys = ["x"]', "push.trusted_keys.0: is not written as it has to be"),
        ("mqtt.prot = 1", "mqtt.prot: unknown key; did you mean port?"),
        ('camera.front.source = "/dev/video0"', "camera: unknown key; did you mean cameras?"),
        (
            'cameras.front = { sorce = "x", source = "x" }',
            "cameras.front.sorce: unknown key; did you mean source?",
        ),
        ("zzz = 1", "zzz: unknown key; remove it or correct its spelling"),
    )
    found = problems(tmp_path, models_dir, *(line for line, _ in wrong))
    where = f"{tmp_path / 'edge.toml'}: "
    assert sorted(found) == sorted(where + says for _, says in wrong)


def test_a_wrong_variable_is_told_as_the_environment_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = write_config(tmp_path, CAMERA)
    monkeypatch.setenv("EDGE_MQTT__HOTS", "x")
    assert "edge: environment: mqtt.hots: unknown key; did you mean host?" in run(
        "check", config=config, code=78
    )
    monkeypatch.delenv("EDGE_MQTT__HOTS")
    monkeypatch.setenv("EDGE_CAMERA", "x")
    assert "EDGE_CAMERA is not a setting; did you mean cameras?" in run("check", config=config, code=78)


def test_what_differs_is_shown_with_where_it_comes_from(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EDGE_MQTT__PORT", "1884")
    config = write_config(
        tmp_path, CAMERA, "mqtt.keepalive_s = 15", state_dir=tmp_path / "state", models_dir=models_dir
    )
    rows = [
        re.split(r" *│ *", line)[1:-1] for line in run("check", config=config).splitlines() if "│" in line
    ]
    assert rows == [
        ["state_dir", str(tmp_path / "state"), "file"],
        ["models_dir", str(models_dir), "file"],
        ["cameras.front.source", "rtsp://10.0.0.5/live", "file"],
        ["mqtt.port", "1884", "environment"],
    ]
    everything = run("check", "--all", config=config)
    assert re.search(r"mqtt\.keepalive_s +│ 15 +│ file +│ A silent broker", everything)
    assert re.search(r"mqtt\.host +│ localhost +│ default +│ Broker's host", everything)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a directory whose path leaves room in a line."""
    with tempfile.TemporaryDirectory(prefix="e") as directory:
        yield Path(directory)


def test_on_a_terminal_of_80_columns_nothing_is_wider(short_path: Path, models_dir: Path):
    config = write_config(
        short_path, CAMERA, state_dir=short_path / "s", models_dir=models_dir, device="door"
    )
    for more in ([], ["--all"]):
        lines = on_terminal("check", *more, config=config, term="dumb").splitlines()
        assert len(lines) > 10
        assert max(map(len, lines)) <= 80, max(lines, key=len)


def test_no_message_about_a_setting_holds_a_pattern(tmp_path: Path):
    for line in ('remote.collection = "a b"', 'sync.scope = "A"', 'commands.trusted_keys = ["ed25519:"]'):
        said = invoke("check", config=write_config(tmp_path, line)).output
        assert not re.search(r"\^|\$|\[a-z|\[A-Z", said), said
