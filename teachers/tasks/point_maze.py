"""A point mass that finds its way through a maze."""

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Key

from teachers.tasks.base import Camera, Field, GoalSet, Task, add_motor, namespace

FORCE = 3.0  # N
RADIUS = 0.2  # of the point, m
WALL_HEIGHT = 0.5  # m

# S: start, `.`: goal in training only, E: goal in training and in evaluation, `#`: wall.
U_MAZE = ("#####", "#S..#", "###.#", "#EEE#", "#####")


class Maze:
    """A layout of square cells of 1 m around the origin; columns go along x, rows along -y."""

    def __init__(self, rows: tuple[str, ...]) -> None:
        self.rows = rows
        self.start = self.cells("S")[0]
        self.goals: dict[GoalSet, np.ndarray] = {"train": self.cells(".E"), "eval": self.cells("E")}
        self.extent = float(max(len(rows[0]), len(rows)))

    def cells(self, kinds: str) -> np.ndarray:
        """Centres `[n, 2]` (m) of the cells of these kinds."""
        found = [
            self.position(r, c)
            for r, row in enumerate(self.rows)
            for c, kind in enumerate(row)
            if kind in kinds
        ]
        return np.array(found, np.float32)

    def position(self, row: float, column: float) -> tuple[float, float]:
        """Where a row and a column, which may lie between cells, are in the world (m)."""
        return column - (len(self.rows[0]) - 1) / 2, (len(self.rows) - 1) / 2 - row

    def walls(self) -> list[tuple[int, int, int, int]]:
        """The walls as few boxes `(row, column, rows, columns)` that do not overlap.

        Every box costs contact work at each physics step. Greedy: from the first free wall cell, the
        larger of the longest horizontal and the longest vertical run, widened while whole rows fit.
        """
        free = np.array([[kind == "#" for kind in row] for row in self.rows])
        boxes = []
        while free.any():
            row, column = (int(i) for i in np.argwhere(free)[0])
            wide = _grow(free[row:, column:])
            tall = _grow(free[row:, column:].T)[::-1]
            rows, columns = max(wide, tall, key=lambda box: box[0] * box[1])
            free[row : row + rows, column : column + columns] = False
            boxes.append((row, column, rows, columns))
        return boxes


def _grow(free: np.ndarray) -> tuple[int, int]:
    """Rows and columns of the widest box of free cells from the corner, made as tall as it can be."""
    columns = int(np.argmin(np.append(free[0], False)))
    full = free[:, :columns].all(axis=1)
    return int(np.argmin(np.append(full, False))), columns


class PointMaze(Task):
    """A maze task; subclasses name the layout."""

    maze: Maze
    observation = (
        Field(
            "position",
            2,
            "m",
            "x and y of the point; cells are 1 m wide, the maze's middle is the origin",
        ),
        Field("velocity", 2, "m/s", "velocity along x and y"),
    )
    goal = (Field("position", 2, "m", "x and y where the point should be"),)
    action = (
        Field("force_x", 1, "N", "force along x", low=-FORCE, high=FORCE),
        Field("force_y", 1, "N", "force along y", low=-FORCE, high=FORCE),
    )
    substeps = 4
    success_radius = 0.5
    goal_sets = ("train", "eval")

    def build(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.0125
        spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_GRAVITY
        # Two degrees of freedom against a few frictionless walls: Newton is exact after two or three steps.
        spec.option.iterations = 4
        spec.option.ls_iterations = 8
        for row, column, rows, columns in self.maze.walls():
            x, y = self.maze.position(row + (rows - 1) / 2, column + (columns - 1) / 2)
            spec.worldbody.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=[x, y, WALL_HEIGHT / 2],
                size=[columns / 2, rows / 2, WALL_HEIGHT / 2],
                rgba=[0.55, 0.57, 0.6, 1],
                condim=1,
            )
        point = spec.worldbody.add_body(name="point", pos=[0, 0, RADIUS])
        for axis, direction in (("x", [1, 0, 0]), ("y", [0, 1, 0])):
            point.add_joint(
                name=axis,
                type=mujoco.mjtJoint.mjJNT_SLIDE,
                axis=direction,
                damping=[1.0, 0, 0],
            )
            add_motor(spec, axis, FORCE)
        point.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[RADIUS, 0, 0],
            mass=0.3,
            rgba=[0.25, 0.42, 0.68, 1],
            condim=1,
        )
        return spec

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        position = self.maze.start + jax.random.uniform(key, (2,), minval=-0.2, maxval=0.2)
        return position, jnp.zeros(2)

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        cell_key, offset_key = jax.random.split(key)
        cell = jax.random.choice(cell_key, jnp.asarray(self.maze.goals[goal_set]))
        return cell + jax.random.uniform(offset_key, (2,), minval=-0.2, maxval=0.2)

    def observe(self, data: Any) -> Any:
        return namespace(data.qpos).concatenate([data.qpos, data.qvel])

    def achieved_goal(self, observation: Any) -> Any:
        return observation[..., :2]

    def goal_position(self, goal: Any) -> tuple[float, float, float]:
        return (float(goal[0]), float(goal[1]), RADIUS)


class PointUMaze(PointMaze):
    """The U-shaped maze."""

    name = "point_u_maze"
    summary = "A point mass goes round the bend of a U-shaped corridor."
    maze = Maze(U_MAZE)
    episode_steps = 200
    camera = Camera(lookat=(0.0, 0.0, 0.0), distance=1.3 * maze.extent)
    training = {"learning.discount": 0.98, "learning.learning_rate": 5e-4}
