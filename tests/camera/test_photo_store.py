"""Photos that lie in a real server of S3: read as those of a folder; whatever is wrong is one line."""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from edge.camera.photo import read_photo
from edge.camera.photo_store import photo_folder
from edge.core.errors import ConfigError, EdgeError, MediaError
from edge.lab.demo.media import orl_photo
from edge.lab.photos.protocol import subjects
from edge.recognition.enrolment.roster import from_folder
from tests.support.store import SECRET, S3Server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Path:
    """Two people with two photos each, and an empty file, as the bucket `people`."""
    bucket = tmp_path_factory.mktemp("store") / "people"
    for number in (1, 2):
        (bucket / "staff" / f"p-{number}").mkdir(parents=True)
        for shot in (1, 2):
            photo = bucket / "staff" / f"p-{number}" / f"{shot}.pgm.jpg"
            photo.write_bytes(orl_photo(media, number, shot).read_bytes())
    (bucket / "staff" / "p-2" / "empty.jpg").touch()
    return bucket


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[S3Server]:
    started = S3Server(folder.parent).start()
    yield started
    started.kill()


@pytest.fixture(autouse=True)
def known(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.known_to(monkeypatch)
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_folder_in_a_store_is_read_as_one_on_the_disk(folder: Path):
    here, there = folder / "staff", photo_folder("s3://people/staff")
    people, stored = from_folder(here), from_folder(there)
    assert [entry.subject for entry in stored] == [entry.subject for entry in people]
    assert [photo.name for photo in stored[0].photos] == [photo.name for photo in people[0].photos]
    assert [len(photos) for photos in subjects(there).values()] == [2, 3]
    for photo, same in zip(stored[0].photos, people[0].photos, strict=True):
        again = pickle.loads(pickle.dumps(photo))
        assert read_photo(again).tobytes() == read_photo(same).tobytes()
        assert str(again) == f"s3://people/staff/p-1/{same.name}"
        assert SECRET.encode() not in pickle.dumps(photo)
    with pytest.raises(MediaError, match=r"^s3://people/staff/p-2/empty\.jpg: the file is empty"):
        read_photo(stored[1].photos[-1])
    with pytest.raises(MediaError, match=r"^s3://people/staff/gone\.jpg: there is no such photo or bucket$"):
        read_photo(there / "gone.jpg")


@pytest.mark.parametrize(
    ("address", "variables", "told"),
    [
        ("s3://nobodys/staff", {}, "there is no such photo or bucket"),
        ("s3://people/nobody", {}, "no photos; there is no such folder, or it is empty"),
        ("s3://people/staff", {"AWS_SECRET_ACCESS_KEY": "another"}, "the store gives no .*signature"),
        ("s3://people/staff", {"AWS_ACCESS_KEY_ID": "another"}, "the store gives no .*does not exist"),
        ("s3://people/staff", {"AWS_ACCESS_KEY_ID": ""}, "the store gives no .*: .*credentials"),
        ("s3://people/staff", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "the store gives no .*connect"),
        ("gs://people/staff", {}, "the store gives no .*: Please install gcsfs"),
        ("nothing://people/staff", {}, "the store gives no answer .*"),
        ("https://files.example/staff", {}, "a web server lists no folders"),
    ],
)
def test_what_is_wrong_with_a_store_is_one_line(
    address: str, variables: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EdgeError, match=f"^{address}: {told}") as error:
        photo_folder(address)
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value)


def test_a_store_without_the_extra_says_which_one_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(
        ConfigError, match=r"^s3://people: install the extra `store` to read photos from there$"
    ):
        photo_folder("s3://people")


def test_an_address_with_a_password_is_refused_and_not_repeated():
    with pytest.raises(EdgeError, match=r"^sftp://files\.example/\.\.\.: .* holds no password$"):
        photo_folder("sftp://me:hidden@files.example/staff")
