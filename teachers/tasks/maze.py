"""Mazes of square cells: their walls, where episodes start, and where goals are."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Key

from teachers.tasks.declaration import Camera, GoalSet
from teachers.tasks.modelling import PAIRS_ONLY, WALL_COLOUR

# S: start; x: free; .: goal in training only; E: goal in training and evaluation; #: wall.
U = ("#####", "#S..#", "###.#", "#EEE#", "#####")
U4 = ("#####", "#...#", "#S#.#", "###.#", "#E#.#", "#EEE#", "#####")
U5 = ("########", "#......#", "#S####.#", "######.#", "#E####E#", "#EEEEEE#", "########")
BIG = (
    "########",
    "#S.##EE#",
    "#..#..E#",
    "##...###",
    "#..#...#",
    "#.#E.#E#",
    "#.EE#EE#",
    "########",
)
HARDEST = (  # evaluation uses all cells
    "############",
    "#SEEE#EEEEE#",
    "#E##E#E#E#E#",
    "#EEEEEE#EEE#",
    "#E####E###E#",
    "#EE#E#EEEEE#",
    "##E#E#E#E###",
    "#EE#EEE#EEE#",
    "############",
)
# B: a movable block. From the row below, it can be pushed to either side, or up into the goal's chamber.
PUSH = ("#####", "##E##", "#xBx#", "#xSx#", "#####")


class Box(NamedTuple):
    """A rectangle of cells: its first row and column, and its numbers of rows and columns."""

    row: int
    column: int
    rows: int
    columns: int


class Maze:
    """A layout of square cells around the origin, with columns along x and rows along -y."""

    def __init__(self, rows: tuple[str, ...], cell: float = 1.0) -> None:
        """Lays out `rows`, one character a cell, with cells of `cell` metres."""
        self.rows = rows
        self.cell = cell
        self.start = self.cells("S")[0]
        self.goals: dict[GoalSet, np.ndarray] = {"train": self.cells(".E"), "eval": self.cells("E")}
        self.extent = cell * max(len(rows[0]), len(rows))

    @property
    def camera(self) -> Camera:
        """A view of the complete maze from above."""
        return Camera(lookat=(0.0, 0.0, 0.0), distance=1.3 * self.extent)

    def cells(self, kinds: str) -> Float[np.ndarray, "n 2"]:
        """Returns the centres (m) of the cells of these kinds."""
        found = [
            self.position(r, c)
            for r, row in enumerate(self.rows)
            for c, kind in enumerate(row)
            if kind in kinds
        ]
        return np.array(found, np.float32)

    def position(self, row: float, column: float) -> tuple[float, float]:
        """Returns the position in the world (m) of a row and a column, which may lie between cells."""
        x = column - (len(self.rows[0]) - 1) / 2
        y = (len(self.rows) - 1) / 2 - row
        return self.cell * x, self.cell * y

    def sample_goal(
        self, key: Key[Array, ""], goal_set: GoalSet, spread: float = 0.2
    ) -> Float[Array, "2"]:
        """Returns a point within `spread` cells of the centre of one of the goal set's cells."""
        cell_key, offset_key = jax.random.split(key)
        centre = jax.random.choice(cell_key, jnp.asarray(self.goals[goal_set]))
        return centre + self.cell * spread * jax.random.uniform(offset_key, (2,), minval=-1)

    def walls(self) -> list[Box]:
        """Returns the walls inside the border as a few boxes that do not overlap.

        Every box costs time in each physics step. The method is greedy: from the first wall cell that no box covers, it
        takes the larger of the longest horizontal and the longest vertical run, and extends it by complete rows.
        """
        uncovered = np.array([[kind == "#" for kind in row] for row in self.rows])
        uncovered[[0, -1]] = uncovered[:, [0, -1]] = False
        boxes = []
        while uncovered.any():
            row, column = (int(i) for i in np.argwhere(uncovered)[0])
            wide = _widest_box(uncovered[row:, column:])
            tall = _widest_box(uncovered[row:, column:].T)[::-1]
            rows, columns = max(wide, tall, key=lambda box: box[0] * box[1])
            uncovered[row : row + rows, column : column + columns] = False
            boxes.append(Box(row, column, rows, columns))
        return boxes

    def add_walls(
        self, spec: mujoco.MjSpec, height: float, touched_by: tuple[str, ...], max_contacts: int
    ) -> None:
        """Adds frictionless walls.

        The border consists of four planes that touch, which cost much less than boxes, and of boxes that are only visible.

        Args:
            spec: the model.
            height: of the walls, m.
            touched_by: names of the geoms that the walls stop.
            max_contacts: MJX solves for every pair of geoms, whether they touch or not; of each kind of pair, it keeps
                this number of the nearest.
        """
        for number, box in enumerate(self.walls()):
            self._add_box(spec, f"wall_{number}", box, height)
        spec.add_numeric(name="max_contact_points", data=[max_contacts])
        rows, columns = len(self.rows), len(self.rows[0])
        for number, box in enumerate(
            (
                Box(0, 0, 1, columns),
                Box(rows - 1, 0, 1, columns),
                Box(1, 0, rows - 2, 1),
                Box(1, columns - 1, rows - 2, 1),
            )
        ):
            self._add_box(spec, f"border_{number}", box, height)
        x, y = self.cell * (columns / 2 - 1), self.cell * (rows / 2 - 1)
        for number, (position, inwards) in enumerate(
            (((0, y), (0, -1)), ((0, -y), (0, 1)), ((-x, 0), (1, 0)), ((x, 0), (-1, 0)))
        ):
            spec.worldbody.add_geom(
                name=f"edge_{number}",
                type=mujoco.mjtGeom.mjGEOM_PLANE,
                pos=[*position, 0],
                zaxis=[*inwards, 0],
                size=[1, 1, 1],
                rgba=[0, 0, 0, 0],
                **PAIRS_ONLY,
            )
        touching = [f"edge_{i}" for i in range(4)] + [f"wall_{i}" for i in range(len(self.walls()))]
        for wall in touching:
            for geom in touched_by:
                spec.add_pair(geomname1=wall, geomname2=geom, condim=1)

    def _add_box(self, spec: mujoco.MjSpec, name: str, box: Box, height: float) -> None:
        x, y = self.position(box.row + (box.rows - 1) / 2, box.column + (box.columns - 1) / 2)
        spec.worldbody.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[x, y, height / 2],
            size=[self.cell * box.columns / 2, self.cell * box.rows / 2, height / 2],
            rgba=WALL_COLOUR,
            **PAIRS_ONLY,
        )


def _widest_box(cells: np.ndarray) -> tuple[int, int]:
    """Returns rows and columns of the widest box of true cells from the first corner, as tall as that width allows."""
    columns = int(np.argmin(np.append(cells[0], False)))
    complete_rows = cells[:, :columns].all(axis=1)
    return int(np.argmin(np.append(complete_rows, False))), columns
