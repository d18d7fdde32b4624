"""The gallery's key as a credential of systemd: where it is found, and what is said where it is not."""

import re
from pathlib import Path

import pytest

from edge.core import files
from edge.core.errors import EX_CONFIG, DeviceKeyError, FileError
from edge.device.assembly.stores import gallery_store
from edge.device.settings.load import load
from tests.support.command_line import edge, run, write_config
from tests.support.gallery_samples import MODEL, enrol, ids
from tests.support.places import ROOT

COMMAND = ROOT / "systemd" / "edge-command"
UNITS = [ROOT / "systemd" / name for name in ("edge.service", "edge-sync.service")]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, '[gallery]\ndevice_key = "device.key"', state_dir=tmp_path / "state")


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "credentials"
    directory.mkdir()
    files.write_key(directory / "device.key", bytes(range(32)))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    return directory


def test_with_the_credential_the_gallery_opens_and_without_it_the_way_to_it_is_told(
    config: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
):
    store = gallery_store(load(config))
    enrol(store, "alice")
    assert ids(store.load(MODEL)) == ["alice"]
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    done = edge("gallery", "versions", config=config)
    assert done.returncode == EX_CONFIG
    assert "device key: device.key: there is no key; it is a credential of systemd" in done.stderr
    assert f"start it with systemd/{COMMAND.name}" in done.stderr
    assert "sealing" not in done.stderr, "that is another key"


def test_a_unit_without_the_credential_is_told_what_it_lacks(config: Path, credentials: Path):
    (credentials / "device.key").unlink()
    with pytest.raises(
        DeviceKeyError, match=r"device key: .*/credentials/device.key: there is no key; .*unit"
    ):
        enrol(gallery_store(load(config)), "alice")


@pytest.mark.parametrize(("mode", "allowed"), [(0o400, True), (0o440, True), (0o444, False), (0o460, False)])
def test_a_credential_is_read_as_systemd_leaves_it(tmp_path: Path, mode: int, allowed: bool):
    """With an access list for the service's user the group root seems to read it."""
    key = tmp_path / "device.key"
    files.write_key(key, bytes(32))
    key.chmod(mode)
    if allowed and key.stat().st_gid == 0:
        assert files.read_key(key, "") == bytes(32)
    elif not allowed:
        with pytest.raises(FileError, match="others may read this key"):
            files.read_key(key, "")


def test_units_and_the_command_load_the_same_credentials():
    named = set(re.findall(r"for name in (.*); do", COMMAND.read_text())[0].split())
    for unit in UNITS:
        lines = re.findall(r"^# LoadCredentialEncrypted=(\S+?):(\S+)$", unit.read_text(), re.M)
        assert {name for name, _ in lines} == named
        assert all(path == f"/etc/credstore.encrypted/{name}" for name, path in lines)


def test_the_check_says_whether_the_key_is_a_credential_that_is_there(
    config: Path, credentials: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    camera = 'cameras.front.source = "rtsp://10.0.0.5/live"'
    config.write_text(f'models_dir = "{models_dir}"\n{camera}\n{config.read_text()}')
    told = "device.key, a credential of systemd"
    assert f"{told}\n" in run("check", config=config)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    without = run("check", config=config, code=78)
    assert f"{told}, which this command was started without" in without
    assert "device key: device.key: there is no key" in without
