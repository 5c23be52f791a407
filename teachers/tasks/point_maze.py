"""A point mass that finds its way through a maze."""

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float, Key

from teachers.tasks.base import Task
from teachers.tasks.declaration import Field, GoalSet, Sensor, namespace
from teachers.tasks.maze import BIG, HARDEST, Maze, U
from teachers.tasks.modelling import BODY_COLOUR, PAIRS_ONLY, add_motor

FORCE = 3.0  # N
RADIUS = 0.2  # of the point mass, m
WALL_HEIGHT = 0.5  # m
BRANCHES_TRAINING = {
    "steps": 2_000_000,
    # Tried on `point_big_maze`: without the commanded goal, the critic prefers the policy's own action even where it presses
    # against a wall; corners hold a policy whose noise changes in every step, and without random actions some cells are
    # hardly reached.
    "commanded_critic": True,
    "rollout.noise_steps": 5,
    "rollout.random": 0.2,
    "rollout.deterministic": 0.25,
    "rollout.replay_steps": 20_000,
    "learning.random_goals": 0.5,
    "learning.initial_temperature": 1.0,
    "learning.gradient_steps": 128,
    "learning.learning_rate": 5e-4,
    "logging.evaluate_every": 16,
    "logging.checkpoint_every": 16,
}


class PointMaze(Task):
    """The point mass in a maze; subclasses declare the layout."""

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
    sensors = (Sensor("position", 2, "m", "x and y of the point", noise=0.01),)
    substeps = 4
    success_radius = 0.5
    goal_sets = ("train", "eval")

    def build(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.025
        spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_GRAVITY
        # With two degrees of freedom and frictionless walls, Newton's method is exact after two or three steps.
        spec.option.iterations = 4
        spec.option.ls_iterations = 8
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
            name="point",
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[RADIUS, 0, 0],
            mass=0.3,
            rgba=BODY_COLOUR,
            **PAIRS_ONLY,
        )
        self.maze.add_walls(spec, WALL_HEIGHT, touched_by=("point",), max_contacts=4)
        return spec

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        position = self.maze.start + jax.random.uniform(key, (2,), minval=-0.2, maxval=0.2)
        return position, jnp.zeros(2)

    def sample_goal(
        self, key: Key[Array, ""], observation: Float[Array, "obs"], goal_set: GoalSet
    ) -> Float[Array, "goal"]:
        return self.maze.sample_goal(key, goal_set)

    def observe(self, data: Any) -> Any:
        return namespace(data.qpos).concatenate([data.qpos, data.qvel])

    def achieved_goal(self, observation: Any) -> Any:
        return observation[..., :2]

    def measure(self, data: Any, goal: Any) -> Any:
        return data.qpos

    def goal_position(self, goal: Any) -> tuple[float, float, float]:
        return (float(goal[0]), float(goal[1]), RADIUS)


class PointUMaze(PointMaze):
    """The point mass in the U-shaped maze."""

    name = "point_u_maze"
    summary = "A point mass goes round the bend of a U-shaped corridor."
    maze = Maze(U)
    episode_steps = 200
    camera = maze.camera
    training = {"steps": 800_000, "learning.discount": 0.98, "learning.learning_rate": 5e-4}


class PointBigMaze(PointMaze):
    """The point mass in the big maze."""

    name = "point_big_maze"
    summary = "A point mass finds its way through a maze of 8 x 8 cells with several branches."
    maze = Maze(BIG)
    episode_steps = 300
    camera = maze.camera
    training = BRANCHES_TRAINING | {"learning.discount": 0.98}


class PointHardestMaze(PointMaze):
    """The point mass in the hardest maze."""

    name = "point_hardest_maze"
    summary = "A point mass finds its way through a maze of 12 x 9 cells with many branches."
    maze = Maze(HARDEST)
    episode_steps = 400
    camera = maze.camera
    training = BRANCHES_TRAINING | {"learning.discount": 0.99}
