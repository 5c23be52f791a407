import numpy as np
import pytest
from examples.cart import Cart

from teachers.simulation import played_checks
from teachers.simulation.check import check_task
from teachers.simulation.reach_check import find_unreachable
from teachers.tasks import Field
from teachers.tasks.reacher import Reacher
from teachers.tasks.registry import get_task


def test_find_unreachable_counts_goals_beyond_reach() -> None:
    task = Reacher()
    angle = np.linspace(0.0, 6.0, 8)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert find_unreachable(task, 0.15 * ring) == 0
    assert find_unreachable(task, 0.5 * ring) == 8
    assert find_unreachable(task, np.concatenate([0.15 * ring, 0.5 * ring[:3]])) == 3


def test_find_unreachable_knows_joint_ranges() -> None:
    class Bounded(Reacher):
        """Its shoulder turns by 0.1 rad, and its elbow by 0.5."""

        def build(self):
            spec = super().build()
            for joint, largest in zip(spec.joints, (0.1, 0.5), strict=True):
                joint.range, joint.limited = [-largest, largest], True
            return spec

    goals = np.array([[0.2, 0.0], [-0.2, 0.0], [0.0, 0.2]], np.float32)
    assert find_unreachable(Bounded(), goals) == 2


class Speed(Reacher):
    """Its goal is a velocity."""

    goal = (Field("velocity", 2, "rad/s", "velocity of the joints"),)

    def achieved_goal(self, observation):
        return observation[..., 4:6]


@pytest.mark.parametrize("name", ["point_u_maze", "arm_push_easy", "ant"])
def test_find_unreachable_says_nothing_where_joints_have_no_bounds(name) -> None:
    task = get_task(name)
    assert find_unreachable(task, np.full((2, task.goal_size), 1e3, np.float32)) is None


def test_find_unreachable_says_nothing_about_velocities() -> None:
    assert find_unreachable(Speed(), np.full((2, 2), 1e3, np.float32)) is None


class FarCart(Cart):
    """Its rail is 2 m long, and most of its goals lie beyond."""

    def build(self):
        spec = super().build()
        for joint in spec.joints:
            joint.range, joint.limited = [-1.0, 1.0], True
        return spec

    def sample_goal(self, key, observation, goal_set):
        return super().sample_goal(key, observation, goal_set) * 5.0


@pytest.mark.slow
def test_check_task_finds_goals_out_of_reach(monkeypatch) -> None:
    problems = check_task(FarCart())
    assert [line for line in problems if "come near" in line]
    assert "train goals: no joint positions that a search finds come near" in problems[0]
    assert "; draw goals that can be reached" in problems[0]
    monkeypatch.setattr(played_checks, "MISSED_SHARE", 1.0)
    assert check_task(FarCart()) == []
