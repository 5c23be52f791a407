import jax
import numpy as np
import pytest

from teachers.simulation.rollout import reset
from teachers.tasks.reacher import LINKS
from teachers.tasks.registry import get_task

TASK = get_task("reacher")


@pytest.fixture(scope="module")
def states():
    return jax.jit(lambda key: reset(TASK, key, 4096, "train"))(jax.random.key(0))


def test_achieved_goal_follows_from_joint_angles(states) -> None:
    shoulder, elbow = np.asarray(states.physics.qpos).T
    expected = np.stack(
        [
            LINKS[0] * np.cos(shoulder) + LINKS[1] * np.cos(shoulder + elbow),
            LINKS[0] * np.sin(shoulder) + LINKS[1] * np.sin(shoulder + elbow),
        ],
        axis=-1,
    )
    np.testing.assert_allclose(TASK.achieved_goal(states.observation), expected, atol=1e-6)


def test_sample_goal_is_uniform_over_reachable_ring(states) -> None:
    radius = np.linalg.norm(states.goal, axis=-1)
    inner, outer = abs(LINKS[0] - LINKS[1]), sum(LINKS)
    assert inner <= radius.min()
    assert radius.max() <= outer
    area = (radius**2 - inner**2) / (outer**2 - inner**2)
    assert abs(area.mean() - 0.5) < 0.02
    assert np.abs(np.asarray(states.goal).mean(axis=0)).max() < 0.01
