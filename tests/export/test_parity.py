import jax
import numpy as np
import pytest
from trajectories import make_trajectory

from export.convert import convert
from export.parity import ParityRows, compare_sequences, measure_parity
from export.session import open_session
from export.signature import Signature
from teachers.tasks.registry import get_task


def test_measure_parity_returns_the_largest_difference(student) -> None:
    random = np.random.default_rng(0)
    observation, goal = (random.standard_normal((7, n)).astype(np.float32) for n in (8, 2))
    action = np.array(jax.jit(student.networks.policy)(student.params, observation, goal))
    state, value = np.zeros((7, 0), np.float32), np.zeros(7, np.float32)
    rows = ParityRows(observation, goal, state, action, value)
    function = open_session(convert(student, "policy"))
    form = ("policy", "task")
    assert 0 < measure_parity(student.task, Signature(), function, rows, *form) < 1e-5
    action[3, 1] += 0.25
    difference = measure_parity(student.task, Signature(), function, rows, *form)
    assert difference == pytest.approx(0.25, abs=1e-5)


class Counting:
    """A policy whose action counts the readings of the episode."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.reset()

    def reset(self) -> None:
        self.count = 0

    def __call__(self, read: np.ndarray, goal: np.ndarray) -> np.ndarray:
        self.count += 1
        return read[:, :2] + self.step * self.count


def test_compare_sequences_lets_each_policy_remember() -> None:
    trajectory = make_trajectory(get_task("reacher"), np.zeros((20, 3), bool))
    read = np.random.default_rng(0).standard_normal((20, 3, 8))
    trajectory = trajectory._replace(read=read, read_goal=trajectory.goal)
    one, other = Counting(0.5), Counting(0.25)
    one(read[0], trajectory.goal[0])  # forgotten before the comparison
    assert compare_sequences(trajectory, one, Counting(0.5)) == 0.0
    assert compare_sequences(trajectory, one, other) == pytest.approx(20 * 0.25)
