import jax
import jax.numpy as jnp
import numpy as np

from teachers.simulation.rollout import reset, rollout
from teachers.tasks.point_maze import RADIUS
from teachers.tasks.registry import get_task


def test_step_stops_point_at_walls() -> None:
    task = get_task("point_u_maze")

    def push_down(key, observation, goal):  # into the wall between the corridors
        return jnp.broadcast_to(jnp.array([0.0, -1.0]), (4, 2))

    @jax.jit
    def play(key):
        return rollout(task, push_down, reset(task, key, 4, "train"), key, 60, "train")

    _, trajectory = play(jax.random.key(0))
    y = np.asarray(trajectory.observation)[-1, :, 1]
    np.testing.assert_allclose(y, 0.5 + RADIUS, atol=0.03)
