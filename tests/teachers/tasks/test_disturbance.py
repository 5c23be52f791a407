import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from falling import FallingReacher
from mujoco import mjx
from pydantic import ValidationError

from teachers.runs.errors import InputError
from teachers.simulation.c_twin import Twin, make_twins
from teachers.simulation.rollout import reset, rollout
from teachers.tasks import CONDITIONS, RANDOMIZED, Disturbances, slices
from teachers.tasks.disturbance import (
    MAX_DELAY,
    Disturbed,
    apply_delay,
    change_model,
    change_model_in_c,
    find_robot,
    shift_start,
)
from teachers.tasks.registry import get_task

ENVS, STEPS = 16, 30


def reset_jitted(task, environments):
    return jax.jit(lambda key: reset(task, key, environments, "train"))(jax.random.key(0))


@pytest.fixture(
    scope="module", params=["point_u_maze", pytest.param("reacher", marks=pytest.mark.slow)]
)
def case(request):
    """A task, starts of it, actions that are held for ten steps each, and its step, which compiles once a structure."""
    task = get_task(request.param)
    starts = reset_jitted(task, ENVS)
    held = jax.random.uniform(
        jax.random.key(1), (STEPS // 10, ENVS, task.action_size), minval=-1, maxval=1
    )
    return task, starts, np.repeat(np.asarray(held), 10, axis=0), jax.jit(jax.vmap(task.step))


def draw(task, disturbances, environments=ENVS):
    """Returns the disturbances of environments."""
    keys = jax.random.split(jax.random.key(2), environments)
    return jax.jit(jax.vmap(task.disturb, (None, 0)))(disturbances.model_dump(), keys)


def with_disturbances(task, states, disturbances):
    """Returns the states with disturbances."""
    return states._replace(disturbed=draw(task, disturbances))


def step_all(step, states, actions):
    """Returns the observations after each step."""
    observations = []
    for action in actions:
        states = step(states, action)
        observations.append(np.asarray(states.observation))
    return np.stack(observations)


def step_in_c(task, starts, actions, change, environments):
    """Returns the observations after each step in MuJoCo C, with a model that `change` has changed."""
    task = type(task)()
    change(task.model)
    mujoco.mj_setConst(task.model, mujoco.MjData(task.model))
    observations = []
    for environment in range(environments):
        twin = Twin(task)
        twin.reset(*(np.asarray(part)[environment] for part in starts.physics[:2]))
        observations.append([])
        for action in actions[:, environment]:
            twin.step(action)
            observations[-1].append(twin.observation)
    return np.stack(observations, axis=1)


def assert_close(task, one, other, bound):
    assert np.abs((one - other) / task.observation_scale).max() < bound


def assert_apart(task, one, other, bound):
    assert np.abs((one - other) / task.observation_scale).max() > bound


def test_disturbed_by_keeps_starts() -> None:
    task, ranges = get_task("reacher"), RANDOMIZED.model_copy(update={"start": 0.0})
    plain, disturbed = reset_jitted(task, ENVS), reset_jitted(task.disturbed_by(ranges), ENVS)
    assert plain.disturbed == ()
    jax.tree.map(np.testing.assert_array_equal, plain, disturbed._replace(disturbed=()))
    # Evaluations draw the same disturbances.
    keys = jax.random.split(jax.random.key(0), ENVS)
    again = jax.vmap(task.disturb, (None, 0))(RANDOMIZED.model_dump(), keys)
    jax.tree.map(np.testing.assert_allclose, disturbed.disturbed, again)
    assert len(np.unique(again.mass)) == ENVS
    assert task.disturbances is None


@pytest.mark.slow
def test_disturbed_by_shifts_starts_within_ranges() -> None:
    task = get_task("arm_push_easy")  # its cube has no actuator
    robot = find_robot(task.model)
    joints = task.model.jnt_qposadr[robot.joints]
    plain = reset_jitted(task, ENVS)
    shifted = reset_jitted(task.disturbed_by(Disturbances(start=0.1)), ENVS)
    shift = np.asarray(shifted.physics.qpos - plain.physics.qpos)
    assert 0.05 < np.abs(shift[:, joints]).max() <= 0.1
    assert (shift[:, joints].std(axis=0) > 0.01).all()
    assert not np.delete(shift, joints, axis=1).any()
    moved = np.asarray(shifted.observation) != np.asarray(plain.observation)
    assert moved.any(axis=1).all()


def test_shift_start_stays_in_ranges() -> None:
    model = get_task("arm_push_easy").model
    joints = find_robot(model).joints
    high = model.jnt_range[joints, 1]
    places = model.jnt_qposadr[joints]
    ends = jnp.asarray(model.qpos0).at[places].set(high)
    found = np.asarray(shift_start(model, joints, ends, 0.1, jax.random.key(0)))[places]
    limited = model.jnt_limited[joints].astype(bool)
    assert limited.any()
    assert (found[limited] <= high[limited] + 1e-6).all()
    assert (found[limited] < high[limited]).any()
    # Beyond its range a joint stays at most where it was.
    beyond = ends.at[places].add(1.0)
    found = np.asarray(shift_start(model, joints, beyond, 0.1, jax.random.key(0)))[places]
    assert (found[limited] <= high[limited] + 1.0 + 1e-6).all()
    assert (found[limited] >= high[limited] + 0.89).all()


@pytest.mark.parametrize("senses", [False, True])
def test_lost_reading_is_the_last_one_again(senses) -> None:
    task = get_task("reacher").simulated_by("c", 2).disturbed_by(Disturbances(dropout=0.4))
    task = task.with_sensors() if senses else task

    def act(keys, read, goal):
        return jnp.full((2, 2), 0.3)

    @jax.jit
    def play(key):
        states = reset(task, key, 2, "train")
        return rollout(task, act, states, key, task.episode_steps, "train")[1]

    read = np.asarray(play(jax.random.key(0)).read)
    assert read.shape == (100, 2, 4 if senses else 8)
    is_repeated = (read[1:] == read[:-1]).all(axis=-1)
    assert 0.25 < is_repeated.mean() < 0.55
    # So it is in MuJoCo C.
    (twin, _) = make_twins(task, reset(task, jax.random.key(0), 2, "train"))
    random, goal, found = np.random.default_rng(0), np.zeros(2, np.float32), []
    for _ in range(100):
        found.append(twin.sense(goal, random)[0])
        twin.step(np.full(2, 0.3))
    is_repeated = (np.diff(found, axis=0) == 0).all(axis=-1)
    assert 0.25 < is_repeated.mean() < 0.55


def test_draw_disturbance_fills_ranges() -> None:
    task = get_task("reacher")
    found = draw(task, CONDITIONS["all"], 500)
    assert isinstance(found, Disturbed)
    np.testing.assert_array_equal(np.unique(found.delay), [0, 1, 2, 3])
    np.testing.assert_array_equal(found.gain, 1.0)
    assert not found.center.any()
    ranges = CONDITIONS["all"].model_copy(update={"gain": (0.9, 1.1), "center": 0.05})
    found = draw(task, ranges, 500)
    radius = find_robot(task.model).radius
    assert 0.01 < radius < 0.1
    assert 0.99 * 0.05 * radius < np.abs(found.center).max() <= 0.05 * radius * (1 + 1e-6)
    assert abs(np.corrcoef(*np.asarray(found.center).T)[0, 1]) < 0.2
    for factor in (found.mass, found.friction, found.gain):
        assert 0.9 <= factor.min() < 0.91
        assert 1.09 < factor.max() <= 1.1
    assert abs(np.corrcoef(found.mass, found.friction)[0, 1]) < 0.2
    np.testing.assert_allclose(found.noise, 0.1)
    assert len(np.unique(found.push_step)) > 90
    assert found.push_step.min() >= 0
    assert found.push_step.max() < task.episode_steps
    # The whole arm's mass, faster by 0.5 m/s within one control period.
    force = 0.5 * task.model.body_mass.sum() / task.control_period
    np.testing.assert_allclose(np.linalg.norm(found.push, axis=-1), force, rtol=1e-5)
    assert np.abs(found.push.mean(axis=0)).max() < 0.2 * force
    assert not found.pending.any()


def test_step_with_neutral_disturbance_is_undisturbed_step(case) -> None:
    task, starts, actions, step = case
    neutral = with_disturbances(task, starts, CONDITIONS["clean"])
    plain = step_all(step, starts, actions)
    assert_close(task, plain, step_all(step, neutral, actions), 1e-4)
    assert_apart(task, plain, np.asarray(starts.observation), 0.1)


@pytest.mark.parametrize("delay", range(MAX_DELAY + 1))
def test_step_with_delay_shifts_actions(case, delay) -> None:
    task, starts, actions, step = case
    late = with_disturbances(task, starts, Disturbances(delay=(delay, delay)))
    shifted = np.concatenate([np.zeros_like(actions[:delay]), actions])[:STEPS]
    observations = step_all(step, late, actions)
    assert_close(task, observations, step_all(step, starts, shifted), 1e-4)
    if delay:
        assert_apart(task, observations, step_all(step, starts, actions), 1e-2)


def test_apply_delay_differs_between_environments() -> None:
    queue = draw(get_task("reacher"), RANDOMIZED, 2)
    queue = queue._replace(delay=jnp.array([1, 3]), pending=jnp.zeros((2, MAX_DELAY, 1)))
    taken = []
    for number in range(1, 6):
        action, queue = jax.vmap(apply_delay)(queue, jnp.full((2, 1), float(number)))
        taken.append(np.asarray(action)[:, 0])
    np.testing.assert_array_equal(np.transpose(taken), [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]])


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_step_with_mass_factor_agrees_with_mujoco_c(case, factor) -> None:
    task, starts, actions, step = case

    def change(model):
        model.body_mass *= factor
        model.body_inertia *= factor

    observations = step_all(
        step, with_disturbances(task, starts, Disturbances(mass=(factor, factor))), actions
    )
    in_c = step_in_c(task, starts, actions, change, 4)
    assert_close(task, observations[:, :4], in_c, 1e-2)
    assert_apart(task, observations, step_all(step, starts, actions), 0.05)


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_step_with_friction_factor_agrees_with_mujoco_c(case, factor) -> None:
    task, starts, actions, step = case

    def change(model):
        model.dof_damping *= factor

    slippery = with_disturbances(task, starts, Disturbances(friction=(factor, factor)))
    observations = step_all(step, slippery, actions)
    assert_close(task, observations[:, :4], step_in_c(task, starts, actions, change, 4), 1e-2)
    assert_apart(task, observations, step_all(step, starts, actions), 0.05)


def test_step_with_gain_agrees_with_mujoco_c(case) -> None:
    task, starts, actions, step = case

    def change(model):
        model.actuator_gainprm *= 0.5
        model.actuator_biasprm *= 0.5

    weak = with_disturbances(task, starts, Disturbances(gain=(0.5, 0.5)))
    observations = step_all(step, weak, actions)
    assert_close(task, observations[:, :4], step_in_c(task, starts, actions, change, 4), 1e-2)
    assert_apart(task, observations, step_all(step, starts, actions), 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["reacher"], indirect=True)
def test_step_with_other_center_agrees_with_mujoco_c(case) -> None:
    task, starts, actions, step = case
    body = find_robot(task.model).body

    def change(model):
        model.body_ipos[body, :2] += [0.02, -0.02]
        model.body_sameframe[body] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE

    moved = with_disturbances(task, starts, Disturbances())
    center = jnp.tile(jnp.array([0.02, -0.02]), (ENVS, 1))
    moved = moved._replace(disturbed=moved.disturbed._replace(center=center))
    observations = step_all(step, moved, actions)
    assert_close(task, observations[:, :4], step_in_c(task, starts, actions, change, 4), 1e-2)
    assert_apart(task, observations, step_all(step, starts, actions), 0.01)


def test_change_model_in_c_is_model_with_other_numbers() -> None:
    """The torso's frame is at its centre of mass, which MuJoCo does not compute then."""
    task = get_task("ant")
    changed = change_model_in_c(
        task.model, (1.2, 0.8, 0.5, 0.03, -0.02), find_robot(task.model).body
    )
    spec = task.build()
    torso = spec.body("torso")
    torso.explicitinertial = True
    torso.mass = task.model.body("torso").mass[0]
    torso.inertia = task.model.body("torso").inertia
    torso.ipos = [0.03, -0.02, 0.0]
    expected = spec.compile()
    expected.body_mass *= 1.2
    expected.body_inertia *= 1.2
    expected.geom_friction *= 0.8
    expected.pair_friction *= 0.8
    expected.dof_damping *= 0.8
    expected.actuator_gainprm *= 0.5
    mujoco.mj_setConst(expected, mujoco.MjData(expected))
    ends = []
    for model in (task.model, changed, expected):
        data = mujoco.MjData(model)
        data.ctrl[:] = 0.5
        mujoco.mj_step(model, data, nstep=100)
        ends.append(data.qpos.copy())
    np.testing.assert_allclose(ends[1], ends[2], atol=1e-9)
    assert np.abs(ends[0] - ends[1]).max() > 0.01


def test_change_model_in_c_leaves_muscles_alone() -> None:
    spec = get_task("reacher").build()
    muscle = spec.add_actuator(name="muscle", target=spec.joints[0].name)
    muscle.trntype = mujoco.mjtTrn.mjTRN_JOINT
    muscle.lengthrange = [0.1, 1.0]
    for parameters in (muscle.gainprm, muscle.biasprm):
        parameters[:9] = [0.75, 1.05, -1.0, 200.0, 0.5, 1.6, 1.5, 1.3, 1.2]
    muscle.gaintype = mujoco.mjtGain.mjGAIN_MUSCLE
    muscle.biastype = mujoco.mjtBias.mjBIAS_MUSCLE
    model = spec.compile()
    changed = change_model_in_c(model, (1.0, 1.0, 2.0, 0.0, 0.0), 1)
    np.testing.assert_array_equal(changed.actuator_gainprm[:-1], 2 * model.actuator_gainprm[:-1])
    np.testing.assert_array_equal(changed.actuator_gainprm[-1], model.actuator_gainprm[-1])


def test_change_model_agrees_with_set_const() -> None:
    task = get_task("point_u_maze")
    spec = task.build()
    # Besides walls, the model gets a body with friction of every kind, a tendon and a contact pair.
    body = spec.worldbody.add_body(pos=[0, 0, 5])
    body.add_joint(name="lift", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, 1], frictionloss=0.3)
    body.add_joint(name="turn", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[1, 0, 0], damping=[2, 0, 0])
    body.add_geom(name="box", size=[0.1, 0.2, 0.3], type=mujoco.mjtGeom.mjGEOM_BOX, mass=2.0)
    spec.add_pair(geomname1="point", geomname2="box", friction=[0.5, 0.5, 0.1, 0.1, 0.1])
    tendon = spec.add_tendon(name="tendon")
    tendon.wrap_joint("lift", 1.0)
    tendon.wrap_joint("turn", 2.0)
    model = spec.compile()
    one = jax.tree.map(lambda leaf: leaf[0], draw(task, CONDITIONS["clean"], 1))
    one = one._replace(mass=jnp.float32(1.25), friction=jnp.float32(0.75), gain=jnp.float32(0.5))
    before = mjx.put_model(model)
    after = change_model(before, one, 0)
    model.body_mass *= 1.25
    model.body_inertia *= 1.25
    for name in ("geom_friction", "pair_friction", "dof_damping", "dof_frictionloss"):
        getattr(model, name)[:] *= 0.75
    model.actuator_gainprm *= 0.5
    mujoco.mj_setConst(model, mujoco.MjData(model))
    expected = mjx.put_model(model)

    def different(one, other):
        """Returns the names of the arrays that differ."""
        pairs = zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True)
        return {
            jax.tree_util.keystr(path)
            for (path, a), b in pairs
            if not np.allclose(a, b, rtol=1e-5, atol=1e-7)
        }

    assert different(after, expected) == set()
    assert len(different(before, after)) == 13


@pytest.mark.parametrize("case", ["point_u_maze"], indirect=True)  # its base can move
def test_step_with_push_changes_speed_in_its_step_only(case) -> None:
    task, starts, actions, step = case
    # In the middle of the corridor, and without damping, which would take some of the speed.
    middle = jnp.tile(jnp.asarray(task.maze.start, jnp.float32), (ENVS, 1))
    pushed = with_disturbances(task, starts, Disturbances(push=0.5, friction=(0, 0)))
    when = jnp.arange(ENVS) % 5
    pushed = pushed._replace(
        physics=pushed.physics._replace(qpos=middle),
        disturbed=pushed.disturbed._replace(push_step=when),
    )
    still = np.zeros_like(actions[:6])
    speeds = step_all(step, pushed, still)[..., 2:4]
    jumps = np.diff(np.concatenate([np.zeros_like(speeds[:1]), speeds]), axis=0)
    expected = np.arange(6)[:, None] == np.asarray(when)
    np.testing.assert_allclose(np.linalg.norm(jumps, axis=-1), 0.5 * expected, atol=1e-4)
    direction = pushed.disturbed.push / jnp.linalg.norm(pushed.disturbed.push, axis=-1)[:, None]
    np.testing.assert_allclose(speeds[-1], 0.5 * direction, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "body", "mass"),
    [("point_u_maze", "point", 0.3), ("ant_push", "torso", 0.911), ("ant_ball", "torso", 0.911)],
)
def test_find_robot_excludes_loose_objects(name, body, mass) -> None:
    model = get_task(name).model
    robot = find_robot(model)
    assert model.body(robot.body).name == body
    assert robot.mass == pytest.approx(mass, abs=1e-3)


def test_sense_adds_noise_in_field_scales() -> None:
    task = get_task("reacher")
    clean = jax.tree.map(lambda leaf: leaf[0], reset_jitted(task, ENVS))
    noise = jax.tree.map(lambda leaf: leaf[0], draw(task, Disturbances(noise=0.1)))
    keys = jax.random.split(jax.random.key(1), 4000)
    sense = jax.jit(jax.vmap(task.sense, (None, 0)))
    sensed = np.asarray(sense(clean._replace(disturbed=noise), keys)[0])
    np.testing.assert_allclose(sensed.mean(axis=0), clean.observation, atol=0.04)
    for field, place in zip(task.observation, slices(task.observation).values(), strict=True):
        np.testing.assert_allclose(sensed.std(axis=0)[place], 0.1 * field.scale, rtol=0.05)
    np.testing.assert_array_equal(task.sense(clean, keys[0])[0], clean.observation)


@pytest.fixture(scope="module")
def rolled_out():
    """A disturbed rollout of a policy whose action is the velocity in its observation."""
    task = FallingReacher().disturbed_by(RANDOMIZED.model_copy(update={"dropout": 0.0}))

    @jax.jit
    def play(key):
        states = reset(task, key, ENVS, "train")
        return states, *rollout(
            task, lambda _, observations, __: observations[:, 4:6], states, key, 60, "train"
        )

    return play(jax.random.key(0))


def test_rollout_gives_noise_to_policy_only(rolled_out) -> None:
    _, _, trajectory = rolled_out
    noise = np.asarray(trajectory.action - trajectory.observation[..., 4:6])
    assert noise.std() == pytest.approx(0.05 * 5.0, rel=0.05)
    assert len(np.unique(noise)) > 0.99 * noise.size  # every step and environment has its own
    clean = np.asarray(trajectory.observation)
    np.testing.assert_allclose(np.hypot(clean[..., :2], clean[..., 2:4]), 1.0, rtol=1e-5)


def test_rollout_draws_disturbance_for_each_episode(rolled_out) -> None:
    starts, states, trajectory = rolled_out
    began = np.asarray(trajectory.steps)[1:] == 0
    assert began.any(axis=0).all()
    assert (np.asarray(states.disturbed.mass) != starts.disturbed.mass).all()
    assert (np.asarray(states.disturbed.push) != starts.disturbed.push).any(axis=-1).all()
    for steps, pending in zip(np.asarray(states.steps), states.disturbed.pending, strict=True):
        np.testing.assert_array_equal(np.any(pending != 0, axis=-1), np.arange(MAX_DELAY) < steps)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"delay": (2, 1)}, "the lower number stands first: 1,2"),
        ({"delay": "0,4"}, "less than or equal to 3"),
        ({"mass": (0.0, 1.0)}, "greater than 0"),
        ({"noise": -0.1}, "greater than or equal to 0"),
        ({"push": float("inf")}, "finite number"),
        ({"wind": 1.0}, "Extra inputs are not permitted"),
    ],
)
def test_disturbances_refuse_wrong_ranges(wrong, message) -> None:
    with pytest.raises(ValidationError, match=message):
        Disturbances.model_validate(wrong)


def test_disturbances_read_text_and_lists() -> None:
    expected = Disturbances(delay=(0, 2), mass=(0.9, 1.1))
    assert Disturbances.model_validate({"delay": "0,2", "mass": "0.9, 1.1"}) == expected
    assert Disturbances.model_validate_json(expected.model_dump_json()) == expected


def test_disturbed_by_refuses_warp(monkeypatch) -> None:
    task = get_task("reacher")
    with pytest.raises(InputError, match="use physics 'jax'"):
        task.disturbed_by(RANDOMIZED).simulated_by("warp", 4)

    monkeypatch.setattr(type(task), "engine", "warp")
    with pytest.raises(InputError, match="use physics 'jax'"):
        task.disturbed_by(RANDOMIZED)
