"""Photos that show faces the wrong way are refused with what to do, at enrolment and in comparisons."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.mounting import turned
from edge.camera.photo import read_photo
from edge.core.errors import LowQualityError, NoFaceError
from edge.core.types import Image, Quality
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_recognizer
from edge.device.settings.load import load
from edge.face.manifest import load_manifest
from edge.gallery.gallery import Gallery
from edge.lab.demo.media import orl_photo
from edge.lab.photos.degrade import dim, stretched, with_sunglasses
from edge.lab.photos.degrade import turned as tilted
from edge.recognition.enrolment.enrol import encode_photo
from edge.recognition.enrolment.showing import sure_by_turn, sureness, wrongly_shown
from edge.recognition.recognizer import Recognizer


def photos(media: Path, count: int) -> list[Image]:
    """Return the first photo of so many subjects, with room around it."""
    found = [read_photo(orl_photo(media, subject, 1)) for subject in range(1, count + 1)]
    return [cv2.copyMakeBorder(photo, 40, 40, 40, 40, cv2.BORDER_REPLICATE) for photo in found]


def said(images: list[Image], recognizer: Recognizer) -> list[str]:
    """Return why photos are refused, '' for a good one; those in which no face is found are left out."""
    told = []
    for image in images:
        try:
            encode_photo(image, "a.jpg", recognizer)
            told.append("")
        except LowQualityError as error:
            told.append(str(error))
        except NoFaceError as error:
            told += [str(error)] if "there is one when the photo is turned" in str(error) else []
    return told


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(
            lambda image: turned(image, 180), "turned by 180 deg|turn the photo by 180 deg", id="180"
        ),
        pytest.param(lambda image: turned(image, 90), "photo (is turned )?counter-clockwise by 90", id="90"),
        pytest.param(lambda image: turned(image, 270), "photo (is turned )?clockwise by 90", id="270"),
        pytest.param(lambda image: tilted(image, 60), "the head is tilted|turned clockwise", id="tilted"),
        pytest.param(lambda image: 255 - image, "seems to be a negative|seems covered", id="negative"),
        pytest.param(lambda image: stretched(image, 0.5), "squeezed in width", id="squeezed"),
        pytest.param(lambda image: stretched(image, 2), "stretched in width|seems covered", id="stretched"),
    ],
)
@pytest.mark.parametrize("enrols", [True, False], ids=["enrolled", "compared"])
def test_a_photo_that_shows_a_face_wrongly_is_refused_with_what_to_do(
    recognizer: Recognizer, media: Path, spoil: Callable[[Image], Image], says: str, enrols: bool
):
    told = said(
        [np.ascontiguousarray(spoil(image)) for image in photos(media, 24)],
        recognizer.for_enrolment() if enrols else recognizer,
    )
    assert told, "some faces are found"
    assert sum(bool(re.search(says, line)) for line in told) >= 0.75 * len(told), told
    assert told.count("") <= 1, told


def test_a_pair_of_embedders_refuses_the_same_photos(recommended_dir: Path, media: Path, tmp_path: Path):
    for path in (*recommended_dir.glob("*.onnx"), load().models_path / load_manifest("yunet").file):
        (tmp_path / path.name).symlink_to(path)
    settings = load(overrides={"models_dir": tmp_path, "recognition": {"embedder": "sface-0095"}})
    pair = build_recognizer(settings, Gallery.empty("none"), side_px=PHOTO_SIDE_PX).for_enrolment()
    plain = photos(media, 8)
    assert said(plain, pair) == [""] * 8
    wrong = said(
        [np.ascontiguousarray(each) for image in plain for each in (turned(image, 180), 255 - image)], pair
    )
    assert wrong
    assert wrong.count("") <= 1, wrong


def test_plain_photos_are_not_refused(recognizer: Recognizer, media: Path):
    assert said(photos(media, 40), recognizer.for_enrolment()) == [""] * 40


def test_nobody_is_enrolled_in_sunglasses_but_compared(recognizer: Recognizer, media: Path):
    worn = []
    for photo in photos(media, 20):
        face = max(recognizer.detect(photo), key=lambda each: each.size_px)
        worn.append(with_sunglasses(photo, face.landmarks))
    told = said(worn, recognizer.for_enrolment())
    assert len(told) >= 15
    assert sum("the eyes seem to be behind sunglasses" in line for line in told) >= 0.9 * len(told), told
    compared = said(worn, recognizer)
    assert sum(not line for line in compared) >= 0.6 * len(compared), compared


def test_nobody_is_enrolled_from_a_grainy_photo_but_compared(recognizer: Recognizer, media: Path):
    grainy = [dim(photo, 1.0, 28.0) for photo in photos(media, 40)]
    told = said(grainy, recognizer.for_enrolment())
    assert len(told) >= 8
    assert sum("the photo is grainy; use a better lit one" in line for line in told) >= 0.6 * len(told), told
    assert "" not in told
    assert "" in said(grainy, recognizer)


def test_a_face_that_the_photo_s_edge_cuts_is_not_enrolled(recognizer: Recognizer, man: Image):
    face = max(recognizer.detect(man), key=lambda each: each.size_px)
    top, bottom = int(face.box[1]), int(face.box[3])
    cut = man[top + int(0.3 * (bottom - top)) :]
    with pytest.raises(LowQualityError, match="cut off by the edge; use a photo that shows all of it"):
        encode_photo(np.ascontiguousarray(cut), "a.jpg", recognizer.for_enrolment())


def test_without_a_scale_nothing_is_said(recognizer: Recognizer, man: Image):
    face = max(recognizer.detect(man), key=lambda each: each.size_px)
    plain = Quality(80, 0.8, 0, 0.9, 0.9, 0.5)
    assert sureness(plain) is None
    assert wrongly_shown(turned(man, 180), face, plain, recognizer) is None
    assert sureness(replace(plain, recognisability=0.5)) == 0
    for certain in (0.0, 1.0):
        assert abs(sureness(replace(plain, recognisability=certain)) or 0) > 30


def test_the_way_in_which_the_embedder_is_surest_is_upright(recognizer: Recognizer, man: Image):
    for degrees, back in ((0, 0), (90, 270), (180, 180), (270, 90)):
        sure = sure_by_turn(turned(man, degrees), recognizer)
        assert max(sure, key=lambda turn: sure[turn]) == back
        assert sure[back] > 0.9
    assert sure_by_turn(np.zeros((240, 320, 3), np.uint8), recognizer) == {}
