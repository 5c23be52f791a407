"""Whether goals can be reached: a search for joint positions that achieve them."""

from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares

from teachers.simulation.c_twin import Twin
from teachers.tasks.base import Task
from teachers.tasks.encoding import encode_fields

DRAWN = 2000  # joint positions at random
STARTS, EVALUATIONS = 5, 30  # of the searches from the best of them for a goal
NEAR = 2.0  # success radii within which a goal counts as reached: the search is not exact
HINGE = int(mujoco.mjtJoint.mjJNT_HINGE)


def find_unreachable(task: Task, goals: Float[np.ndarray, "n goal"]) -> int | None:
    """Returns how many goals no joint positions come near, as far as a search finds; contacts are ignored.

    It is None where a search says nothing: a joint has no bounds (a free one, a slide without a range), or what is achieved
    depends on velocities.

    Args:
        task: whose goals they are.
        goals: to be reached.
    """
    ranges = _joint_ranges(task.model)
    if ranges is None or task.model.nmocap:
        return None
    low, high = ranges
    random, twin = np.random.default_rng(0), Twin(task)
    at_rest = np.zeros(task.model.nv)

    def achieve(qpos: Float[np.ndarray, "nq"], qvel: Float[np.ndarray, "nv"]) -> np.ndarray:
        twin.reset(qpos, qvel)
        return np.asarray(task.achieved_goal(twin.observation))

    drawn = random.uniform(low, high, (DRAWN, len(low)))
    if not np.allclose(achieve(drawn[0], at_rest), achieve(drawn[0], at_rest + 1.0), atol=1e-6):
        return None
    achieved = np.stack([achieve(qpos, at_rest) for qpos in drawn])
    encoded = encode_fields(task.goal, achieved)

    def is_near(found: np.ndarray, goal: np.ndarray) -> Any:
        return task.goal_distance(found, goal) <= NEAR * task.success_radius

    def comes_near(goal: Float[np.ndarray, "goal"]) -> bool:
        if is_near(achieved, np.broadcast_to(goal, achieved.shape)).any():
            return True
        target = encode_fields(task.goal, goal)
        for start in np.argsort(np.linalg.norm(encoded - target, axis=-1))[:STARTS]:
            found = least_squares(
                lambda qpos: encode_fields(task.goal, achieve(qpos, at_rest)) - target,
                drawn[start],
                bounds=(low, high),
                diff_step=1e-3,  # observations are float32
                max_nfev=EVALUATIONS,
            )
            if is_near(achieve(found.x, at_rest), goal):
                return True
        return False

    return sum(not comes_near(goal) for goal in goals)


def _joint_ranges(
    model: mujoco.MjModel,
) -> tuple[Float[np.ndarray, "nq"], Float[np.ndarray, "nq"]] | None:
    """Returns the lowest and the highest joint positions; None where one has no bounds."""
    low, high = model.jnt_range.T.copy()
    is_free = ~model.jnt_limited.astype(bool)
    if model.nq != model.njnt or (is_free & (model.jnt_type != HINGE)).any():
        return None
    low[is_free], high[is_free] = -np.pi, np.pi
    return low, high
