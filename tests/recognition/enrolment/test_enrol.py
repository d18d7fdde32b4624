"""One-shot enrolment on real photos and clips: what is accepted, what is refused, and what is said."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.clips import ReplayCamera
from edge.camera.photo import read_photo
from edge.core.clock import SystemClock
from edge.core.errors import CollisionError, LowQualityError, ManyFacesError, NoFaceError, OtherFaceError
from edge.core.types import EventType, Frame, Image, Probe, Subject
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_recognizer
from edge.device.settings.load import load
from edge.face.liveness import Liveness, load_liveness
from edge.face.manifest import Fusion
from edge.gallery.gallery import Gallery
from edge.lab.demo.media import orl_photo
from edge.recognition.enrolment.enrol import (
    BOX,
    CHOSEN,
    encode_photo,
    enroll,
    faces_in,
    find_face,
    fit_to_enrol,
    numbered,
    walk_up,
)
from edge.recognition.recognizer import Recognizer
from tests.support.gallery_samples import QUALITY, template, unit_rows
from tests.support.liveness import install, network

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return build_recognizer(load(), Gallery.empty("none"), side_px=PHOTO_SIDE_PX)


@pytest.fixture(scope="module")
def group(media: Path) -> Image:
    return read_photo(media / "multi_face.jpg")


def orl(media: Path, subject: int, number: int, recognizer: Recognizer) -> Probe:
    path = orl_photo(media, subject, number)
    return encode_photo(read_photo(path), path.name, recognizer)


def empty(recognizer: Recognizer) -> Gallery:
    return Gallery.empty(recognizer.embedder.model_id)


def enrolled(
    gallery: Gallery, name: str, probes: list[Probe], recognizer: Recognizer, *, force: bool = False
) -> Gallery:
    who = Subject(name, name)
    return enroll(
        who, probes, recognizer, gallery, source="photo", at=AT, max_prototypes=3, force=force
    ).gallery


def test_one_photo_is_enough_to_be_recognised_in_another(recognizer: Recognizer, media: Path):
    gallery = empty(recognizer)
    for subject in range(1, 21):
        gallery = enrolled(
            gallery, f"orl-{subject}", [orl(media, subject, 1, recognizer)], recognizer, force=True
        )
    door = recognizer.with_gallery(gallery)
    right = 0
    for subject in range(1, 21):
        decision = door.identify(orl(media, subject, 2, recognizer), AT)
        assert decision.subject is None or decision.subject.subject_id == f"orl-{subject}"
        right += decision.event_type == EventType.MATCH
    strangers = [door.identify(orl(media, subject, 1, recognizer), AT) for subject in range(21, 41)]
    assert right >= 18
    assert [decision.event_type for decision in strangers].count(EventType.MATCH) == 0


def test_several_photos_become_prototypes(recognizer: Recognizer, media: Path):
    probes = [orl(media, 1, number, recognizer) for number in range(1, 8)]
    gallery = enrolled(empty(recognizer), "orl-1", probes, recognizer)
    assert 1 <= len(gallery.templates_of("orl-1")) <= 3
    assert gallery.size == 1


def test_who_looks_like_a_group_of_look_alikes_is_enrolled_with_a_warning(
    recognizer: Recognizer, media: Path
):
    seen = orl(media, 1, 1, recognizer)
    model_id = recognizer.embedder.model_id
    crowd = [(f"p-{number}", row) for number, row in enumerate(unit_rows(60))]
    like = np.sqrt(0.6) * unit_rows(12, seed=2) + np.sqrt(0.4) * seen.embedding
    like /= np.linalg.norm(like, axis=1, keepdims=True)
    group = [(f"c-{number}", row) for number, row in enumerate(like.astype(np.float32))]
    told = []
    for everybody in (crowd, crowd + group):
        gallery = Gallery.empty(model_id).with_subjects(
            (Subject(name, ""), [template(row, model_id)]) for name, row in everybody
        )
        done = enroll(
            Subject("new", ""),
            [seen],
            recognizer,
            gallery,
            source="photo",
            at=AT,
            max_prototypes=3,
            force=True,
        )
        told.append([text for text in done.warnings if "look like each other" in text])
    assert told[0] == []
    assert re.match(
        r"looks like subjects c-\d+, c-\d+, c-\d+ and 5 more, who look like each other", told[1][0]
    )


def test_enrolling_again_replaces(recognizer: Recognizer, media: Path):
    gallery = empty(recognizer)
    for number in (1, 2):
        gallery = enrolled(gallery, "orl-1", [orl(media, 1, number, recognizer)], recognizer)
    assert (gallery.size, len(gallery.templates_of("orl-1"))) == (1, 1)


def test_another_persons_face_does_not_silently_take_a_subjects_place(recognizer: Recognizer, media: Path):
    gallery = enrolled(
        empty(recognizer), "orl-3", [orl(media, 3, number, recognizer) for number in (1, 2)], recognizer
    )
    other = [orl(media, 7, 1, recognizer)]
    with pytest.raises(OtherFaceError, match=r"'orl-3' .*another face \(score -?0\.\d\d.*--replace"):
        enrolled(gallery, "orl-3", other, recognizer, force=True)
    meant = enroll(
        Subject("orl-3", "orl-3"),
        other,
        recognizer,
        gallery,
        source="photo",
        at=AT,
        max_prototypes=3,
        replace=True,
    )
    assert len(meant.warnings) == 1
    door = recognizer.with_gallery(meant.gallery)
    assert door.identify(other[0], AT).event_type == EventType.MATCH
    assert door.identify(orl(media, 3, 1, recognizer), AT).event_type == EventType.REJECT


def test_no_face_is_said_with_the_size_of_the_photo(recognizer: Recognizer, media: Path):
    wall = np.full((300, 400, 3), 128, np.uint8)
    with pytest.raises(NoFaceError, match=r"wall\.jpg: no face found in 400x300 pixels"):
        find_face(wall, "wall.jpg", recognizer)


def test_several_faces_are_counted_and_located(recognizer: Recognizer, group: Image):
    with pytest.raises(ManyFacesError, match=r"5 faces found \(.*x=\d+ y=\d+.*\); crop"):
        find_face(group, "team.jpg", recognizer)


def test_a_face_of_several_is_named_by_its_number_or_as_the_largest(recognizer: Recognizer, group: Image):
    faces = faces_in(group, recognizer)
    assert [float(face.box[0]) for face in faces] == sorted(float(face.box[0]) for face in faces)
    for number, face in enumerate(faces, 1):
        assert (find_face(group, "team.jpg", recognizer, number).box == face.box).all()
    largest = find_face(group, "team.jpg", recognizer, "largest")
    assert largest.size_px == max(face.size_px for face in faces)
    with pytest.raises(NoFaceError, match=r"there is no face 6; 5 found \(1: \d+x\d+ at"):
        find_face(group, "team.jpg", recognizer, 6)
    one = find_face(group[10:240, 170:350], "one.jpg", recognizer, "largest")
    assert (one.box == find_face(group[10:240, 170:350], "one.jpg", recognizer, 1).box).all()


def test_each_face_has_a_box_and_a_number_and_the_one_used_is_green(recognizer: Recognizer, group: Image):
    faces = faces_in(group, recognizer)
    drawn = numbered(group, faces, faces[3])
    for face in faces:
        x1, y1, x2, y2 = (round(float(value)) for value in face.box)
        colour = CHOSEN if face is faces[3] else BOX
        for x, y in (((x1 + x2) // 2, y2), (x2, (y1 + y2) // 2)):
            assert np.abs(drawn[y, x].astype(int) - colour).max() < 60
        assert (drawn[(y1 + y2) // 2, (x1 + x2) // 2] == group[(y1 + y2) // 2, (x1 + x2) // 2]).all()
    assert (numbered(group, faces[:2]) != numbered(group, faces[1::-1])).any()


def test_a_crop_of_the_group_is_one_face(recognizer: Recognizer, group: Image):
    assert find_face(group[10:240, 170:350], "one.jpg", recognizer).score > 0.7


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda face: cv2.GaussianBlur(face, (0, 0), 6), "the face is blurred", id="blurred"),
        pytest.param(
            lambda face: cv2.resize(face, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA),
            "too small",
            id="small",
        ),
        pytest.param(lambda face: face // 14, "blurred|dark|no face", id="dark"),
        pytest.param(lambda face: face // 6, "the face is too dark; use a better lit", id="dim"),
        pytest.param(lambda face: face // 40, "the face is too dark; use a better lit", id="darker"),
        pytest.param(lambda face: face * 0, "nearly black; use a better lit", id="black"),
    ],
)
def test_a_poor_photo_is_refused_with_advice(recognizer: Recognizer, group: Image, spoil, says: str):
    with pytest.raises((LowQualityError, NoFaceError), match=says) as caught:
        encode_photo(spoil(group[10:240, 170:350]), "me.jpg", recognizer.for_enrolment())
    assert "use a" in str(caught.value)


def test_the_same_face_under_another_id_is_a_collision(recognizer: Recognizer, media: Path):
    gallery = enrolled(empty(recognizer), "orl-3", [orl(media, 3, 1, recognizer)], recognizer)
    again = [orl(media, 3, 2, recognizer)]
    with pytest.raises(CollisionError, match=r"'orl-3' has nearly the same face .* use --force"):
        enrolled(gallery, "impostor", again, recognizer)
    forced = enroll(
        Subject("twin", "Twin"),
        again,
        recognizer,
        gallery,
        source="photo",
        at=AT,
        max_prototypes=3,
        force=True,
    )
    assert forced.gallery.size == 2
    assert len(forced.warnings) == 1


def test_photos_of_two_people_are_not_one_subject(recognizer: Recognizer, media: Path):
    probes = [orl(media, 3, 1, recognizer), orl(media, 7, 1, recognizer)]
    with pytest.raises(CollisionError, match="photo 1 seems to show somebody else"):
        enrolled(empty(recognizer), "mixed", probes, recognizer)


def frames_of(clip: Path) -> Iterator[Frame]:
    camera = ReplayCamera("front", clip, clock=SystemClock(), realtime=False)
    camera.open()
    try:
        while (frame := camera.read()) is not None:
            yield frame
    finally:
        camera.close()


def test_somebody_who_walks_up_to_the_camera_is_enrolled(recognizer: Recognizer, media: Path):
    probes = walk_up(frames_of(media / "noface_face.mov"), recognizer, timeout_s=30)
    gallery = enrolled(empty(recognizer), "p-man", probes, recognizer)
    assert len(probes) >= 3
    match = recognizer.with_gallery(gallery).identify(
        walk_up(frames_of(media / "single_face.mp4"), recognizer, timeout_s=30)[0], AT
    )
    assert match.event_type == EventType.MATCH


@pytest.mark.parametrize(
    ("alive_from", "alive"),
    [pytest.param(110.0, True, id="alive"), pytest.param(160.0, False, id="a picture")],
)
def test_who_walks_up_must_be_alive_where_a_model_can_tell(
    recognizer: Recognizer, media: Path, tmp_path: Path, alive_from: float, alive: bool
):
    directory = install(tmp_path, network(alive_from=alive_from))
    judging = replace(recognizer, liveness=load_liveness([directory], tmp_path, threads=1))
    clip = frames_of(media / "single_face.mp4")
    if alive:
        probes = walk_up(clip, judging, timeout_s=30, live_from=0.7)
        assert all(probe.liveness > 0.7 for probe in probes)
    else:
        with pytest.raises(LowQualityError, match=r"looks like a picture of a face \(liveness 0\.0"):
            walk_up(clip, judging, timeout_s=30, live_from=0.7)


def test_who_walks_up_comes_close_enough_to_be_told_from_a_picture(
    recognizer: Recognizer, media: Path, tmp_path: Path
):
    directory = install(tmp_path)
    judge = load_liveness([directory], tmp_path, threads=1)
    far = Liveness(
        judge.networks, Fusion(**{"with": ()}, min_face_px=400, face_px=(400,), live_from=(0,), source="x")
    )
    with pytest.raises(NoFaceError, match=r"no usable shot within 1 s \(size x\d+"):
        walk_up(frames_of(media / "single_face.mp4"), replace(recognizer, liveness=far), timeout_s=1)


def test_a_kept_visit_that_is_hardly_a_face_is_not_enrolled_whatever_else_is_wrong_with_it(
    recognizer: Recognizer,
):
    def kept(sure: float | None, sharpness: float) -> Probe:
        quality = replace(QUALITY, recognisability=sure, sharpness=sharpness)
        return Probe(unit_rows(1)[0], recognizer.embedder.model_id, quality)

    plain, earlier, blurred = kept(0.9, 0.8), kept(None, 0.8), kept(0.9, 0.3)
    unsure, blurred_and_unsure = kept(0.1, 0.8), kept(0.1, 0.3)
    everybody = [plain, earlier, blurred, unsure, blurred_and_unsure]
    assert fit_to_enrol(everybody, recognizer.for_enrolment(), "v-1") == [plain, earlier, blurred]
    with pytest.raises(LowQualityError, match="v-1: hardly a face"):
        fit_to_enrol([blurred_and_unsure], recognizer.for_enrolment(), "v-1")


def test_nobody_walks_up_in_time(recognizer: Recognizer, media: Path):
    with pytest.raises(NoFaceError, match="no usable shot within 2 s"):
        walk_up(frames_of(media / "no_face.mp4"), recognizer, timeout_s=2)


def test_two_people_who_take_turns_are_not_one_subject(recognizer: Recognizer, media: Path):
    def both() -> Iterator[Frame]:
        yield from list(frames_of(media / "single_face.mp4"))[:10]
        yield from frames_of(media / "WolfgangLanger_Pexels.mp4")

    with pytest.raises(ManyFacesError, match="two different faces"):
        walk_up(both(), recognizer, timeout_s=1e9)


def masked(image: Image, recognizer: Recognizer) -> Image:
    """Paint a medical mask over a face: from under the eyes to the chin, with folds."""
    face = find_face(image, "photo", recognizer)
    left, right, nose, mouth_left, mouth_right = (face.landmarks[i] for i in range(5))
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    across, down = right - left, mouth - eyes
    top, bottom = (eyes + nose) / 2, eyes + 1.75 * down
    outline = [top, nose + 0.85 * across - 0.1 * down, mouth + 0.8 * across, bottom + 0.35 * across]
    outline += [bottom - 0.35 * across, mouth - 0.8 * across, nose - 0.85 * across - 0.1 * down]
    painted = image.copy()
    cv2.fillPoly(painted, [np.array(outline).astype(np.int32)], (214, 190, 140))
    for share in (0.75, 1.0, 1.25):
        fold = [eyes + share * down - 0.6 * across, eyes + share * down + 0.6 * across]
        cv2.polylines(painted, [np.array(fold).astype(np.int32)], False, (190, 165, 120), 1)
    return painted


def test_nobody_is_enrolled_with_a_mask_and_everybody_without(recognizer: Recognizer, media: Path):
    strict = recognizer.for_enrolment()
    said = []
    for subject in range(1, 41):
        image = read_photo(orl_photo(media, subject, 1))
        encode_photo(image, "plain.jpg", strict)
        try:
            encode_photo(masked(image, strict), "masked.jpg", strict)
        except (LowQualityError, NoFaceError) as error:
            said.append(str(error))
    told = "masked.jpg: the lower half of the face seems covered; use a photo without mask, scarf or hand"
    covered = [line for line in said if line.startswith(told)]
    assert len(covered) >= 38
    assert all("\n" not in line for line in covered)


def test_a_mask_is_no_reason_to_be_refused_at_the_door(recognizer: Recognizer, media: Path):
    image = masked(read_photo(orl_photo(media, 1, 1)), recognizer)
    assert isinstance(recognizer.encode(image, find_face(image, "photo", recognizer)), Probe)


def test_a_plain_photo_of_which_the_embedder_is_unsure_is_enrolled_and_one_that_is_hardly_a_face_is_not(
    recognizer: Recognizer, media: Path, monkeypatch: pytest.MonkeyPatch
):
    path = orl_photo(media, 1, 1)
    plain = encode_photo(read_photo(path), path.name, recognizer)
    doubting = replace(recognizer, gate=replace(recognizer.gate, min_recognisability=1.0))
    probe = encode_photo(read_photo(path), path.name, doubting)
    assert (probe.quality, probe.embedding.tolist()) == (plain.quality, plain.embedding.tolist())
    monkeypatch.setattr("edge.recognition.enrolment.enrol.PHOTO_RECOGNISABILITY", 1.0)
    with pytest.raises(LowQualityError, match="hardly a face can be made out"):
        encode_photo(read_photo(path), path.name, doubting)
