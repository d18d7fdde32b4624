"""Enrolling a list: each part of it is judged by the gallery that it joins."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from edge.camera.photo import read_photo
from edge.core.types import Subject
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_recognizer
from edge.device.settings.load import load
from edge.gallery.gallery import Gallery
from edge.gallery.store.store import GalleryStore
from edge.lab.demo.media import orl_photo
from edge.recognition.enrolment.bulk import EnrolmentOutcome, enroll_all
from edge.recognition.enrolment.enrol import encode_photo
from edge.recognition.enrolment.roster import Entry
from tests.support.gallery_samples import template, unit_rows

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_list_of_look_alikes_is_judged_by_the_threshold_of_look_alikes(tmp_path: Path, media: Path):
    recognizer = build_recognizer(load(), Gallery.empty("none"), side_px=PHOTO_SIDE_PX).for_enrolment()
    model_id = recognizer.embedder.model_id
    photo = orl_photo(media, 1, 1)
    seen = encode_photo(read_photo(photo), photo.name, recognizer).embedding

    def enrolled_among(count: int) -> list[EnrolmentOutcome]:
        """Enrol the photo among faces that are .5 alike to it, and .25 to each other."""
        across = unit_rows(count, seed=3)
        across -= np.outer(across @ seen, seen)
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        rows = (np.sqrt(0.75) * across + 0.5 * seen).astype(np.float32)
        store = GalleryStore(tmp_path / str(count), keep_versions=2, key=tmp_path / "device.key")
        store.commit(
            Gallery.empty(model_id).with_subjects(
                (Subject(f"p-{number}", ""), [template(row, model_id)]) for number, row in enumerate(rows)
            )
        )
        entry = Entry(Subject("new", ""), (photo,))
        return enroll_all([entry], recognizer, store, at=lambda: AT, max_prototypes=3, told=lambda *_: None)

    [few] = enrolled_among(10)
    assert (few.status, "nearly the same face" in few.reason) == ("refused", True)
    many = enrolled_among(60)
    assert many[0].status == "enrolled", many
