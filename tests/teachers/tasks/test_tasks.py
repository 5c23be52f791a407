"""What holds for every task of the registry."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from teachers import teacher_config
from teachers.rollout import reset, rollout
from teachers.tasks import TASKS, InputError, get_task, slices
from teachers.tasks.reacher import Reacher
from teachers.tasks.twin import twins

ENVS, STEPS = 16, 60
# Float32 in MJX against float64 in C over 60 control steps, as shares of each field's scale; in a maze, an impact that one
# engine sees a substep later shifts what follows.
TOLERANCE = {"reacher": 2e-4, "point_u_maze": 3e-3}


@pytest.fixture(scope="module", params=list(TASKS))
def played(request):
    """A task and one rollout of random actions."""
    task = get_task(request.param)

    def act(key, observation, goal):
        # Held for a while, so that the point meets walls.
        return jnp.sign(jax.random.normal(jax.random.key(0), (ENVS, task.action_size)))

    @jax.jit
    def play(key):
        states = reset(task, key, ENVS, "train")
        return states, *rollout(task, act, states, key, STEPS, "train")

    return task, *play(jax.random.key(1))


def test_declared_sizes_are_those_of_the_arrays(played) -> None:
    task, states, _, trajectory = played
    assert trajectory.observation.shape == (STEPS, ENVS, task.observation_size)
    assert trajectory.goal.shape == (STEPS, ENVS, task.goal_size)
    assert task.model.nu == task.action_size
    assert trajectory.observation.dtype == states.goal.dtype == jnp.float32
    assert task.achieved_goal(trajectory.observation).shape == trajectory.goal.shape


def test_fields_cover_their_array_without_gap(played) -> None:
    task = played[0]
    for fields in (task.observation, task.goal, task.action):
        places = list(slices(fields).values())
        assert places[0].start == 0
        assert all(a.stop == b.start for a, b in itertools.pairwise(places))
        assert len({field.name for field in fields}) == len(fields)
        assert all(field.unit and field.meaning and field.scale > 0 for field in fields)


def test_simulation_stays_finite(played) -> None:
    _, _, final, trajectory = played
    for leaf in jax.tree.leaves((final, trajectory)):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()


def test_scale_is_the_usual_magnitude_of_each_field(played) -> None:
    task, _, _, trajectory = played
    for name, place in slices(task.observation).items():
        size = np.abs(np.asarray(trajectory.observation)[..., place]).mean()
        scale = task.observation_scale[place][0]
        assert 0.05 * scale < size < 5 * scale, name


def test_mjx_and_mujoco_c_agree_on_the_same_actions(played) -> None:
    task, states, _, trajectory = played
    robots = twins(task, states)
    observed = []
    for actions in np.asarray(trajectory.action):
        observed.append(np.stack([robot.observation for robot in robots]))
        for robot, action in zip(robots, actions, strict=True):
            robot.step(action)
    error = np.abs(np.stack(observed) - np.asarray(trajectory.observation))
    scaled = error / task.observation_scale
    assert scaled[0].max() < 1e-5
    assert scaled.max() < TOLERANCE[task.name]
    moved = np.abs(np.stack(observed)[-1] - np.stack(observed)[0]).max()
    assert moved > 0.1  # the agreement is not that of two things at rest


def test_resets_draw_new_states_and_goals(played) -> None:
    task = played[0]
    states = jax.jit(lambda key: reset(task, key, 256, "train"))(jax.random.key(5))
    assert len(np.unique(np.asarray(states.goal), axis=0)) == 256
    assert len(np.unique(np.asarray(states.physics.qpos), axis=0)) == 256


def test_success_is_distance_to_the_goal_below_the_radius(played) -> None:
    task = played[0]
    goal = np.zeros((2, task.goal_size), np.float32)
    observation = np.zeros((2, task.observation_size), np.float32)
    achieved = task.achieved_goal(np.arange(task.observation_size))
    observation[:, achieved[0]] = task.success_radius * np.array([0.99, 1.01])
    np.testing.assert_array_equal(task.within(observation, goal), [True, False])


def test_actions_are_clipped_and_scaled_to_the_declared_limits(played) -> None:
    task = played[0]
    low, high = (np.array([getattr(f, end) for f in task.action]) for end in ("low", "high"))
    np.testing.assert_allclose(task.control(np.full(task.action_size, -7.0)), low)
    np.testing.assert_allclose(task.control(np.ones(task.action_size)), high)
    np.testing.assert_allclose(task.control(np.zeros(task.action_size)), (low + high) / 2)


def test_defaults_for_training_are_valid(played) -> None:
    assert teacher_config(played[0].name).task == played[0].name


def test_unknown_task_is_refused_with_a_hint() -> None:
    with pytest.raises(InputError, match="choose one of: reacher"):
        get_task("xyzzy")


def test_a_task_must_declare_as_many_actions_as_it_has_actuators() -> None:
    class Wrong(Reacher):
        action = Reacher.action[:1]

    with pytest.raises(InputError, match="2 actuators but the action fields declare 1"):
        Wrong()
