import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teachers.tasks.maze import BIG, HARDEST, U4, U5, Maze, U


@settings(max_examples=200)
@given(
    st.integers(1, 7).flatmap(
        lambda width: st.lists(
            st.text("#.", min_size=width, max_size=width), min_size=1, max_size=7
        )
    )
)
def test_walls_cover_every_inner_wall_cell_once(rows) -> None:
    maze = Maze.__new__(Maze)
    maze.rows = ("#" * (len(rows[0]) + 2), *(f"#{row}#" for row in rows), "#" * (len(rows[0]) + 2))
    covered = np.zeros((len(rows), len(rows[0])), int)
    for row, column, height, width in maze.walls():
        assert min(row, column) > 0  # the border is four planes
        covered[row - 1 : row - 1 + height, column - 1 : column - 1 + width] += 1
    np.testing.assert_array_equal(covered, [[kind == "#" for kind in row] for row in rows])


@pytest.mark.parametrize(("rows", "boxes"), [(U, 1), (U4, 2), (U5, 2), (BIG, 8), (HARDEST, 11)])
def test_walls_need_few_boxes(rows, boxes) -> None:
    maze = Maze(rows)
    assert len(maze.walls()) == boxes
    assert {len(row) for row in rows} == {len(rows[0])}
    assert all(row[0] == row[-1] == "#" for row in rows)
    assert set(rows[0]) == set(rows[-1]) == {"#"}


def test_goals_are_in_free_cells_and_evaluation_goals_in_far_corridor() -> None:
    maze = Maze(U)
    assert len(maze.goals["train"]) == 6
    np.testing.assert_array_equal(maze.goals["eval"], [[-1, -1], [0, -1], [1, -1]])
    np.testing.assert_array_equal(maze.start, [-1, 1])
