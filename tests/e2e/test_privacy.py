"""Nothing leaves the device that the contract does not name, and no library keeps a diary of its own."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.device.settings.load import environment_without_settings
from edge.face.session import delete_telemetry
from tests.e2e.device import Device
from tests.support.broker import Mosquitto, subscriber
from tests.support.command_line import write_config
from tests.support.waits import wait_until

pytestmark = pytest.mark.e2e

CONNECTS = re.compile(r"connect\(\d+, \{sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?\"([^\"]+)\"")
SENDS = re.compile(r"sendm?m?(?:sg|to)\(\d+, .*?sin6?_port=htons\((\d+)\).*?\"([^\"]+)\"")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["models", "verify"],
        ["identify", "{photo}"],
        ["verify", "{photo}", "{photo}"],
        ["enroll", "p-man", "{photo}"],
        ["replay", "{clip}"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]).replace("{photo}", "").strip(),
)
def test_a_command_that_loads_a_model_leaves_nothing_below_home(
    arguments: list[str], tmp_path: Path, models_dir: Path, media: Path, still: Path
):
    home = tmp_path / "home"
    home.mkdir()
    config = write_config(tmp_path, site="test", state_dir=tmp_path / "state", models_dir=models_dir)
    given = [word.format(photo=still, clip=media / "single_face.mp4") for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "edge", *given, "--config", str(config)],
        env=environment_without_settings() | {"HOME": str(home), "XDG_CACHE_HOME": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_a_package_that_calls_itself_a_plugin_of_pydantic_is_not_run(tmp_path: Path):
    installed = tmp_path / "packages"
    about = installed / "diary-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: diary\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[pydantic]\ndiary = diary:plugin\n")
    (installed / "diary.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('was-run').touch()\nplugin = None\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "edge", "schema", "--out", str(tmp_path / "schemas")],
        env=environment_without_settings() | {"PYTHONPATH": str(installed), "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert not (installed / "was-run").exists()
    assert (done.returncode, done.stderr) == (0, "")


def test_a_running_door_speaks_to_its_broker_and_to_nobody_else(
    make_device: Callable[..., Device], mosquitto: Mosquitto, media: Path, tmp_path: Path
):
    home, trace = tmp_path / "home", tmp_path / "trace"
    older = home / ".cache" / "Microsoft" / "DeveloperTools" / ".onnxruntime"
    older.mkdir(parents=True)
    (older / "deviceid").write_text("of an older run")
    door = make_device(
        mosquitto.port,
        cameras={"front": f'source = "{media / "single_face.mp4"}"\nloop = true\nrealtime = true'},
        environment={"HOME": str(home), "XDG_CACHE_HOME": ""},
        under=("strace", "-D", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace)),
    )
    with subscriber(mosquitto.port) as heard:
        door.start()
        wait_until(lambda: any(m.topic.endswith("/event") for m in heard.seen))
    door.stop()
    lines = trace.read_text().splitlines()
    asked = [match.groups() for line in lines if (match := CONNECTS.search(line) or SENDS.search(line))]
    assert (str(mosquitto.port), "127.0.0.1") in asked
    # paho makes a pair of sockets of its own over the loopback to wake its thread.
    assert {address for _, address in asked} == {"127.0.0.1"}
    assert [port for port, _ in asked if port == "53"] == []  # nobody's name was looked up
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_what_an_older_run_left_is_deleted_and_nothing_else(tmp_path: Path):
    left = tmp_path / "Microsoft" / "DeveloperTools" / ".onnxruntime"
    left.mkdir(parents=True)
    (left / "deviceid").write_text("0123")
    others = tmp_path / "Microsoft" / "theirs"
    others.write_text("kept")
    assert delete_telemetry(tmp_path)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["Microsoft", "theirs"]
    assert not delete_telemetry(tmp_path)
