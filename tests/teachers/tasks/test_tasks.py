"""What holds for every task of the registry.

Compiling a simulation takes up to a minute: MJX is played for one task of each kind of contact, most of them in the
slow tests, and for the others in `benchmarks/tasks.py`; MuJoCo C is played for all.
"""

import itertools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from teachers import teacher_config
from teachers.simulation.c_twin import make_twins
from teachers.simulation.rollout import random_policy, reset, rollout
from teachers.tasks import slices
from teachers.tasks.registry import TASKS, get_task

ENVS, MAX_STEPS = 64, 1000
TWINS, TWIN_STEPS = 8, 100
# Float32 in MJX against float64 in C, under random actions and under constant actions: a bound on the median over
# environments of the largest difference, in each field's scale, and the number of control steps for which it holds.
# Contacts make differences grow: an impact that one engine computes a substep later shifts all that follows. Legged
# robots are chaotic, so that their simulations diverge after a second.
TOLERANCE = {
    "reacher": (TWIN_STEPS, 5e-4),
    "pusher_easy": (TWIN_STEPS, 1e-2),
    "point_u_maze": (TWIN_STEPS, 1e-2),
    "ant_u_maze": (20, 2e-2),
    "ant_push": (20, 2e-2),
    "humanoid": (20, 1e-2),
    "arm_push_easy": (TWIN_STEPS, 2e-2),
    "arm_binpick_easy": (TWIN_STEPS, 2e-2),
    "cheetah": (50, 2e-2),
}
FAST = ("reacher", "point_u_maze")  # the others take longer to compile
# The number of contacts that MJX solves for, whether bodies touch or not.
CONTACTS = {
    "reacher": 0,
    "pusher_easy": 3,
    "point_u_maze": 4,
    "ant": 5,
    "ant_u_maze": 13,
    "ant_hardest_maze": 13,
    "ant_ball": 10,
    "ant_push": 17,
    "humanoid": 4,
    "humanoid_hardest_maze": 12,
    "arm_reach": 0,
    "arm_push_easy": 10,
    "arm_binpick_easy": 16,
    "arm_grasp": 10,
    "cheetah": 7,
}
BOTH = ("train", "eval")
# The figures of the suite: numbers in observation, goal and action; steps of an episode; success radius and, of some
# tasks, the hard radius; control period in ms; goal sets.
FIGURES = {
    "reacher": (8, 2, 2, 100, 0.05, None, 20, ("train",)),
    "pusher_easy": (20, 3, 7, 100, 0.1, None, 50, ("train",)),
    "pusher_hard": (20, 3, 7, 100, 0.1, None, 50, ("train",)),
    "point_u_maze": (4, 2, 2, 200, 0.5, None, 100, BOTH),
    "point_big_maze": (4, 2, 2, 300, 0.5, None, 100, BOTH),
    "point_hardest_maze": (4, 2, 2, 400, 0.5, None, 100, BOTH),
    "ant": (29, 2, 8, 1000, 0.5, None, 50, ("train",)),
    **{
        f"ant_{maze}_maze": (29, 2, 8, 1000, 0.5, None, 50, BOTH)
        for maze in ("u", "u4", "u5", "big", "hardest")
    },
    "ant_ball": (31, 2, 8, 1000, 0.5, None, 50, ("train",)),
    "ant_push": (31, 2, 8, 1000, 0.5, None, 50, ("train",)),
    "humanoid": (268, 3, 17, 1000, 0.5, None, 15, ("train",)),
    **{
        f"humanoid_{maze}_maze": (268, 3, 17, 1000, 0.5, None, 15, BOTH)
        for maze in ("u", "big", "hardest")
    },
    "arm_reach": (13, 3, 5, 50, 0.1, 0.03, 50, ("train",)),
    "arm_push_easy": (17, 3, 5, 50, 0.1, 0.03, 50, ("train",)),
    "arm_push_hard": (17, 3, 5, 80, 0.1, 0.03, 50, ("train",)),
    "arm_binpick_easy": (17, 3, 5, 80, 0.1, 0.03, 50, ("train",)),
    "arm_binpick_hard": (17, 3, 5, 80, 0.1, 0.03, 50, ("train",)),
    "arm_grasp": (23, 9, 5, 50, 0.1, None, 50, ("train",)),
    "cheetah": (18, 1, 6, 1000, 0.5, None, 50, ("train",)),
}
MAX_SPEED = 200.0  # m/s and rad/s: no task is as fast, and a simulation that diverges is faster


@pytest.fixture(scope="module", params=list(TASKS))
def task(request):
    return get_task(request.param)


@pytest.fixture(
    scope="module",
    params=[
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in TOLERANCE
    ],
)
def played(request):
    """A task and two rollouts: under random actions, and under constant actions, which lead to contacts."""
    task = get_task(request.param)

    def act(keys, observation, goal):
        held = jax.random.normal(jax.random.key(0), (*goal.shape[:1], task.action_size))
        fresh = random_policy(task)(keys)
        # A goal that is not a number asks for the constant actions, so that one compiled program serves both.
        return jnp.where(jnp.isnan(goal[:, :1]), jnp.sign(held), fresh)

    @jax.jit
    def play(states, key):
        return rollout(task, act, states, key, TWIN_STEPS, "train")

    states = jax.jit(lambda key: reset(task, key, ENVS, "train"))(jax.random.key(1))
    random = [states]
    finals = states
    for i in range(min(MAX_STEPS, 2 * task.episode_steps) // TWIN_STEPS):
        finals, trajectory = play(finals, jax.random.key(i))
        random.append(trajectory)
    held = states._replace(goal=jnp.full_like(states.goal, jnp.nan))
    return task, states, random[1:], finals, play(held, jax.random.key(0))[1]


def test_task_figures_match_suite(task) -> None:
    *figures, period, goal_sets = FIGURES[task.name]
    found = [task.observation_size, task.goal_size, task.action_size, task.episode_steps]
    assert figures == [*found, task.success_radius, task.hard_radius]
    assert round(1000 * task.control_period, 6) == period
    assert task.goal_sets == goal_sets


def test_tasks_are_complete() -> None:
    assert set(TASKS) == set(FIGURES)


# The range of each number of the goal over many goals, or of the goal's distance from the origin.
@pytest.mark.parametrize(
    ("name", "low", "high", "of_distance"),
    [
        ("ant", 10.0, 10.0, True),
        ("ant_ball", 5.0, 5.0, True),
        ("humanoid", 1.0, 5.0, True),
        ("cheetah", [-10.0], [10.0], False),
        ("point_big_maze", [-2.75, -2.75], [2.75, 2.75], False),
    ],
)
def test_sample_goal_fills_region(name, low, high, of_distance) -> None:
    goals = np.asarray(_goals(name, 2000))
    values = np.linalg.norm(goals[:, :2], axis=-1) if of_distance else goals
    margin = 0.02 * (np.max(high) - np.min(low)) + 1e-4
    assert (values.min(axis=0) >= np.array(low) - 1e-4).all()
    assert (values.max(axis=0) <= np.array(high) + 1e-4).all()
    assert (values.min(axis=0) <= np.array(low) + margin).all()
    assert (values.max(axis=0) >= np.array(high) - margin).all()


@pytest.mark.parametrize(
    ("name", "half_width"),
    [
        ("arm_push_easy", 0.1),
        ("arm_push_hard", 0.25),
        ("arm_binpick_easy", 0.05),
        ("arm_binpick_hard", 0.15),
    ],
)
def test_sample_goal_of_arms_fills_squares_of_suite(name, half_width) -> None:
    extent = np.ptp(np.asarray(_goals(name, 2000)), axis=0)
    np.testing.assert_allclose(extent[:2], 2 * half_width, rtol=0.03)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("ant", 0.2, 1.0), ("ant_push", 0.2, 1.0), ("humanoid_u_maze", 1.0, 2.0)],
)
def test_terminated_where_torso_leaves_healthy_height(name, low, high) -> None:
    task = get_task(name)
    heights = np.array([low - 0.01, low + 0.01, high - 0.01, high + 0.01], np.float32)
    observation = np.zeros((4, task.observation_size), np.float32)
    observation[:, slices(task.observation)["height"]] = heights[:, None]
    np.testing.assert_array_equal(task.terminated(observation), [True, False, False, True])


@pytest.mark.parametrize("name", [n for n in FIGURES if not n.startswith(("ant", "humanoid"))])
def test_terminated_is_false_for_other_tasks(name) -> None:
    task = get_task(name)
    assert not task.terminated(np.full((1, task.observation_size), 9.0, np.float32)).any()


@pytest.mark.parametrize(
    "name",
    # The others differ from one of these only in their maze, or in where starts and goals are.
    [n if n in CONTACTS else pytest.param(n, marks=pytest.mark.slow) for n in TASKS],
)
def test_reset_arrays_have_declared_sizes(name) -> None:
    task = get_task(name)
    states = jax.eval_shape(lambda key: reset(task, key, 3, "train"), jax.random.key(0))
    assert states.observation.shape == (3, task.observation_size)
    assert states.goal.shape == (3, task.goal_size)
    assert states.observation.dtype == states.goal.dtype == jnp.float32
    assert task.control(np.zeros((3, task.action_size), np.float32)).shape == (3, task.model.nu)
    assert task.achieved_goal(np.zeros((3, task.observation_size))).shape == (3, task.goal_size)


def test_slices_cover_arrays_without_gap(task) -> None:
    for fields in (task.observation, task.goal, task.action):
        places = list(slices(fields).values())
        assert places[0].start == 0
        assert all(a.stop == b.start for a, b in itertools.pairwise(places))
        assert len({field.name for field in fields}) == len(fields)
        assert all(field.unit and field.meaning and field.scale > 0 for field in fields)


def test_control_clips_and_scales_to_declared_limits(task) -> None:
    low, high = (np.array([getattr(f, end) for f in task.action]) for end in ("low", "high"))
    size = task.action_size
    for action, expected in ((-7.0, low), (1.0, high), (0.0, (low + high) / 2)):
        sent = task.control(np.full(size, action, np.float32))
        for value in expected:
            assert np.isclose(sent, value, atol=1e-6).any()
    changed = [
        not np.array_equal(task.control(np.eye(size)[i]), task.control(np.zeros(size)))
        for i in range(size)
    ]
    assert all(changed)
    assert (task.model.actuator_ctrlrange[:, 0] <= task.control(-np.ones(size)) + 1e-6).all()


def test_distance_compared_with_success_radius(task) -> None:
    goal = np.zeros((2, task.goal_size), np.float32)
    observation = np.zeros((2, task.observation_size), np.float32)
    achieved = np.asarray(task.achieved_goal(np.arange(task.observation_size)))
    observation[:, achieved[0]] = task.success_radius * np.array([0.99, 1.01])
    np.testing.assert_array_equal(
        task.distance(observation, goal) < task.success_radius, [True, False]
    )


def test_sample_state_and_sample_goal_differ_between_keys(task) -> None:
    keys = jax.random.split(jax.random.key(5), 32)
    qpos = jax.vmap(task.sample_state)(keys)[0]
    assert len(np.unique(np.asarray(qpos), axis=0)) == 32
    robot = make_twins(task, _first(task, jax.random.key(0), 1))[0]
    observation = jnp.asarray(robot.observation)
    for goal_set in task.goal_sets:
        goals = jax.vmap(task.sample_goal, (0, None, None))(keys, observation, goal_set)
        if task.name != "arm_grasp":  # its goal follows from where the cube is
            assert len(np.unique(np.asarray(goals), axis=0)) == 32


def test_twin_under_random_actions_stays_finite(task) -> None:
    states = _first(task, jax.random.key(3), 2)
    random = np.random.default_rng(0)
    for robot in make_twins(task, states):
        assert not task.terminated(robot.observation)
        for _ in range(100):
            robot.step(random.uniform(-1, 1, task.action_size).astype(np.float32))
            assert np.isfinite(robot.observation).all()
            assert np.abs(robot._data.qvel).max() < MAX_SPEED
            assert robot._data.ncon <= task.contacts


@pytest.mark.parametrize("name", list(CONTACTS))
def test_contacts_match_table(name) -> None:
    assert get_task(name).contacts == CONTACTS[name]


def test_training_defaults_are_valid(task) -> None:
    assert teacher_config(task.name).task == task.name


def test_rollout_stays_finite_with_bounded_speeds(played) -> None:
    _, _, trajectories, finals, held = played
    # The goal that asks for held actions is no number.
    held = held._replace(goal=held.action, read_goal=held.action, distance=held.action)
    for leaf in jax.tree.leaves((finals, trajectories, held)):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()
    assert np.abs(finals.physics.qvel).max() < MAX_SPEED


def test_observation_scale_is_magnitude_of_fields(played) -> None:
    task, _, trajectories, _, _ = played
    observed = np.concatenate([np.asarray(t.observation) for t in trajectories])
    for name, place in slices(task.observation).items():
        size = np.abs(observed[..., place]).mean()
        scale = task.observation_scale[place][0]
        assert 0.01 * scale < size < 5 * scale, name


def test_step_agrees_with_mujoco_c(played) -> None:
    task, states, trajectories, _, held = played
    steps, bound = TOLERANCE[task.name]
    for trajectory in (trajectories[0], held):
        robots = make_twins(task, jax.tree.map(lambda leaf: leaf[:TWINS], states))
        observed = []
        for actions in np.asarray(trajectory.action)[:steps, :TWINS]:
            observed.append(np.stack([robot.observation for robot in robots]))
            for robot, action in zip(robots, actions, strict=True):
                robot.step(action)
        error = np.abs(np.stack(observed) - np.asarray(trajectory.observation)[:steps, :TWINS])
        # An environment that terminated has restarted, and its twin has not.
        same = np.cumsum(np.asarray(trajectory.steps)[:steps, :TWINS] == 0, axis=0) == 1
        scaled = (error / task.observation_scale).max(axis=-1) * same
        assert scaled[0].max() < 1e-4
        assert np.median(scaled.max(axis=0)) < bound
        moved = np.abs(observed[-1] - observed[0]) / task.observation_scale
        assert moved.max() > 0.1  # bodies at rest would agree too


def _goals(name, count):
    """Returns training goals of many episodes."""
    task = get_task(name)
    robot = make_twins(task, _first(task, jax.random.key(0), 1))[0]
    observation = jnp.asarray(robot.observation)
    sample = jax.jit(jax.vmap(lambda key: task.sample_goal(key, observation, "train")))
    return sample(jax.random.split(jax.random.key(1), count))


def _first(task, key, count):
    """Returns starts without goals, sampled without compiling the simulation."""
    qpos, qvel = jax.vmap(task.sample_state)(jax.random.split(key, count))
    data = mujoco.MjData(task.model)
    assert qpos.shape == (count, data.qpos.size)
    from teachers.tasks import Physics, State

    empty = jnp.zeros((count, 1))
    return State(Physics(qpos, qvel, qvel), empty, empty, empty[:, 0], empty[:, 0] > 0)
