"""`RobotTask`: a task from a model and a few lines."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from examples.bench import BENCH, Filtered, Reach

from teachers.runs.errors import InputError
from teachers.simulation.c_twin import Twin, make_twins
from teachers.simulation.check import check_task
from teachers.simulation.rollout import reset
from teachers.tasks.robot import (
    RobotTask,
    base,
    body,
    box,
    height_outside,
    joint_angles,
    mocap_steps,
    motor_commands,
    package_file,
    position_targets,
    ring,
    site,
    tilted_beyond,
)
from teachers.tasks.robot.goals import angle_between, turn

ENVS = 16


class Push(RobotTask):
    """The cube comes to a place of the bench."""

    name = "bench_push"
    summary = "Something moves a cube to a place."
    robot = str(BENCH)
    observes = (base("cube"), body("cube", axes="z"), site("tip"))
    acts = motor_commands("finger_motor", "elbow_speed")
    brings = body("cube", axes="xy")
    goals = box((0.1, 0.0), (0.05, 0.1), from_start=True)
    ends = (height_outside("cube", 0.0, 0.5), tilted_beyond("cube", 0.5))
    scatters = {"cube": (0.02, 0.03, 0.0)}
    substeps = 4
    episode_steps = 50
    success_radius = 0.02
    action_filter = 0.05
    action_delay = 0.01


@pytest.fixture(scope="module")
def reach() -> Reach:
    return Reach()


@pytest.fixture(scope="module")
def push() -> Push:
    return Push()


@pytest.fixture(scope="module")
def starts(reach, push):
    return {
        task.name: jax.jit(lambda key, task=task: reset(task, key, ENVS, "train"))(
            jax.random.key(0)
        )
        for task in (reach, push)
    }


def test_fields_follow_from_the_model(reach, push) -> None:
    assert [(f.name, f.size, f.unit) for f in reach.observation] == [
        ("joint_angle", 2, "rad"),
        ("joint_position", 1, "m"),
        ("joint_velocity", 2, "rad/s"),
        ("slide_velocity", 1, "m/s"),
        ("last_control", 4, "1"),
        ("gravity", 3, "1"),
        ("hand", 3, "m"),
        ("hand_orientation", 4, "1"),
    ]
    assert [f.name for f in reach.goal] == ["hand", "hand_orientation"]
    assert "shoulder, elbow" in reach.observation[0].meaning
    assert [f.name for f in push.observation][-3:] == ["cube_height", "cube_upright", "cube_xy"]
    units = {f.name: (f.unit, f.low, f.high) for f in (*reach.action, *push.action)}
    assert units["shoulder_servo"] == ("rad", pytest.approx(-0.1), pytest.approx(0.9))
    assert units["finger_motor"] == ("N", -2.0, 2.0)
    assert units["elbow_speed"] == ("rad/s", -3.0, 3.0)


def test_action_is_an_offset_from_the_pose_and_leaves_other_actuators(reach) -> None:
    np.testing.assert_allclose(reach.rest_control, [0.4, -0.3, 0, 0], atol=1e-6)
    sent = reach.control(np.float32([[0, 0], [1, -1], [5, -5]]))
    np.testing.assert_allclose(sent, [[0.4, -0.3, 0, 0], *[[0.9, -0.8, 0, 0]] * 2], atol=1e-6)
    np.testing.assert_array_equal(sent, reach.control(jnp.float32([[0, 0], [1, -1], [5, -5]])))


def test_starts_are_near_the_keyframe_and_free_bodies_are_scattered(reach, push, starts) -> None:
    qpos = np.asarray(starts["bench_reach"].physics.qpos)
    offset = np.abs(qpos[:, :3] - reach.rest_pose[:3])
    assert offset.max() <= 0.05 + 1e-6
    assert offset[:, :2].max() > 0.03
    assert qpos[:, 2].min() >= 0.0  # the finger's range
    np.testing.assert_allclose(qpos[:, 3:], np.tile(reach.rest_pose[3:], (ENVS, 1)), atol=1e-6)
    cube = np.asarray(starts["bench_push"].physics.qpos)[:, 3:6] - push.rest_pose[3:6]
    assert (np.abs(cube).max(axis=0) <= [0.02, 0.03, 0]).all()
    assert (cube[:, :2].std(axis=0) > 0.005).all()


def test_reachable_goals_are_reached_at_some_pose(reach, starts) -> None:
    goals = np.asarray(starts["bench_reach"].goal)
    assert goals[:, 2].min() > 0.05
    assert np.linalg.norm(goals[:, :2], axis=1).max() < 0.46  # the arm's length
    np.testing.assert_allclose(np.linalg.norm(goals[:, 3:], axis=1), 1.0, atol=1e-5)
    assert len(np.unique(goals[:, 0])) == ENVS


def test_goals_of_a_box_count_from_the_start(push, starts) -> None:
    states = starts["bench_push"]
    offset = np.asarray(states.goal - push.achieved_goal(states.observation))
    assert (np.abs(offset - [0.1, 0.0]) <= [0.05, 0.1]).all()


@pytest.mark.parametrize("size", [2, 3])
def test_goals_of_a_ring_are_at_a_distance(size) -> None:
    start = jnp.arange(1.0, 1.0 + size)
    sample = ring(0.5, 1.0, height=(0.2, 0.4))
    goals = jax.vmap(lambda key: sample(key, start, None))(jax.random.split(jax.random.key(0), 64))
    distance = np.linalg.norm(goals[:, :2] - start[:2], axis=1)
    assert 0.5 <= distance.min() < 0.6 < 0.9 < distance.max() <= 1.0
    assert goals.shape == (64, size)
    if size == 3:
        assert 0.2 <= goals[:, 2].min() < goals[:, 2].max() <= 0.4


def test_distance_of_poses_is_the_larger_of_place_and_angle(reach) -> None:
    goal = np.float32([0.1, 0.2, 0.3, 1, 0, 0, 0])
    half = 0.05
    turned = np.float32([0.1, 0.2, 0.3, np.cos(half), 0, np.sin(half), 0])
    near = np.float32([0.1, 0.2, 0.305, 1, 0, 0, 0])
    assert reach.goal_distance(turned, goal) == pytest.approx(0.1 * 0.02 / 0.2, rel=1e-4)
    assert reach.goal_distance(near, goal) == pytest.approx(0.005, rel=1e-4)
    np.testing.assert_allclose(
        reach.goal_distance(np.stack([turned, near]), -goal * [-1, -1, -1, 1, 1, 1, 1]),
        [0.01, 0.005],
        rtol=1e-4,
    )


@pytest.mark.parametrize("angle", [0.0, 1e-3, 0.5, 3.0])
def test_angle_between_is_that_by_which_a_quaternion_was_turned(angle) -> None:
    start = jnp.float32([0.5, -0.5, 0.5, 0.5])
    about_x = jnp.float32([np.cos(angle / 2), np.sin(angle / 2), 0, 0])
    product = np.zeros(4)
    mujoco.mju_mulQuat(product, np.float64(start), np.float64(about_x))
    for sign in (1, -1):
        found = angle_between(jnp.float32(sign * product), start, jnp)
        assert found == pytest.approx(angle, abs=1e-5)


def test_turn_stays_within_the_largest_angle() -> None:
    start = jnp.float32([0.5, -0.5, 0.5, 0.5])
    keys = jax.random.split(jax.random.key(0), 200)
    turned = jax.vmap(lambda key: turn(key, start, 0.6))(keys)
    angles = angle_between(turned, start, jnp)
    assert 0.5 < angles.max() <= 0.6 + 1e-4
    assert angles.min() < 0.1
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=1), 1.0, atol=1e-5)


def test_episode_ends_outside_limits(push) -> None:
    observation = np.zeros((4, push.observation_size), np.float32)
    observation[:, -4] = [0.1, -0.01, 0.6, 0.1]  # height
    observation[:, -3] = [1.0, 1.0, 1.0, 0.8]  # cosine of the tilt; that of 0.5 rad is 0.88
    np.testing.assert_array_equal(push.terminated(observation), [False, True, True, True])


def test_filter_and_delay_slow_the_actuators_down(push, starts) -> None:
    twin = Twin(push)
    (first,) = make_twins(push, jax.tree.map(lambda part: part[:1], starts["bench_push"]))
    assert twin._data.act.shape == first._data.act.shape == (4,)
    speeds = []
    for _ in range(8):
        first.step(np.float32([0.0, 1.0]))
        speeds.append(first._data.act[3])
    # After the delay of 10 ms, half of a control period: 3 (1 - exp(-(20 t - 10) / 50)).
    expected = 3 * (1 - np.exp(-(20 * np.arange(1, 9) - 10) / 50))
    np.testing.assert_allclose(speeds, expected, atol=0.15)


def test_pose_at_rest_is_held_by_filtered_actuators() -> None:
    twin = Twin(Filtered())
    twin.reset(twin.task.rest_pose.astype(float), np.zeros(twin.task.model.nv))
    for _ in range(20):
        twin.step(np.zeros(2, np.float32))
    np.testing.assert_allclose(twin.qpos[0], 0.4, atol=0.01)


def test_check_task_finds_nothing(reach, push) -> None:
    assert check_task(reach) == []
    # Nothing touches the cube.
    assert all("velocity'" in line and "set scale=" in line for line in check_task(push))


class Carried(Reach):
    """A mocap body is moved."""

    acts = mocap_steps("hand_target", 0.02)
    brings = body("hand_target")
    goals = box((0.3, 0.0, 0.3), (0.1, 0.1, 0.1))
    success_angle = None


def test_mocap_steps_move_a_mocap_body() -> None:
    task = Carried()
    twin = Twin(task)
    before = twin.observation[-3:].copy()
    twin.step(np.float32([1, -1, 0.5]))
    np.testing.assert_allclose(twin.observation[-3:] - before, [0.02, -0.02, 0.01], atol=1e-6)
    assert task.goal_position(np.float32([1, 2])) == (1, 2, 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rest": "redy"}, "no keyframe 'redy'; did you mean 'ready'"),
        ({"brings": site("tipp")}, "no site 'tipp'; did you mean 'tip'"),
        ({"brings": site("camera")}, "no site 'camera'; it has 'tip'"),
        ({"brings": body("tip", axes="xw")}, "no body 'tip'"),
        ({"brings": body("hand", axes="xw")}, "axes = 'xw' of body 'hand'; use some of 'xyz'"),
        ({"acts": position_targets("shoulder")}, "no actuator 'shoulder'; did you mean"),
        ({"acts": mocap_steps("hand")}, "the body is no mocap body"),
        ({"observes": (joint_angles("cube"),)}, "joint 'cube' has more than one number"),
        ({"observes": (joint_angles("elbo"),)}, "no joint 'elbo'; did you mean 'elbow'"),
        ({"observes": (base("hand"),)}, "the body has no free joint"),
        ({"success_angle": None}, "declare success_angle"),
        ({"brings": body("hand")}, "its goals have no orientation"),
        ({"scatters": {"hand": (0, 0, 0)}}, "scatters names 'hand', which has no free joint"),
        ({"robot": "nowhere.xml"}, "there is no file nowhere.xml"),
    ],
)
def test_wrong_declarations_are_refused_in_one_line(changed, message) -> None:
    with pytest.raises(InputError, match=message) as refused:
        type("Wrong", (Reach,), changed)()
    assert str(refused.value).startswith("task bench_reach: ")


def test_model_that_does_not_load_is_refused_with_mujocos_message(tmp_path) -> None:
    file = tmp_path / "bad.xml"
    file.write_text("<mujoco><worldbody><geom size='1' typ='box'/></worldbody></mujoco>")
    with pytest.raises(InputError, match=r"MuJoCo does not read .*bad.xml.*typ"):
        type("Wrong", (Reach,), {"robot": file})()


def test_model_without_actuators_is_refused() -> None:
    def strip(self, spec):
        for actuator in list(spec.actuators):
            spec.delete(actuator)

    with pytest.raises(InputError, match="the model has no actuators; add some in `change`"):
        type("Wrong", (Reach,), {"change": strip, "rest": ""})()


def test_package_file_names_what_to_install() -> None:
    assert package_file("teachers", "tasks/base.py").is_file()
    with pytest.raises(InputError, match="has no file"):
        package_file("teachers", "tasks/nothing.xml")
    with pytest.raises(InputError, match="pip install --no-deps no-such-robots"):
        package_file("no_such_robots", "robot.xml")
