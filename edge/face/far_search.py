"""Find faces that are too small on the reduced frame: in parts of it, at or near their native resolution.

Which parts are worth it is `recognition.attention`'s business.
"""

from edge.core.types import Detection, FloatArray, Image
from edge.face.detector import Detector, moved_by

REGION_INPUT_PX = 128
"""Side of the detector's input for a part of a frame that is searched at once; costs a quarter of the reduced
frame."""

REDUCTION, LARGE_REDUCTION, LARGE_WIDTH_PX = 2, 3, 1500
"""By how much such a part is reduced, and by how much in frames wider than LARGE_WIDTH_PX.

Measured on 60 lfw-dev faces in scenes, from a score of .08 on: reduced by 2, .93 of 24 px faces and .98 of
32 px are found; by 3, .58 and .90, in an area more than twice as large; by 4, .18 and .70.
"""

DOUBTFUL_SCORE = 0.08
"""In such a part a face is looked for again at native resolution from this score."""

REDUCED_DOUBTFUL_SCORE = 0.05
"""On the reduced frame.

Measured on lfw-dev faces in scenes, in each frame: of 32 px faces at 1280x720 .91 reach it, of 48 px faces at
1920x1080 .87, of 80 px faces at 3840x2160 .58; one to 14 places of a picture without faces do, too.
"""

MOST_DOUBTFUL = 2
"""What may be a face in such a part, looked for again, the best first."""

NEAR_INPUT_PX = 96
"""Side of the detector's input around one face, and the least that is cut out of the frame for it."""

NEAR_FACES = 3.0
"""How many faces wide the neighbourhood is in which a face is looked for again.

Measured on 80 lfw-dev faces of 24, 32, 48 and 80 px in scenes, up to .7 of their size from where they were
expected: all are found, as at 128 px and four faces; at 64 px and two and a half .84 to .98.
"""

SIZE_SLACK = 0.9
"""Share of the least size of a usable face from which a far face is taken: its box is some pixels off."""

DOUBTFUL_SIZE_SLACK = 0.6
"""The same of what may be a face in a reduced picture."""

Region = tuple[int, int, int, int]
"""xyxy in whole pixels of the frame, inside it."""


def region_side_px(frame_shape: tuple[int, ...]) -> int:
    """Return the side of the parts in which frames of this shape are searched, in pixels of the frame."""
    return REGION_INPUT_PX * (REDUCTION if frame_shape[1] <= LARGE_WIDTH_PX else LARGE_REDUCTION)


class FarSearch:
    """Two detectors on the session of another one, whose least score is that of every face returned.

    Faces smaller than `min_face_px` are left alone: nobody is recognised by them, and a street has many.
    """

    def __init__(self, detector: Detector, *, min_face_px: float) -> None:
        self._min_face_px = min_face_px
        self._wide = detector.at(REGION_INPUT_PX, min_score=DOUBTFUL_SCORE)
        self._near = detector.at(NEAR_INPUT_PX)

    def find(self, image: Image, region: Region) -> list[Detection]:
        """Return the faces in a part of a frame, in pixels of the frame."""
        x1, y1, x2, y2 = region
        found: list[Detection] = []
        seen = [face for face in self._wide.detect(image[y1:y2, x1:x2]) if self.may_be_large_enough(face)]
        for doubtful in seen[:MOST_DOUBTFUL]:
            face = self.look(image, moved_by(doubtful, x1, y1).box)
            if face is not None and not any(same_place(face, other) for other in found):
                found.append(face)
        return found

    def may_be_large_enough(self, doubtful: Detection) -> bool:
        """Return whether what may be a face in a reduced picture may be one that is worth a look."""
        return doubtful.size_px >= DOUBTFUL_SIZE_SLACK * self._min_face_px

    def look(self, image: Image, box: FloatArray) -> Detection | None:
        """Return the face in the neighbourhood of a box (xyxy), the one closest to its middle."""
        height, width = image.shape[:2]
        x, y = (float(box[0]) + float(box[2])) / 2, (float(box[1]) + float(box[3])) / 2
        side = round(max(NEAR_INPUT_PX, NEAR_FACES * float(max(box[2:] - box[:2]))))
        x1 = int(min(max(0, x - side / 2), max(0, width - side)))
        y1 = int(min(max(0, y - side / 2), max(0, height - side)))
        found: Detection | None = None
        least = side / 4
        for seen in self._near.detect(image[y1 : y1 + side, x1 : x1 + side]):
            left, top, right, bottom = seen.box.tolist()
            apart = max(abs(x1 + (left + right) / 2 - x), abs(y1 + (top + bottom) / 2 - y))
            if apart < least and seen.size_px >= SIZE_SLACK * self._min_face_px:
                found, least = seen, apart
        return None if found is None else moved_by(found, x1, y1)


def covers(face: Detection, box: FloatArray) -> bool:
    """Return whether the middle of a box (xyxy) lies in the box of a face."""
    left, top, right, bottom = box.tolist()
    x1, y1, x2, y2 = face.box.tolist()
    return bool(x1 <= (left + right) / 2 <= x2 and y1 <= (top + bottom) / 2 <= y2)


def same_place(first: Detection, second: Detection) -> bool:
    """Return whether the middle of one face lies in the box of the other."""
    return covers(second, first.box)
