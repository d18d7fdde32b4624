"""What the end-to-end tests share: a broker, a gallery of real faces, devices."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from edge.lab.demo.scenario import Photo, photos
from tests.e2e.device import Device
from tests.support.broker import Subscriber
from tests.support.described import check

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def every_message_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold everything that a subscriber of the test has seen against the AsyncAPI document."""
    leave = Subscriber.close

    def close(self: Subscriber) -> None:
        leave(self)
        for message in self.seen:
            check(message)

    monkeypatch.setattr(Subscriber, "close", close)


@pytest.fixture(scope="session")
def still(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Path:
    """A photo of the man who comes to the door in the clips."""

    man: Photo = next(photos(media))
    path = tmp_path_factory.mktemp("photos") / "man.png"
    cv2.imwrite(str(path), man.image)
    return path


@pytest.fixture
def make_device(tmp_path: Path, models_dir: Path, enrolled_state: Path) -> Iterator[Callable[..., Device]]:
    """Makes devices; daemons that the test leaves running are killed after it."""
    devices: list[Device] = []

    def make(port: int, *, enrolled: bool = True, **options: Any) -> Device:
        directory = tmp_path / f"device-{len(devices)}"
        directory.mkdir()
        device = Device(directory, models_dir, port, **options)
        if enrolled:
            shutil.copytree(enrolled_state, device.state, symlinks=True)
        devices.append(device)
        return device

    yield make
    for device in devices:
        device.stop(9)
