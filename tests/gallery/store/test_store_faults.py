"""The store against the world: power cuts, several processes, full and read-only disks."""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.core.errors import GalleryError
from edge.core.types import Subject
from edge.gallery.store.store import GalleryStore
from tests.support.gallery_samples import MODEL, gallery_of, template, unit_rows
from tests.support.places import ROOT
from tests.support.waits import LIMIT_S

COMMITTER = [sys.executable, "-m", "tests.gallery.store.committer"]
NOBODY = 65534
is_root = os.geteuid() == 0


def store_in(directory: Path) -> GalleryStore:
    return GalleryStore(directory, keep_versions=3)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's right to ignore permissions."""
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """Mount a memory disk at `path`; skip where that is not allowed."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if not is_root or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that any user can reach, unlike tmp_path when root runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_process_killed_at_any_moment_leaves_the_old_or_the_new_version(tmp_path: Path):
    done = subprocess.run(
        [*COMMITTER, "killed", str(tmp_path / "gallery"), "150"],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    rounds, in_the_middle = map(int, done.stdout.split())
    assert rounds == 150
    assert in_the_middle > 10  # else the kills came at harmless moments and show nothing


def test_two_processes_that_enrol_at_once_lose_nothing(tmp_path: Path):
    directory = tmp_path / "gallery"
    processes = [
        subprocess.Popen([*COMMITTER, "enrol", str(directory), prefix, "30"], cwd=ROOT)
        for prefix in ("left", "right")
    ]
    assert [process.wait(timeout=2 * LIMIT_S) for process in processes] == [0, 0]
    gallery = store_in(directory).load(MODEL)
    expected = {f"{prefix}-{i}" for prefix in ("left", "right") for i in range(30)}
    assert {subject.subject_id for subject in gallery.subjects} == expected
    assert gallery.version == 60


def test_a_full_disk_is_told_and_the_last_good_version_stays(tmp_path: Path):
    with mounted(tmp_path / "disk", "size=128k") as disk:
        store = store_in(disk / "gallery")
        first = store.commit(gallery_of([1]))
        with pytest.raises(GalleryError, match=r"write version 2: No space left on device \(free some"):
            store.commit(first.with_subjects(zip_with_rows(1000)))
        assert sorted(path.name for path in (disk / "gallery").iterdir()) == [
            "current",
            "gallery-00000001.edge",
            "lock",
            "rights.sealed",
        ]
        assert store.load(MODEL).version == 1
        assert store.commit(first.with_subjects(zip_with_rows(3))).version == 2


def test_a_disk_without_room_for_the_pointer_keeps_the_old_version(tmp_path: Path):
    # Room for six: the disk's root, lock, rights, version 1, current, version 2. A new pointer is one more.
    with mounted(tmp_path / "disk", "nr_inodes=6") as disk:
        store = store_in(disk)
        first = store.commit(gallery_of([1]))
        with pytest.raises(GalleryError, match="make version 2 the current one: No space left"):
            store.commit(first.with_subjects(zip_with_rows(1)))
        assert store.versions() == [1]
        assert store.load(MODEL).version == 1


def test_a_write_that_is_cut_short_is_told_and_leaves_nothing(tmp_path: Path):
    store = store_in(tmp_path)
    first = store.commit(gallery_of([1]))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, hard))
    try:
        with pytest.raises(GalleryError, match="write version 2: File too large"):
            store.commit(first.with_subjects(zip_with_rows(1000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.versions() == [1]
    assert not (tmp_path / "new.tmp").exists()
    assert store.load(MODEL).version == 1


def test_a_read_only_directory_serves_but_takes_no_change(open_directory: Path):
    directory = make_service_owned(open_directory / "gallery")
    with as_nobody():
        first = store_in(directory).load(MODEL)
        directory.chmod(0o500)
        assert store_in(directory).load(MODEL).version == 2
        with pytest.raises(GalleryError, match=r"write version 3: Permission denied"):
            store_in(directory).commit(first.with_subjects(zip_with_rows(3)))
        with pytest.raises(GalleryError, match=r"nobody is removed, .*: Permission denied"):
            store_in(directory).commit(first.without_subject("p-0"))
        assert store_in(directory).load(MODEL).size == 2
        directory.chmod(0o700)


def test_a_damaged_version_in_a_read_only_directory_is_passed_over(
    open_directory: Path, caplog: pytest.LogCaptureFixture
):
    directory = make_service_owned(open_directory / "gallery")
    (directory / "gallery-00000002.edge").write_bytes(b"torn")
    with as_nobody():
        directory.chmod(0o500)
        assert store_in(directory).load(MODEL).version == 1
        directory.chmod(0o700)
    assert "cannot be mended now" in caplog.text


def test_a_gallery_of_another_user_is_told_as_that(open_directory: Path):
    directory = make_service_owned(open_directory / "gallery", owner=os.geteuid())
    directory.chmod(0o755)
    for path in directory.glob("gallery-*"):
        path.chmod(0o600 if is_root else 0)
    with as_nobody(), pytest.raises(GalleryError, match=r"Permission denied \(run this as the user"):
        store_in(directory).load(MODEL)


@pytest.mark.parametrize("inside", ["file", "file/gallery"])
def test_a_state_directory_that_is_a_file_is_told(tmp_path: Path, inside: str):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(GalleryError, match="file"):
        store_in(tmp_path / inside).commit(gallery_of([1]))
    with pytest.raises(GalleryError, match="Not a directory"):
        store_in(tmp_path / inside).load(MODEL)


def zip_with_rows(count: int) -> list[tuple[Subject, list]]:
    return [(Subject(f"n-{i}", ""), [template(row)]) for i, row in enumerate(unit_rows(count, seed=5))]


def make_service_owned(directory: Path, owner: int = NOBODY) -> Path:
    """Make a store of two versions, with two subjects, that belongs to the service's user."""
    directory.mkdir(0o700)
    if is_root:
        os.chown(directory, owner, owner)
    store = store_in(directory)
    store.commit(store.commit(gallery_of([1])).with_subjects(zip_with_rows(1)))
    if is_root:
        os.chown(directory.parent / "device.key", owner, owner)
    return directory
