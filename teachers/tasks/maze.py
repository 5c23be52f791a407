"""Mazes of square cells: where their walls stand, where episodes start and where goals lie."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Key

from teachers.tasks.declaration import Camera, GoalSet

WALL_COLOUR = (0.55, 0.57, 0.6, 1.0)

# S: start, `x`: free, `.`: goal in training only, E: goal in training and in evaluation, `#`: wall.
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
HARDEST = (  # evaluated on all of its cells
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
# B: a movable block. From the row below, it can be pushed into either side, or up into the goal's chamber.
PUSH = ("#####", "##E##", "#xBx#", "#xSx#", "#####")


class Box(NamedTuple):
    """A rectangle of cells: its first row and column, and how many of each it spans."""

    row: int
    column: int
    rows: int
    columns: int


class Maze:
    """A layout of square cells around the origin; columns go along x, rows along -y."""

    def __init__(self, rows: tuple[str, ...], cell: float = 1.0) -> None:
        """Lays out `rows` with cells of `cell` metres."""
        self.rows = rows
        self.cell = cell
        self.start = self.cells("S")[0]
        self.goals: dict[GoalSet, np.ndarray] = {"train": self.cells(".E"), "eval": self.cells("E")}
        self.extent = cell * max(len(rows[0]), len(rows))

    @property
    def camera(self) -> Camera:
        """A view of the whole maze from above."""
        return Camera(lookat=(0.0, 0.0, 0.0), distance=1.3 * self.extent)

    def cells(self, kinds: str) -> Float[np.ndarray, "n 2"]:
        """Centres (m) of the cells of these kinds."""
        found = [
            self.position(r, c)
            for r, row in enumerate(self.rows)
            for c, kind in enumerate(row)
            if kind in kinds
        ]
        return np.array(found, np.float32)

    def position(self, row: float, column: float) -> tuple[float, float]:
        """Where a row and a column, which may lie between cells, are in the world (m)."""
        x = column - (len(self.rows[0]) - 1) / 2
        y = (len(self.rows) - 1) / 2 - row
        return self.cell * x, self.cell * y

    def sample_goal(
        self, key: Key[Array, ""], goal_set: GoalSet, spread: float = 0.2
    ) -> Float[Array, "2"]:
        """A point within `spread` cells of the centre of one of the set's cells."""
        cell_key, offset_key = jax.random.split(key)
        centre = jax.random.choice(cell_key, jnp.asarray(self.goals[goal_set]))
        return centre + self.cell * spread * jax.random.uniform(offset_key, (2,), minval=-1)

    def walls(self) -> list[Box]:
        """The walls inside the border as few boxes that do not overlap.

        Every box costs contact work at each physics step. Greedy: from the first free wall cell, the
        larger of the longest horizontal and the longest vertical run, widened while whole rows fit.
        """
        free = np.array([[kind == "#" for kind in row] for row in self.rows])
        free[[0, -1]] = free[:, [0, -1]] = False
        boxes = []
        while free.any():
            row, column = (int(i) for i in np.argwhere(free)[0])
            wide = _grow(free[row:, column:])
            tall = _grow(free[row:, column:].T)[::-1]
            rows, columns = max(wide, tall, key=lambda box: box[0] * box[1])
            free[row : row + rows, column : column + columns] = False
            boxes.append(Box(row, column, rows, columns))
        return boxes

    def add_walls(
        self, spec: mujoco.MjSpec, height: float, touched_by: tuple[str, ...], most: int
    ) -> None:
        """Adds frictionless walls, solid for the geoms named in `touched_by` alone.

        MJX solves for every pair of geoms, touching or not; `most` is how many of one kind it keeps, the nearest.

        The border touches as four planes, which cost much less than boxes; its boxes are there to be seen.
        """
        for number, box in enumerate(self.walls()):
            self._add_box(spec, f"wall_{number}", box, height)
        spec.add_numeric(name="max_contact_points", data=[most])
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
                contype=0,
                conaffinity=0,
            )
        solid = [f"edge_{i}" for i in range(4)] + [f"wall_{i}" for i in range(len(self.walls()))]
        for wall in solid:
            for geom in touched_by:
                spec.add_pair(geomname1=wall, geomname2=geom, condim=1)

    def _add_box(self, spec: mujoco.MjSpec, name: str, box: Box, height: float) -> None:
        x, y = self.position(box.row + (box.rows - 1) / 2, box.column + (box.columns - 1) / 2)
        spec.worldbody.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[x, y, height / 2],
            size=[self.cell * box.columns / 2, self.cell * box.rows / 2, height / 2],
            rgba=list(WALL_COLOUR),
            contype=0,
            conaffinity=0,
        )


def _grow(free: np.ndarray) -> tuple[int, int]:
    """Rows and columns of the widest box of free cells from the corner, made as tall as it can be."""
    columns = int(np.argmin(np.append(free[0], False)))
    full = free[:, :columns].all(axis=1)
    return int(np.argmin(np.append(full, False))), columns
