"""Where to look for far faces: at once at what is new, in turn at what always moves, within the budget."""

import numpy as np
import pytest

from edge.camera.motion import CELL_PX, Movement
from edge.core.types import Detection
from edge.recognition.attention import (
    BEHIND_S,
    BUDGET,
    BUDGET_PER_S,
    DOUBTFUL_S,
    MOST_DOUBTFUL,
    MOST_REGIONS,
    Attention,
)

FULL_HD = (1080, 1920, 3)
FPS = 15


class Scene:
    """A camera of 15 frames a second over a grid of cells that move or do not.

    As the motion gate says it, what moves in a cell is new unless something moved there lately.
    """

    def __init__(self, shape: tuple[int, int, int] = FULL_HD) -> None:
        self.shape = shape
        self.attention = Attention()
        self.rows, self.columns = -(-shape[0] // CELL_PX), -(-shape[1] // CELL_PX)
        self.seen = np.zeros((self.rows, self.columns), bool)
        self.at_s = 100.0
        self.looked: list[tuple[int, int, int, int]] = []
        self.doubted: list[np.ndarray] = []

    def frame(
        self,
        *moving: tuple[int, int],
        known: tuple[np.ndarray, ...] = (),
        doubtful: tuple[Detection, ...] = (),
        always_new: bool = False,
    ) -> list:
        """One frame in which the cells named (row, column) move."""
        changed = np.zeros((self.rows, self.columns), np.float32)
        for row, column in moving:
            changed[row, column] = 0.5
        new = np.where(self.seen & (not always_new), 0, changed).astype(np.float32)
        self.seen |= changed > 0
        movement = Movement(changed, new) if moving else None
        self.attention.notice(movement, known, self.shape, self.at_s)
        self.doubted += self.attention.doubtful(doubtful, known)
        regions = self.attention.regions()
        self.at_s += 1 / FPS
        self.looked += regions
        return regions


def holds(region: tuple[int, int, int, int], row: int, column: int) -> bool:
    x, y = (column + 0.5) * CELL_PX, (row + 0.5) * CELL_PX
    return region[0] <= x < region[2] and region[1] <= y < region[3]


def street(scene: Scene) -> list[tuple[int, int]]:
    """The left third of the picture, which never rests."""
    return [(row, column) for row in range(scene.rows) for column in range(scene.columns // 3)]


@pytest.mark.parametrize("cell", [(0, 0), (8, 15), (3, 29), (16, 1)])
def test_what_moves_for_the_first_time_is_looked_at_at_once(cell: tuple[int, int]):
    scene = Scene()
    for _ in range(20):
        scene.frame()
    assert holds(scene.frame(cell)[0], *cell)


def test_a_still_scene_is_never_searched():
    scene = Scene()
    for _ in range(100):
        scene.frame()
    assert scene.looked == []


def test_whoever_comes_while_a_street_moves_is_looked_at_within_half_a_second():
    scene = Scene()
    for _ in range(10 * FPS):
        scene.frame(*street(scene))
    scene.looked.clear()
    for _ in range(FPS // 2):
        scene.frame(*street(scene), (4, 25), (5, 25))
    assert any(holds(region, 4, 25) for region in scene.looked)


@pytest.mark.parametrize("shape", [(720, 1280, 3), FULL_HD, (2160, 3840, 3)])
def test_a_scene_that_always_moves_costs_the_same_whatever_the_resolution(shape: tuple[int, int, int]):
    scene = Scene(shape)
    seconds = 60
    for _ in range(seconds * FPS):
        assert len(scene.frame(*street(scene))) <= MOST_REGIONS
    assert len(scene.looked) <= BUDGET + seconds * BUDGET_PER_S
    late = len(scene.looked)
    for _ in range(10 * FPS):
        scene.frame(*street(scene))
    assert len(scene.looked) - late <= 10 * BUDGET_PER_S + 1, "no more than comes back"


def test_what_always_moves_leaves_some_of_the_budget_for_what_is_new():
    scene = Scene()
    for _ in range(60 * FPS):
        scene.frame(*street(scene))
    somebody = [(row, 25) for row in range(4, 8)]
    assert any(holds(region, 4, 25) for region in scene.frame(*street(scene), *somebody)), "at once"


def test_a_habit_is_looked_at_everywhere_in_turn():
    scene = Scene()
    for _ in range(5 * FPS):
        scene.frame(*street(scene))
    scene.looked.clear()
    for _ in range(20 * FPS):
        scene.frame(*street(scene))
    for row, column in street(scene):
        assert any(holds(region, row, column) for region in scene.looked), (row, column)


def test_two_who_come_at_once_are_both_looked_at():
    scene = Scene()
    for _ in range(20):
        scene.frame()
    left, right = (4, 3), (9, 26)
    regions = scene.frame(left, right)
    assert any(holds(region, *left) for region in regions)
    assert any(holds(region, *right) for region in regions)


def test_a_head_is_looked_for_at_the_top_of_what_moves():
    scene = Scene()
    for _ in range(20):
        scene.frame()
    person = [(row, 15) for row in range(3, 15)]
    assert holds(scene.frame(*person)[0], 3, 15)


def test_a_face_that_is_followed_needs_no_search():
    scene = Scene()
    for _ in range(20):
        scene.frame()
    face = np.array([900, 500, 1000, 620], np.float32)
    assert scene.frame((8, 14), (8, 15), known=(face,)) == [] or scene.frame((8, 15), known=(face,)) == []


def test_being_behind_is_told_and_ends():
    scene = Scene((2160, 3840, 3))
    dice = np.random.default_rng(0)
    told = []
    for _ in range(10 * FPS):  # everywhere something new: a camera that is shaken
        cells = {
            (int(r), int(c)) for r, c in zip(dice.integers(0, 34, 60), dice.integers(0, 60, 60), strict=True)
        }
        scene.frame(*cells, always_new=True)
        told.append(scene.attention.behind)
    assert any(told)
    for _ in range(int((BEHIND_S + 1) * FPS)):
        scene.frame()
    assert not scene.attention.behind


def test_regions_lie_inside_the_frame_whatever_its_size():
    for shape in ((700, 900, 3), (1080, 1920, 3), (300, 2000, 3)):
        scene = Scene(shape)
        scene.frame()
        for region in scene.frame((0, 0), (scene.rows - 1, scene.columns - 1)):
            x1, y1, x2, y2 = region
            assert 0 <= x1 < x2 <= shape[1]
            assert 0 <= y1 < y2 <= shape[0]


def doubtful(row: int, column: int, score: float = 0.2) -> Detection:
    x, y = (column + 0.5) * CELL_PX, (row + 0.5) * CELL_PX
    box = np.array([x - 15, y - 15, x + 15, y + 15], np.float32)
    return Detection(box, np.zeros((5, 2), np.float32), score)


def test_what_might_be_a_face_is_looked_at_where_something_moves():
    scene = Scene()
    scene.frame((4, 10), doubtful=(doubtful(4, 10), doubtful(12, 20)))
    assert [box.tolist() for box in scene.doubted] == [doubtful(4, 10).box.tolist()]


def test_what_might_be_a_face_and_is_none_is_not_looked_at_in_every_frame():
    scene = Scene()
    seconds = 3
    for _ in range(seconds * FPS):
        scene.frame((4, 10), doubtful=(doubtful(4, 10),))
    assert 2 <= len(scene.doubted) <= seconds / DOUBTFUL_S + 1


def test_a_pattern_that_looks_like_a_hundred_faces_stays_within_the_budget():
    scene = Scene()
    cells = [(row, column) for row in range(10) for column in range(10)]
    seconds = 30
    for _ in range(seconds * FPS):
        before = len(scene.doubted)
        scene.frame(*cells, doubtful=tuple(doubtful(*cell) for cell in cells))
        assert len(scene.doubted) - before <= MOST_DOUBTFUL
    assert len(scene.doubted) + len(scene.looked) <= BUDGET + seconds * BUDGET_PER_S


def test_the_body_of_a_face_that_is_followed_is_looked_at_in_turn_only():
    face = np.array([900, 300, 960, 360], np.float32)
    body = [(row, 14) for row in range(6, 10)]
    followed, alone = Scene(), Scene()
    for _ in range(2 * FPS):
        followed.frame(*body, known=(face,), always_new=True)
        alone.frame(*body, always_new=True)
    assert len(followed.looked) <= 3 < len(alone.looked)
