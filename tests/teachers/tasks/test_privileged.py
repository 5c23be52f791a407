"""What a privileged teacher observes, and its students do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from tiny import TEACHER

from students import StudentConfig, student_networks
from teachers import teacher_config
from teachers.crl.networks import teacher_networks
from teachers.simulation.c_twin import make_twins
from teachers.simulation.rollout import reset, rollout
from teachers.tasks import Disturbances
from teachers.tasks.disturbance import DISTURBANCE_FIELDS, randomized_settings
from teachers.tasks.registry import get_task

RANGES = Disturbances(
    noise=0.1, delay=(0, 3), mass=(0.7, 1.3), friction=(0.8, 1.2), gain=(0.9, 1.1), push=0.5
)
ENVS, STEPS, DECLARED = 4, 100, 8
KNOWN = sum(field.size for field in DISTURBANCE_FIELDS)


@pytest.fixture(scope="module")
def played():
    """The disturbed task of a privileged teacher, its starts, and a rollout of a constant action."""
    task = get_task("reacher").knowing_disturbances().simulated_by("c", ENVS).disturbed_by(RANGES)

    @jax.jit
    def play(key):
        starts = reset(task, key, ENVS, "train")
        act = lambda keys, read, goal: jnp.full((ENVS, 2), 0.3)  # noqa: E731
        return starts, rollout(task, act, starts, key, STEPS, "train")[1]

    return task, *play(jax.random.key(0))


def test_observation_holds_what_disturbs_the_episode(played) -> None:
    task, starts, trajectory = played
    assert (task.observation_size, task.sizes["observation"]) == (DECLARED + KNOWN, DECLARED)
    found = np.asarray(trajectory.observation)[..., DECLARED:]
    disturbed = starts.disturbed
    for number, expected in enumerate(
        (disturbed.mass - 1, disturbed.friction - 1, disturbed.gain - 1, disturbed.delay)
    ):
        np.testing.assert_allclose(
            found[..., number], np.broadcast_to(expected, (STEPS, ENVS)), atol=1e-6
        )
    assert not found[..., 4:6].any()
    # A push of 0.5 m/s, in its own step alone.
    speed = np.linalg.norm(found[..., 6:], axis=-1)
    for environment in range(ENVS):
        (steps,) = np.nonzero(speed[:, environment])
        np.testing.assert_array_equal(steps, disturbed.push_step[environment])
    np.testing.assert_allclose(speed[speed > 0], 0.5, rtol=1e-5)


def test_noise_leaves_what_is_known_alone(played) -> None:
    _, _, trajectory = played
    read, clean = np.asarray(trajectory.read), np.asarray(trajectory.observation)
    np.testing.assert_array_equal(read[..., DECLARED:], clean[..., DECLARED:])
    assert (read[..., :DECLARED] != clean[..., :DECLARED]).all()


def test_twin_observes_the_same(played) -> None:
    task, starts, trajectory = played
    twins = make_twins(task, starts)
    expected = np.asarray(trajectory.observation)
    for step in range(STEPS):
        found = np.stack([twin.observation for twin in twins])
        np.testing.assert_allclose(found, expected[step], atol=1e-3)
        for twin in twins:
            twin.step(np.full(2, 0.3, np.float32))


def test_episode_that_nothing_disturbs_is_known_as_such() -> None:
    task = get_task("reacher").knowing_disturbances()
    state = task.reset(jax.random.key(0))
    assert state.observation.shape == (DECLARED + KNOWN,)
    assert not state.observation[DECLARED:].any()


def test_student_reads_what_is_declared(played) -> None:
    task, starts, trajectory = played
    student = student_networks(task, StudentConfig(), embedding=4)
    assert student.task.read_sizes == {"observation": DECLARED, "goal": 2, "action": 2}
    assert student.task.observation_size == DECLARED + KNOWN
    read, _, _ = jax.vmap(student.task.sense)(
        starts._replace(disturbed=()), jax.random.split(jax.random.key(0), ENVS)
    )
    np.testing.assert_array_equal(read, trajectory.observation[0, :, :DECLARED])
    sensing = student_networks(task, StudentConfig(sees="sensors"), embedding=4)
    assert sensing.task.read_sizes["observation"] == 4


def test_teacher_networks_read_all_where_the_configuration_says_so() -> None:
    settings = {**TEACHER, **randomized_settings("rollout"), "rollout.privileged": True}
    networks = teacher_networks(teacher_config("reacher", overrides=settings))
    assert networks.task.read_sizes["observation"] == DECLARED + KNOWN
    (kernel, *_) = jax.tree.leaves(networks.shapes["actor"]["params"]["input"]["kernel"])
    assert kernel.shape[0] == DECLARED + KNOWN + 2


def test_privileged_teacher_needs_something_to_know() -> None:
    with pytest.raises(
        Exception, match="nothing disturbs the rollouts of a privileged teacher"
    ) as refused:
        teacher_config("reacher", overrides={"rollout.privileged": True})
    assert not isinstance(refused.value, ValidationError)
