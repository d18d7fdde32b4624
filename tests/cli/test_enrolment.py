"""Enrolment as operators type it, with real photos and models: who is enrolled, what is said, exit codes."""

import csv
import stat
from pathlib import Path

import cv2
import pytest

from edge.camera.photo import read_photo
from edge.core.errors import ManyFacesError
from edge.core.types import Image, Subject
from edge.device.assembly.stores import candidate_store, gallery_store
from edge.device.settings.load import load
from edge.face.manifest import load_manifest
from edge.gallery.gallery import Gallery
from edge.lab.demo.media import orl_photo
from tests.support.command_line import edge, ended, run, write_config
from tests.support.gallery_samples import template, unit_rows


@pytest.fixture
def config(tmp_path: Path, models_dir: Path) -> Path:
    return write_config(tmp_path, state_dir=tmp_path / "state", models_dir=models_dir)


def face(media: Path, subject: int) -> Image:
    return read_photo(orl_photo(media, subject, 1))


def save(image: Image, path: Path) -> Path:
    """Write a photo under a name that OpenCV need not know the suffix of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix if path.suffix in (".png", ".jpg", ".avif") else ".jpg"
    path.write_bytes(cv2.imencode(suffix, image)[1].tobytes())
    return path


def enrolled(config: Path) -> set[str]:
    return gallery_store(load(config)).load(load_manifest("sface-int8").model_id).ids


def test_everybody_in_a_folder_is_enrolled_or_in_the_report(tmp_path: Path, media: Path, config: Path):
    people, report = tmp_path / "people", tmp_path / "report.csv"
    for number, name in enumerate(("alice.png", "dave.avif", "erin.jfif", "ida", "jo/1.jfif"), 1):
        save(face(media, number), people / name)
    (people / "carol.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (people / "hugo.docx").write_text("Hugo")
    (people / "notes.txt").write_text("of no matter")
    (people / "gina").mkdir()
    said = run("enroll", "--folder", people, "--report", report, config=config, code=1)
    assert "5 enrolled, 3 refused" in said
    assert enrolled(config) == {"alice", "dave", "erin", "ida", "jo"}
    rows = list(csv.DictReader(report.read_text().splitlines()))
    refused = {
        row["subject"]: row["reason"] for row in rows if row["status"] == "refused" and not row["photo"]
    }
    assert refused.keys() == {"carol", "gina", "hugo"}
    assert refused["gina"] == "its folder holds no photo"
    assert "gina: refused: its folder holds no photo" in said


def test_an_id_is_one_subject_however_its_accents_are_written(tmp_path: Path, media: Path, config: Path):
    apart, together = "zoe\u0308", "zo\xeb"
    save(face(media, 1), tmp_path / "people" / f"{apart}.jpg")
    run("enroll", "--folder", tmp_path / "people", config=config)
    assert enrolled(config) == {together}
    assert "1 already enrolled" in run("enroll", "--folder", tmp_path / "people", config=config)
    run("enroll", apart, save(face(media, 1), tmp_path / "a.jpg"), config=config)
    assert enrolled(config) == {together}
    assert together in run("subjects", "show", apart, config=config)
    run("subjects", "set", apart, "--label", apart, config=config)
    run("subjects", "remove", apart, config=config)
    assert enrolled(config) == set()


def test_one_of_several_faces_is_enrolled_and_found_by_its_number(tmp_path: Path, media: Path, config: Path):
    team, shown = media / "multi_face.jpg", tmp_path / "team.png"
    with pytest.raises(ManyFacesError, match=r"1: .*--face N or --largest; --show FILE"):
        run("enroll", "p-2", team, "--show", shown, config=config)
    height, width = read_photo(team).shape[:2]
    assert read_photo(shown).shape == (height, width, 3)
    assert stat.S_IMODE(shown.stat().st_mode) == 0o600
    run("enroll", "p-2", team, "--face", "2", config=config)
    run("enroll", "p-5", team, "--largest", config=config)
    for number, who in ((2, "p-2"), (5, "p-5")):
        assert f"match: {who} " in run("identify", team, "--face", str(number), config=config)
    assert "match: p-5 " in run("identify", team, "--largest", config=config)
    assert "same subject" in run("verify", team, team, "--largest", config=config)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(["a.jpg", "--largest", "--face", "1"], id="both"),
        pytest.param(["a.jpg", "b.jpg", "--face", "1"], id="a number for two photos"),
        pytest.param(["a.jpg", "b.jpg", "--show", "c.png"], id="one picture of two photos"),
        pytest.param(["a.jpg", "--face", "0"], id="there is no face 0"),
        pytest.param(["--camera", "front", "--largest"], id="no photo"),
        pytest.param(["a.jpg", "--show", "a.jpg"], id="the photo itself"),
    ],
)
def test_faces_are_named_for_one_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Path, more: list[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"a photo")
    run("enroll", "p-1", *more, config=config, code=2)
    assert (tmp_path / "a.jpg").read_bytes() == b"a photo"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(
            ["--state", "suspended"], "Alice is known, and is suspended: not_allowed_here", id="suspended"
        ),
        pytest.param(
            ["--valid-until", "2020-01-31"],
            "Alice is known, and may pass until 2020-02-01 00:00 UTC: expired",
            id="expired",
        ),
        pytest.param(
            ["--group", "visitors"],
            "Alice is known, and has the groups visitors; this door serves staff: not_allowed_here",
            id="of another door",
        ),
    ],
)
def test_who_is_known_and_may_not_pass_is_told_with_the_reason(
    tmp_path: Path, media: Path, models_dir: Path, change: list[str], says: str
):
    config = write_config(
        tmp_path, '[access]\ngroups = ["staff"]', state_dir=tmp_path / "state", models_dir=models_dir
    )
    photo = save(face(media, 1), tmp_path / "alice.png")
    empty = run("identify", photo, config=config, code=1)
    assert "reject: gallery_empty, nobody is enrolled who may pass here now" in empty
    run("enroll", "p-1", photo, "--label", "Alice", "--group", "staff", config=config)
    assert "match: Alice (best 1.000, threshold" in run("identify", photo, config=config)
    run("subjects", "set", "p-1", *change, config=config)
    assert f"reject: {says} (best 1.000, threshold" in run("identify", photo, config=config, code=1)


def test_a_code_says_whether_it_is_a_reject_or_the_photo_or_the_gallery(
    tmp_path: Path, media: Path, config: Path
):
    photo, other = (save(face(media, number), tmp_path / f"{number}.png") for number in (1, 2))
    team, black = media / "multi_face.jpg", save(face(media, 3) * 0, tmp_path / "black.png")
    run("enroll", "p-1", photo, config=config)
    for arguments, code in (
        (["identify", photo], 0),
        (["identify", other], 1),
        (["identify", team], 3),
        (["identify", black], 3),
        (["identify", tmp_path / "none.png"], 3),
        (["verify", photo, photo], 0),
        (["verify", photo, other], 1),
        (["verify", photo, team], 3),
        (["enroll", "p-3", black], 3),
        (["identify", photo, "--largest", "--face", "1"], 2),
    ):
        assert ended(*arguments, config=config).returncode == code, arguments
    for version in (tmp_path / "state" / "gallery").glob("*.sealed"):
        version.write_bytes(b"damaged")
    (tmp_path / "state" / "device.key").write_text("0" * 64)
    assert edge("identify", photo, config=config).returncode == 78


def test_a_face_that_was_replaced_leaves_the_candidate_and_a_better_photo_does_not(
    tmp_path: Path, media: Path, config: Path
):
    other, store = load_manifest("sface-fp32").model_id, candidate_store(load(config))
    for name in ("ann", "bob"):
        run("enroll", name, save(face(media, 1 + len(enrolled(config))), tmp_path / "a.jpg"), config=config)
    rows = [template(unit_rows(1, seed=seed)[0], other) for seed in (1, 2)]
    people = [(Subject(name, name), [row]) for name, row in zip(("ann", "bob"), rows, strict=True)]
    store.commit(Gallery.empty(other).with_subjects(people))
    photo = save(read_photo(orl_photo(media, 1, 2)), tmp_path / "again.jpg")
    assert "candidate" not in run("enroll", "ann", photo, "--replace", config=config)
    assert store.load(other).ids == {"ann", "bob"}
    said = run("enroll", "bob", save(face(media, 9), tmp_path / "b.jpg"), "--replace", config=config)
    assert "'bob' left the candidate, which had the face of before" in said
    assert (store.load(other).ids, enrolled(config)) == ({"ann"}, {"ann", "bob"})
