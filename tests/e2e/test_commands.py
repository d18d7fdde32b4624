"""The commands as an operator types them: what they print, what they exit with, and how they refuse."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.face.manifest import load_manifest, model_names, needed_models
from edge.mqtt.contract.messages import EventPayload
from tests.e2e.device import Device
from tests.support.command_line import edge
from tests.support.ports import free_port
from tests.support.streams import make_clip

pytestmark = pytest.mark.e2e

MakeDevice = Callable[..., Device]


@pytest.fixture
def device(make_device: MakeDevice) -> Device:
    return make_device(free_port(), enrolled=False)


@pytest.fixture
def building(make_device: MakeDevice) -> Device:
    return make_device(free_port())


def refuses(done, code: int, *says: str) -> None:
    """One clear line on standard error, nothing else, no traceback."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for words in says:
        assert words in done.stderr


def test_one_photo_enrols_and_is_recognised(device: Device, still: Path, media: Path, tmp_path: Path):
    done = device.edge("enroll", "p-1", str(still), "--label", "Alice", "--group", "staff", "--group", "lab")
    assert done.returncode == 0, done.stderr
    assert "enrolled p-1 from 1 shot(s) as 1 template(s)" in done.stdout
    listed = json.loads(device.edge("subjects", "list", "--json").stdout)
    assert [listed["subjects"][0][key] for key in ("id", "label", "groups", "templates", "state")] == [
        "p-1",
        "Alice",
        ["staff", "lab"],
        1,
        "active",
    ]
    assert "Alice" in device.edge("subjects", "show", "p-1").stdout
    known = device.edge("identify", str(still), "--json")
    assert (known.returncode, json.loads(known.stdout)["subject"]) == (0, "p-1")
    stranger = device.edge("identify", str(media / "orl-s01-01.pgm"))
    assert (stranger.returncode, stranger.stdout.split(":")[0]) == (1, "reject")
    assert device.edge("subjects", "remove", "p-1").returncode == 0
    assert json.loads(device.edge("subjects", "list", "--json").stdout)["subjects"] == []
    gone = device.edge("identify", str(still), "--json")
    assert json.loads(gone.stdout)["reason"] == "gallery_empty"


def test_a_known_face_that_may_not_pass_is_rejected_with_the_reason(device: Device, still: Path):
    def reason(*change: str) -> tuple[int, str | None, str | None]:
        done = device.edge("subjects", "set", "p-1", *change)
        assert done.returncode == 0, done.stderr
        asked = device.edge("identify", str(still), "--json")
        answer = json.loads(asked.stdout)
        return asked.returncode, answer["reason"], answer["subject"]

    device.edge("enroll", "p-1", str(still), "--valid-until", "2020-12-31")
    assert reason("--notes", "contractor") == (1, "expired", "p-1")
    assert reason("--valid-until", "") == (0, None, "p-1")
    assert reason("--state", "suspended") == (1, "not_allowed_here", "p-1")
    assert reason("--state", "active", "--window", "mon-sun 00:00-24:00") == (0, None, "p-1")
    shown = json.loads(device.edge("subjects", "show", "p-1", "--json").stdout)
    assert (shown["notes"], shown["windows"]) == (
        "contractor",
        ["mon,tue,wed,thu,fri,sat,sun 00:00-24:00"],
    )
    wrong = device.edge("subjects", "set", "p-1", "--window", "always")
    assert (wrong.returncode, "a window is written like" in wrong.stderr) == (1, True)


def test_enrolling_a_subject_again_keeps_what_is_known_of_it(device: Device, still: Path):
    device.edge("enroll", "p-1", str(still), "--label", "Alice", "--group", "staff", "--consent", "HR-7")
    device.edge("enroll", "p-1", str(still), "--notes", "new photo")
    shown = json.loads(device.edge("subjects", "show", "p-1", "--json").stdout)
    assert [shown[key] for key in ("label", "groups", "consent", "notes")] == [
        "Alice",
        ["staff"],
        "HR-7",
        "new photo",
    ]


def test_another_face_under_a_known_id_is_refused_alone_and_among_many(
    device: Device, still: Path, media: Path, tmp_path: Path
):
    other, roster, report = media / "orl-s01-01.pgm", tmp_path / "staff.csv", tmp_path / "report.csv"
    assert device.edge("enroll", "p-1", str(still)).returncode == 0
    refuses(device.edge("enroll", "p-1", str(other)), 1, "p-1", "another face (score", "--replace")
    roster.write_text(f"subject,photo\np-1,{other}\np-2,{other}\n")
    done = device.edge("enroll", "--csv", str(roster), "--replace", "--report", str(report))
    assert (done.returncode, done.stdout) == (1, "1 refused, 1 enrolled\n"), done.stderr
    assert "p-1,,refused,\"subject 'p-1' is enrolled with another face" in report.read_text()
    assert device.edge("subjects", "remove", "p-2").returncode == 0
    assert json.loads(device.edge("identify", str(still), "--json").stdout)["subject"] == "p-1"
    done = device.edge("enroll", "p-1", str(other), "--replace")
    assert (done.returncode, "warning: subject 'p-1'" in done.stderr) == (0, True), done.stderr
    assert json.loads(device.edge("identify", str(other), "--json").stdout)["subject"] == "p-1"


def test_many_are_enrolled_from_a_folder_and_the_second_run_goes_on(
    device: Device, still: Path, media: Path, tmp_path: Path
):
    folder = tmp_path / "people"
    (folder / "p-orl-1").mkdir(parents=True)
    for number in (1, 2):
        shutil.copy(media / f"orl-s01-0{number}.pgm", folder / "p-orl-1" / f"{number}.png")
    (folder / "p-torn.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "notes.txt").write_text("not a photo")
    report = tmp_path / "report.csv"
    done = device.edge("enroll", "--folder", str(folder), "--report", str(report))
    assert (done.returncode, done.stdout) == (1, "1 enrolled, 1 refused\n"), done.stderr
    assert "p-torn.jpg: not a photo that can be read" in report.read_text()
    (folder / "p-torn.jpg").unlink()
    shutil.copy(still, folder / "p-man.png")
    done = device.edge("enroll", "--folder", str(folder))
    assert (done.returncode, done.stdout) == (0, "1 enrolled, 1 already enrolled\n"), done.stderr
    listed = json.loads(device.edge("subjects", "list", "--json").stdout)["subjects"]
    assert sorted(row["id"] for row in listed) == ["p-man", "p-orl-1"]


def test_a_row_with_an_impossible_or_hostile_name_is_refused_alone(
    device: Device, still: Path, tmp_path: Path
):
    roster, report = tmp_path / "staff.csv", tmp_path / "report.csv"
    names = ("p-nul,a\0b.jpg", '"p\n2",b.jpg', "p\x1b[2J,c.jpg", "=1+1,\x1b[31m.jpg", f"p-man,{still}")
    roster.write_text("subject,photo\n" + "\n".join(names) + "\n")
    done = device.edge("enroll", "--csv", str(roster), "--report", str(report))
    assert (done.returncode, done.stdout) == (1, "4 refused, 1 enrolled\n"), done.stderr
    assert "no file can have this name" in done.stderr
    for text in (done.stderr, report.read_text()):
        assert "\x1b" not in text
        assert "p\\n2" in text
        assert "\\x1b[31m" in text
    assert "\n'=1+1,,refused" in report.read_text()


def test_a_report_that_cannot_be_written_is_said_before_the_work(device: Device, still: Path, tmp_path: Path):
    (tmp_path / "staff.csv").write_text(f"subject,photo\np-man,{still}\n")
    where = str(tmp_path / "none" / "report.csv")
    refuses(
        device.edge("enroll", "--csv", str(tmp_path / "staff.csv"), "--report", where), 78, where, "written"
    )
    assert not (device.state / "gallery" / "current").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        pytest.param(("schema", "--out", "{bad}/text.jpg"), "cannot be written", id="schemas"),
        pytest.param(("demo", "--json-file", "{bad}/none/x.json"), "--json-file: ", id="the demo's result"),
        pytest.param(
            ("calibrate", "--cohort", "{bad}", "--plots", "{bad}/text.jpg"), "is a file", id="plots"
        ),
    ],
)
def test_a_place_that_nothing_can_be_written_to_is_refused_at_once(bad: Path, command, says: str):
    refuses(edge(*(part.format(bad=bad) for part in command)), 78, str(bad), says)


def test_an_error_that_names_a_hostile_file_is_one_line(device: Device):
    refuses(device.edge("enroll", "p-1", "a\n\x1b[2J.jpg"), 3, "a\\n\\x1b[2J.jpg")


def test_a_label_that_looks_like_mark_up_is_listed(device: Device, still: Path):
    assert device.edge("enroll", "p-1", str(still), "--label", "[/red]").returncode == 0
    assert "[/red]" in device.edge("subjects", "list").stdout


def test_many_are_enrolled_from_a_csv_file_with_what_it_says_of_them(
    device: Device, still: Path, tmp_path: Path
):
    roster = tmp_path / "staff.csv"
    roster.write_text(
        "subject,photo,label,groups,valid_until,windows,time_zone\n"
        f"p-1,{still},Alice,staff;lab,2030-12-31,mon-fri 07:00-18:00,Europe/Berlin\n"
    )
    done = device.edge("enroll", "--csv", str(roster))
    assert (done.returncode, done.stdout) == (0, "1 enrolled\n"), done.stderr
    shown = json.loads(device.edge("subjects", "show", "p-1", "--json").stdout)
    assert (shown["label"], shown["groups"], shown["not_after"], shown["windows"]) == (
        "Alice",
        ["staff", "lab"],
        "2030-12-31T23:00:00+00:00",
        ["mon,tue,wed,thu,fri 07:00-18:00"],
    )


def test_a_walk_up_to_a_camera_enrols(make_device: MakeDevice, media: Path):
    device = make_device(
        free_port(), enrolled=False, cameras={"front": f'source = "{media / "single_face.mp4"}"'}
    )
    done = device.edge("enroll", "p-1", "--camera", "front")
    assert done.returncode == 0, done.stderr
    assert "enrolled p-1 from 5 shot(s)" in done.stdout


def test_verify_compares_two_photos(device: Device, media: Path):
    same = device.edge("verify", str(media / "orl-s01-01.pgm"), str(media / "orl-s01-02.pgm"), "--json")
    other = device.edge("verify", str(media / "orl-s01-01.pgm"), str(media / "orl-s02-01.pgm"), "--json")
    assert (same.returncode, json.loads(same.stdout)["same"]) == (0, True)
    assert (other.returncode, json.loads(other.stdout)["same"]) == (1, False)


def test_replay_prints_one_json_line_per_event_and_nothing_else(
    device: Device, still: Path, media: Path, tmp_path: Path
):
    video = tmp_path / "out.mp4"
    done = device.edge(
        "replay",
        str(media / "face_noface.mov"),
        "--enroll",
        f"man={still}",
        "--json",
        "--annotate",
        str(video),
    )
    assert done.returncode == 0, done.stderr
    events = [EventPayload.model_validate_json(line) for line in done.stdout.splitlines()]
    assert [event.event_type for event in events] == ["match", "left"]
    assert events[0].subject.id == "man"
    assert "169 frames" in done.stderr
    assert video.stat().st_size > 50_000


def test_replay_takes_the_gallery_of_another_device(building: Device, media: Path):
    clip = str(media / "single_face.mp4")
    done = building.edge("replay", clip, "--gallery", str(building.state / "gallery"), "--json")
    assert json.loads(done.stdout.splitlines()[0])["subject"]["id"] == "p-man"


def test_check_explains_the_configuration_and_hides_secrets(make_device: MakeDevice):
    device = make_device(
        free_port(),
        cameras={"front": 'source = "rtsp://me:hunter2@10.0.0.5/live"'},
        settings=('mqtt.username = "door"', 'mqtt.password = "hunter2"'),
    )
    done = device.edge("check", "--all")
    assert done.returncode == 0, done.stderr
    for words in ("42 subjects", "rtsp://10.0.0.5/live", "decision.target_fpir", "threshold"):
        assert words in done.stdout
    assert "hunter2" not in done.stdout
    [key] = [line for line in done.stdout.splitlines() if line.startswith("key ")]
    assert "device.key, a plain file: whoever copies the whole disk has key and gallery" in key


def test_check_knows_a_key_that_is_a_credential_of_systemd(
    make_device: MakeDevice, monkeypatch: pytest.MonkeyPatch
):
    device = make_device(
        free_port(),
        cameras={"front": 'source = "rtsp://10.0.0.5/live"'},
        settings=('gallery.device_key = "gallery"',),
    )
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(device.directory))
    (device.state / "device.key").rename(device.directory / "gallery")
    done = device.edge("check")
    assert done.returncode == 0, done.stderr
    assert "key        gallery, a credential of systemd\n" in done.stdout


def test_models_are_listed_and_verified(device: Device):
    done = device.edge("models", "verify")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("hash and golden vector right") >= len(needed_models())
    listed = device.edge("models", "list").stdout
    assert all(name in listed for name in model_names())
    assert "not documented by its authors" in listed


def test_models_bench_times_every_embedder(media: Path):
    assert media.is_dir()
    done = edge("models", "bench", "--rounds", "10", "--json")
    assert done.returncode == 0, done.stderr
    models = json.loads(done.stdout)["models"]
    assert {"sface", "sface-fp32", "sface-int8"} <= models.keys()
    for figures in models.values():
        assert 0 < figures["ms_p50"] <= figures["ms_p95"]
    assert all(models[name]["cosine_to_fp32"] > 0.99 for name in ("sface", "sface-fp32", "sface-int8"))
    assert models["sface-int8"]["bytes"] < 11_000_000


def test_schema_prints_every_message(device: Device, tmp_path: Path):
    schemas = json.loads(edge("schema").stdout)
    assert {"event", "info", "health", "state", "status"} <= schemas.keys()
    assert edge("schema", "--out", str(tmp_path)).returncode == 0
    assert json.loads((tmp_path / "event.schema.json").read_text()) == schemas["event"]


# Bad input


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("I am no photo")
    wall = np.full((200, 200, 3), 100, np.uint8)
    cv2.imwrite(str(folder / "wall.png"), wall)
    cv2.imwrite(str(folder / "dot.png"), wall[:1, :1])
    (folder / "cut.png").write_bytes((folder / "wall.png").read_bytes()[:100])
    make_clip(folder / "testcard.mp4", seconds=0.5)
    (folder / "text.mp4").write_text("I am no clip")
    return folder


@pytest.mark.parametrize(
    ("photo", "says"),
    [
        pytest.param("none.jpg", "No such file", id="absent"),
        pytest.param("empty.jpg", "empty", id="empty"),
        pytest.param("text.jpg", "not a photo", id="text"),
        pytest.param("cut.png", "damaged", id="truncated"),
        pytest.param("dot.png", "too few", id="1x1"),
        pytest.param("wall.png", "no face found", id="no face"),
    ],
)
def test_a_photo_that_cannot_be_used_is_refused(device: Device, bad: Path, photo: str, says: str):
    refuses(device.edge("enroll", "p-1", str(bad / photo)), 3, photo, says)
    assert not (device.state / "gallery" / "current").exists()


def test_a_group_photo_and_a_look_alike_are_refused(building: Device, media: Path, still: Path):
    refuses(building.edge("enroll", "p-x", str(media / "multi_face.jpg")), 3, "5 faces found", "crop")
    refuses(building.edge("enroll", "p-x", str(still)), 1, "'p-man' has nearly the same face", "--force")


@pytest.mark.parametrize("subject", ["../x", "a\nb", "", "x" * 100])
def test_a_hostile_subject_id_is_refused(device: Device, still: Path, subject: str):
    done = device.edge("enroll", subject, str(still))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("clip", "says"), [("none.mp4", "no such clip"), ("text.mp4", "cannot be decoded")])
def test_a_clip_that_cannot_be_played_is_refused(device: Device, bad: Path, clip: str, says: str):
    refuses(device.edge("replay", str(bad / clip), "--json"), 1, clip, says)


def test_a_clip_without_faces_is_no_error(device: Device, bad: Path):
    done = device.edge("replay", str(bad / "testcard.mp4"), "--json")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        pytest.param(("bogus = 1",), "bogus: unknown key", id="unknown key"),
        pytest.param(
            ("decision.margin = nan",), "decision.margin: input should be a finite number", id="nan"
        ),
        pytest.param(('recognition.embedder = "yunet"',), "'yunet' is a detector", id="wrong kind"),
        pytest.param(('recognition.embedder = "facenet"',), "no model named 'facenet'", id="unknown model"),
        pytest.param(('models_dir = "/nonexistent"',), "edge models fetch", id="models not fetched"),
        pytest.param(("mqtt.tls = true", 'mqtt.ca_file = "/none.pem"'), "mqtt.ca_file", id="absent ca"),
        pytest.param(('state_dir = "/proc/edge"',), "state_dir", id="unwritable state"),
    ],
)
def test_the_daemon_refuses_a_bad_configuration_with_one_line(
    make_device: MakeDevice, settings: tuple[str, ...], says: str
):
    device = make_device(free_port(), enrolled=False)
    config = device.write()
    keys = {line.split("=")[0].strip() for line in settings}
    lines = [line for line in config.read_text().splitlines() if line.split("=")[0].strip() not in keys]
    config.write_text("\n".join([*lines, *settings]) + "\n")
    refuses(edge("run", config=config), 78, says)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda path: path.unlink(), "is not there; run: edge models fetch", id="missing"),
        pytest.param(lambda path: path.write_bytes(b""), "not the pinned file", id="empty"),
        pytest.param(
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "not the pinned file", id="bit flip"
        ),
        pytest.param(lambda path: path.write_bytes(b"MZ" * 1000), "not the pinned file", id="foreign"),
    ],
)
def test_the_daemon_refuses_a_bad_model_with_one_line(
    make_device: MakeDevice, models_dir: Path, tmp_path: Path, spoil: Callable[[Path], object], says: str
):
    own = tmp_path / "models"
    own.mkdir()
    for name in ("yunet", "sface-int8"):
        shutil.copy(models_dir / load_manifest(name).file, own)
    spoil(own / load_manifest("sface-int8").file)
    device = make_device(free_port(), enrolled=False)
    device.models_dir = own
    refuses(device.edge("run"), 78, "sface-int8", says)


def test_a_remote_gallery_that_cannot_be_used_is_one_line(make_device: MakeDevice, tmp_path: Path):
    secret = tmp_path / "site.secret"
    secret.write_text("ab" * 32)
    secret.chmod(0o600)
    settings = ["[remote]", 'url = "http://127.0.0.1:9"', f'secret = "{secret}"', 'policy = "unknown"']
    device = make_device(free_port(), settings=tuple(settings))
    done = device.edge("gallery", "upload")
    assert (done.returncode, done.stderr) == (
        1,
        "edge: the remote gallery refused it: ResponseHandlingException: [Errno 111] Connection refused\n",
    )
    secret.chmod(0o644)
    done = device.edge("gallery", "upload")
    assert done.returncode == 78
    assert "chmod 600" in done.stderr


def test_a_contact_sheet_is_written_where_faces_are_kept(
    make_device: MakeDevice, still: Path, tmp_path: Path
):
    device = make_device(free_port(), enrolled=False)
    sheet = tmp_path / "sheet.png"
    assert device.edge("enroll", "p-man", str(still)).returncode == 0
    told = device.edge("subjects", "show", "p-man", "--sheet", str(sheet))
    assert (told.returncode, sheet.exists()) == (1, False)
    assert "gallery.keep_crops" in told.stderr
    device.settings = ("gallery.keep_crops = true",)
    assert device.edge("enroll", "p-man", str(still)).returncode == 0
    assert device.edge("subjects", "show", "p-man", "--sheet", str(sheet)).returncode == 0
    refuses(
        device.edge("subjects", "show", "p-man", "--sheet", str(tmp_path / "sheet.xyz")),
        1,
        "sheet.xyz: not the name of a picture; end it in .png, .jpg, .jpeg",
    )
    picture = cv2.imread(str(sheet))
    assert picture.shape == (120, 120, 3)
    assert picture.std() > 20, "a face, not a blank"
    assert device.edge("subjects", "remove", "p-man").returncode == 0
    assert list((device.state / "crops").iterdir()) == []
