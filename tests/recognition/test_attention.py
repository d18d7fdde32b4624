"""Where to look for far faces: at once at what is new, in turn at what always moves, within the budget."""

import numpy as np
import pytest

from edge.camera.motion import CELL_PX
from edge.recognition.attention import (
    BEHIND_S,
    MOST_REGIONS,
    RESERVE,
    RESERVE_PER_S,
    TURNS_PER_S,
    Attention,
)

FULL_HD = (1080, 1920, 3)
FPS = 15


class Scene:
    """A camera of 15 frames a second over a grid of cells that move or do not."""

    def __init__(self, shape: tuple[int, int, int] = FULL_HD) -> None:
        self.shape = shape
        self.attention = Attention()
        self.rows, self.columns = -(-shape[0] // CELL_PX), -(-shape[1] // CELL_PX)
        self.at_s = 100.0
        self.looked: list[tuple[int, int, int, int]] = []

    def frame(self, *moving: tuple[int, int], known: tuple[np.ndarray, ...] = ()) -> list:
        """One frame in which the cells named (row, column) move."""
        changed = np.zeros((self.rows, self.columns), np.float32)
        for row, column in moving:
            changed[row, column] = 0.5
        regions = self.attention.regions(changed if moving else None, known, self.shape, self.at_s)
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
    assert len(scene.looked) <= RESERVE + seconds * (RESERVE_PER_S + TURNS_PER_S)
    late = len(scene.looked)
    for _ in range(10 * FPS):
        scene.frame(*street(scene))
    assert len(scene.looked) - late <= 10 * TURNS_PER_S + 1, "a habit is looked at in turn only"


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
        scene.frame(*cells)
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
