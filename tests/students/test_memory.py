"""Students that read sensors and remember."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from students import StudentConfig, student_networks
from students.memory import Remembering
from students.networks import describe_networks
from teachers.crl.parameters import count_parameters
from teachers.tasks.encoding import encode_fields
from teachers.tasks.registry import get_task


def make(**settings):
    """Returns the networks of a student of the pusher, whose sensors read 10 numbers, and their parameters."""
    networks = student_networks(get_task("pusher_easy"), StudentConfig(**settings), embedding=8)
    return networks, networks.init(jax.random.key(0))


def remember_all(networks, params, readings):
    """Returns what is seen in each control step of an episode."""
    memory, seen = jnp.zeros((*readings.shape[1:-1], networks.memory_size)), []
    for read in readings:
        now, memory = networks.remember(params, read, memory)
        seen.append(np.asarray(now))
    return np.stack(seen)


READINGS = jax.random.normal(jax.random.key(1), (6, 2, 10))


def test_student_without_memory_sees_what_it_reads() -> None:
    networks, params = make(sees="sensors")
    assert networks.memory_size == 0
    np.testing.assert_array_equal(remember_all(networks, params, READINGS), READINGS)
    goal = jnp.ones((2, 3))
    assert networks.policy(params, READINGS[0], goal).shape == (2, 7)


def test_history_sees_the_last_readings_the_newest_first() -> None:
    networks, params = make(sees="sensors", memory="history", frames=3)
    assert isinstance(networks, Remembering)
    assert networks.memory_size == 20
    seen = remember_all(networks, params, READINGS)
    scaled = np.asarray(encode_fields(networks.task.read_fields, READINGS))
    before = np.concatenate([np.zeros((2, 2, 10)), scaled])  # zeros at the start of an episode
    for step in range(6):
        expected = np.concatenate([before[step + 2], before[step + 1], before[step]], axis=-1)
        np.testing.assert_allclose(seen[step], expected, atol=1e-6)


def test_gru_sees_its_state_beside_the_reading() -> None:
    networks, params = make(sees="sensors", memory="gru", memory_width=5)
    assert networks.memory_size == 5
    seen = remember_all(networks, params, READINGS)
    np.testing.assert_allclose(
        seen[..., :10], encode_fields(networks.task.read_fields, READINGS), atol=1e-6
    )
    assert (np.abs(seen[..., 10:]) < 1).all()
    # What was read before matters.
    changed = remember_all(networks, params, READINGS.at[0].add(1.0))
    assert (changed[1:, :, 10:] != seen[1:, :, 10:]).any(axis=(1, 2)).all()
    described = describe_networks(StudentConfig(memory="gru", memory_width=5), params)["encoder"]
    assert described == {
        "memory": "gru",
        "width": 5,
        "parameters": count_parameters(params["encoder"]),
    }


@pytest.mark.parametrize("memory", ["history", "gru"])
def test_policy_and_critic_read_what_is_seen(memory) -> None:
    networks, params = make(memory=memory, frames=2, memory_width=4)
    seen = jnp.asarray(remember_all(networks, params, jnp.ones((1, 3, 20)))[0])
    goal, action = jnp.ones((3, 3)), jnp.zeros((3, 7))
    assert networks.policy(params, seen, goal).shape == (3, 7)
    assert networks.critic(params, seen, goal, action).shape == (3,)


def test_student_refuses_memory_beside_heads() -> None:
    with pytest.raises(ValidationError, match="leave out heads, or memory"):
        StudentConfig(heads=True, memory="gru")


def test_walker_reads_its_goal_from_the_torso() -> None:
    networks = student_networks(get_task("ant"), StudentConfig(sees="sensors"), embedding=8)
    assert networks.task.read_sizes == {"observation": 22, "goal": 3, "action": 8}
