"""Find faces that are too small on the reduced frame: in parts of it, at or near their native resolution.

Which parts are worth it is `recognition.attention`'s business.
"""

import numpy as np

from edge.core.types import Detection, FloatArray, Image
from edge.face.detector import Detector, moved_by

REGION_PX = 512
"""Side of the part of a frame that is searched at once."""

REGION_SIDE_PX = 256
"""Side of the detector's input for such a part, which costs what the whole reduced frame does."""

DOUBTFUL_SCORE = 0.15
"""A face in a reduced part is looked for again at native resolution from this score.

Measured on lfw-dev faces in 1920x1080 frames reduced by half: of 32 px faces .70 are found at .45 and .87 at
.15; what is none comes once in a hundred regions.
"""

NEAR_SIDE_PX = 128
"""Side of the detector's input around one face, and the least that is cut out of the frame for it."""

NEAR_FACES = 4.0
"""How many faces wide the neighbourhood is in which a face is looked for again."""

Region = tuple[int, int, int, int]
"""xyxy in whole pixels of the frame, inside it."""


class FarSearch:
    """Two detectors on the session of another one, whose least score is that of every face returned."""

    def __init__(self, detector: Detector) -> None:
        self._wide = detector.at(REGION_SIDE_PX, min_score=DOUBTFUL_SCORE)
        self._near = detector.at(NEAR_SIDE_PX)

    def find(self, image: Image, region: Region) -> list[Detection]:
        """Return the faces in a part of a frame, in pixels of the frame."""
        x1, y1, x2, y2 = region
        found: list[Detection] = []
        for doubtful in self._wide.detect(image[y1:y2, x1:x2]):
            face = self.look(image, moved_by(doubtful, x1, y1).box)
            if face is not None and not any(same_place(face, other) for other in found):
                found.append(face)
        return found

    def look(self, image: Image, box: FloatArray) -> Detection | None:
        """Return the face in the neighbourhood of a box (xyxy), the one closest to its middle."""
        height, width = image.shape[:2]
        x, y = (float(box[0]) + float(box[2])) / 2, (float(box[1]) + float(box[3])) / 2
        side = round(max(NEAR_SIDE_PX, NEAR_FACES * float(max(box[2:] - box[:2]))))
        x1 = int(min(max(0, x - side / 2), max(0, width - side)))
        y1 = int(min(max(0, y - side / 2), max(0, height - side)))
        found = [moved_by(f, x1, y1) for f in self._near.detect(image[y1 : y1 + side, x1 : x1 + side])]
        middle = np.array([x, y], np.float32)
        near = [f for f in found if float(np.abs((f.box[:2] + f.box[2:]) / 2 - middle).max()) < side / 4]
        return min(
            near, key=lambda f: float(np.abs((f.box[:2] + f.box[2:]) / 2 - middle).max()), default=None
        )


def covers(face: Detection, box: FloatArray) -> bool:
    """Return whether the middle of a box (xyxy) lies in the box of a face."""
    x, y = (box[:2] + box[2:]) / 2
    x1, y1, x2, y2 = face.box
    return bool(x1 <= x <= x2 and y1 <= y <= y2)


def same_place(first: Detection, second: Detection) -> bool:
    """Return whether the middle of one face lies in the box of the other."""
    return covers(second, first.box)
