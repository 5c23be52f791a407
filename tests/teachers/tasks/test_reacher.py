import jax
import numpy as np

from teachers.simulation.rollout import reset
from teachers.tasks.reacher import LINKS
from teachers.tasks.registry import get_task


def test_fingertip_is_where_the_joint_angles_put_it() -> None:
    task = get_task("reacher")
    states = jax.jit(lambda key: reset(task, key, 64, "train"))(jax.random.key(0))
    shoulder, elbow = np.asarray(states.physics.qpos).T
    expected = np.stack(
        [
            LINKS[0] * np.cos(shoulder) + LINKS[1] * np.cos(shoulder + elbow),
            LINKS[0] * np.sin(shoulder) + LINKS[1] * np.sin(shoulder + elbow),
        ],
        axis=-1,
    )
    np.testing.assert_allclose(task.achieved_goal(states.observation), expected, atol=1e-6)


def test_goals_are_uniform_over_the_reachable_ring() -> None:
    task = get_task("reacher")
    states = jax.jit(lambda key: reset(task, key, 4096, "train"))(jax.random.key(0))
    radius = np.linalg.norm(states.goal, axis=-1)
    inner, outer = abs(LINKS[0] - LINKS[1]), sum(LINKS)
    assert inner <= radius.min()
    assert radius.max() <= outer
    area = (radius**2 - inner**2) / (outer**2 - inner**2)
    assert abs(area.mean() - 0.5) < 0.02
    assert np.abs(np.asarray(states.goal).mean(axis=0)).max() < 0.01
