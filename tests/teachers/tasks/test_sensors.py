"""What sensors make of what there is to measure, alone and in tasks."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from examples.cart import Cart

from teachers.runs.errors import InputError
from teachers.simulation.c_twin import make_twins
from teachers.simulation.check import check_task
from teachers.simulation.rollout import reset, rollout
from teachers.tasks import Sensor, namespace
from teachers.tasks.registry import TASKS, get_task
from teachers.tasks.sensors import read_sensors, sensor_errors, unread

STEPS, ENVS = 12, 4


def read_all(sensors, values, seed=0):
    """Returns what is read in each control step of an episode in which `values` `[time, sens]` are measured."""
    errors = sensor_errors(sensors)
    read = jax.jit(lambda sensed, step, key: read_sensors(errors, sensed, step, key))
    sensed, readings = unread(errors, jnp.asarray(values[0], jnp.float32)), []
    for step, value in enumerate(np.asarray(values, np.float32)):
        sensed = read(sensed._replace(measured=value), step, jax.random.key(seed * 1000 + step))
        readings.append(np.asarray(sensed.reading))
    return np.stack(readings)


RAMP = np.arange(STEPS, dtype=np.float32)[:, None] * np.ones(2, np.float32)


def test_sensor_without_errors_reads_what_is_measured() -> None:
    sensor = Sensor("position", 2, "m", "a place")
    np.testing.assert_array_equal(read_all((sensor,), RAMP), RAMP)


@pytest.mark.parametrize("delay", [1, 3])
def test_delay_reads_what_was_measured_before(delay) -> None:
    late = read_all((Sensor("place", 2, "m", "a place", delay=delay),), RAMP)
    np.testing.assert_array_equal(late[:, 0], np.maximum(np.arange(STEPS) - delay, 0))


def test_delays_differ_between_sensors() -> None:
    sensors = (Sensor("a", 1, "m", "a place", delay=2), Sensor("b", 1, "m", "a place"))
    both = read_all(sensors, RAMP)
    np.testing.assert_array_equal(both[:, 0], np.maximum(np.arange(STEPS) - 2, 0))
    np.testing.assert_array_equal(both[:, 1], np.arange(STEPS))


def test_rate_keeps_a_reading_between_two() -> None:
    slow = read_all((Sensor("place", 2, "m", "a place", every=3),), RAMP)
    np.testing.assert_array_equal(slow[:, 1], np.arange(STEPS) // 3 * 3)


def test_rate_and_delay_together() -> None:
    camera = read_all((Sensor("place", 2, "m", "a place", every=2, delay=2),), RAMP)
    np.testing.assert_array_equal(camera[:, 0], [0, 0, 0, 0, 2, 2, 4, 4, 6, 6, 8, 8])


def test_resolution_rounds() -> None:
    values = np.array([[0.11, -0.26], [0.0, 0.349]], np.float32)
    found = read_all((Sensor("angle", 2, "rad", "an encoder", resolution=0.1),), values)
    np.testing.assert_allclose(found, [[0.1, -0.3], [0.0, 0.3]], atol=1e-6)


def test_noise_and_bias_have_their_deviations() -> None:
    sensors = (Sensor("noisy", 200, "m", "", noise=0.5), Sensor("biased", 200, "m", "", bias=2.0))
    found = read_all(sensors, np.zeros((STEPS, 400)))
    noisy, biased = found[:, :200], found[:, 200:]
    assert noisy.std() == pytest.approx(0.5, rel=0.1)
    assert np.abs(np.corrcoef(noisy[0], noisy[1])[0, 1]) < 0.3
    assert biased.std() == pytest.approx(2.0, rel=0.2)
    np.testing.assert_array_equal(biased, np.broadcast_to(biased[0], biased.shape))
    # Another episode has another bias.
    assert (read_all(sensors, np.zeros((1, 400)), seed=1)[0, 200:] != biased[0]).all()


def test_lost_readings_keep_the_last_one_of_the_whole_sensor() -> None:
    sensors = tuple(Sensor(f"place_{i}", 2, "m", "a place", dropout=0.4) for i in range(200))
    found = read_all(sensors, RAMP.repeat(200, axis=1)).reshape(STEPS, 200, 2)
    np.testing.assert_array_equal(found[..., 0], found[..., 1])
    assert not found[0].any()
    is_new = found[1:, :, 0] == np.arange(1, STEPS)[:, None]
    assert is_new.mean() == pytest.approx(0.6, abs=0.05)
    kept = np.where(is_new, 0, found[1:, :, 0] - found[:-1, :, 0])
    assert not kept.any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"noise": -1.0}, "noise = -1.0; it is a standard deviation of 0 or more"),
        ({"delay": 1.5}, "delay = 1.5; it is control steps, 0 or more"),
        ({"every": 0}, "every = 0; it is control steps, 1 or more"),
        ({"dropout": 1.0}, "dropout = 1.0; it is a share of 0 or more, below 1"),
    ],
)
def test_task_refuses_wrong_sensors(wrong, message) -> None:
    class Wrong(Cart):
        sensors = (Sensor("place", 1, "m", "a place", **wrong),)

    with pytest.raises(InputError, match="task cart: sensor 'place' has " + message):
        Wrong()


def test_task_refuses_sensors_that_are_no_tuple() -> None:
    class Wrong(Cart):
        sensors = ("place",)

    with pytest.raises(InputError, match=r"write sensors = \(Sensor\(...\),\)"):
        Wrong()


class Measured(Cart):
    """It reads MuJoCo's sensors: how fast its cart accelerates, and its speed; the goal is seen from the cart."""

    sensors = (
        Sensor("accelerometer", 3, "m/s^2", "of the cart", 10.0),
        Sensor("speed", 1, "m/s", "of the slide"),
        Sensor("goal", 1, "m", "from the cart", is_goal=True),
    )

    def build(self):
        spec = super().build()
        spec.option.disableflags = 0
        spec.joint("slide").range, spec.joint("slide").limited = [-5.0, 5.0], True
        spec.body("cart").add_site(name="imu")
        site, joint = mujoco.mjtObj.mjOBJ_SITE, mujoco.mjtObj.mjOBJ_JOINT
        for name, kind, of, place in (
            ("accelerometer", mujoco.mjtSensor.mjSENS_ACCELEROMETER, site, "imu"),
            ("speed", mujoco.mjtSensor.mjSENS_JOINTVEL, joint, "slide"),
        ):
            spec.add_sensor(name=name, type=kind, objtype=of, objname=place)
        return spec

    def measure(self, data, goal):
        xp = namespace(data.qpos)
        own = [self.read_sensor(data, name) for name in ("accelerometer", "speed")]
        return xp.concatenate([*own, goal - data.qpos[:1]])


def play(task):
    """Returns states of a task, and its first and last states after random actions."""
    actions = jax.random.uniform(jax.random.key(1), (STEPS, ENVS, task.action_size), minval=-1)

    @jax.jit
    def run(key):
        starts = reset(task, key, ENVS, "train")

        def step(states, action):
            read, goal, states = jax.vmap(task.sense)(
                states, jax.random.split(jax.random.key(2), ENVS)
            )
            states = jax.vmap(task.step)(states, action)
            return states, (read, goal, states.sensed.measured, states.observation)

        return starts, *jax.lax.scan(step, starts, actions)

    starts, _, (read, goal, measured, observation) = run(jax.random.key(0))
    return starts, actions, read, goal, measured, observation


@pytest.mark.parametrize("engine", ["c", pytest.param("jax", marks=pytest.mark.slow)])
def test_sensors_of_the_model_are_those_of_the_twin(engine) -> None:
    task = Measured().simulated_by(engine, ENVS).with_sensors()
    assert [field.name for field in task.read_fields] == ["accelerometer", "speed"]
    assert [field.name for field in task.read_goal_fields] == ["goal"]
    starts, actions, read, goal, measured, observation = play(task)
    twins = make_twins(task, starts)
    for env, twin in enumerate(twins):
        target = np.asarray(starts.goal[env])
        np.testing.assert_allclose(twin.measure(target), starts.sensed.measured[env], atol=1e-3)
        for time in range(STEPS):
            twin.step(np.asarray(actions[time, env]))
            np.testing.assert_allclose(
                twin.measure(target), measured[time, env], atol=2e-2, rtol=1e-3
            )
    # Gravity, and what the motor adds; the speed is that before the last physics step, close to the observed one.
    assert np.abs(measured[..., 2] - 9.81).max() < 0.5
    assert np.abs(measured[..., 0]).max() > 1.0
    assert 0 < np.abs(measured[..., 3] - observation[..., 3]).max() < 0.1
    np.testing.assert_allclose(read[1:], measured[:-1, :, :4])
    np.testing.assert_allclose(goal[1:], measured[:-1, :, 4:])


@pytest.mark.slow
def test_task_without_sensors_reads_its_observation() -> None:
    task = Cart().simulated_by("c", ENVS).with_sensors()
    assert [sensor.name for sensor in task.read_fields] == [f.name for f in task.observation]
    starts, _, read, goal, _, observation = play(task)
    np.testing.assert_array_equal(read[1:], observation[:-1])
    np.testing.assert_array_equal(goal[0], starts.goal)


def test_read_sensor_names_those_that_are_near() -> None:
    with pytest.raises(InputError, match=r"no sensor 'acelerometer'; did you mean 'accelerometer'"):
        Measured().read_sensor(None, "acelerometer")


def test_check_task_of_measured_task_finds_nothing() -> None:
    assert check_task(Measured()) == []


def test_check_task_finds_measurements_of_another_size() -> None:
    class Short(Measured):
        def measure(self, data, goal):
            return super().measure(data, goal)[:3]

    assert check_task(Short()) == [
        "measure: gives [3], not [5]; make it the sum of the sensors' sizes"
    ]


@pytest.mark.slow
def test_check_task_finds_measurements_that_differ_between_engines() -> None:
    class Other(Measured):
        def measure(self, data, goal):
            return super().measure(data, goal) * (1.0 + isinstance(data, mujoco.MjData))

    (problem,) = check_task(Other())
    assert problem.startswith("sensor ")
    assert "differs between JAX and MuJoCo C" in problem


@pytest.mark.parametrize(
    "name",
    ["reacher", "point_u_maze", "arm_reach"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("arm_push_easy", "pusher_easy", "ant", "ant_ball", "cheetah", "humanoid")
    ],
)
def test_shipped_tasks_measure_the_same_in_c(name) -> None:
    task = get_task(name).with_sensors()
    start = task.reset(jax.random.key(3))
    assert start.sensed.measured.shape == (sum(sensor.size for sensor in task.sensors),)
    (twin,) = make_twins(task, jax.tree.map(lambda leaf: leaf[None], start))
    expected = twin.measure(np.asarray(start.goal))
    np.testing.assert_allclose(start.sensed.measured, expected, atol=1e-4)


@pytest.mark.parametrize("name", list(TASKS))
def test_shipped_tasks_declare_sensors(name) -> None:
    task = get_task(name)
    assert task.sensors
    fields = {field.name for field in task.with_sensors().read_fields}
    assert not any("velocity" in name or name in ("body_inertia", "position_z") for name in fields)


def test_with_sensors_refuses_accelerations_that_mjx_leaves_out() -> None:
    class Free(Measured):
        def build(self):
            spec = super().build()
            spec.joint("slide").limited = False
            return spec

    with pytest.raises(InputError, match="use physics 'c', or add a joint's range"):
        Free().with_sensors()
    assert Free().simulated_by("c", 1).with_sensors().senses


def test_goal_of_a_walker_is_seen_from_its_torso() -> None:
    task = get_task("ant")
    (twin,) = make_twins(task, jax.vmap(task.reset)(jax.random.split(jax.random.key(0), 1)))
    qpos, qvel = np.array(task.model.qpos0), np.zeros(task.model.nv)
    qpos[:2] = 1.0, 2.0
    qpos[3:7] = np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)  # turned to the left, along y
    qvel[3:6] = 0.1, 0.2, 0.3
    twin.reset(qpos, qvel)
    measured = twin.measure(np.array([1.0, 5.0]))
    np.testing.assert_allclose(measured[:3], [0.1, 0.2, 0.3], atol=1e-6)
    np.testing.assert_allclose(measured[3:6], [0.0, 0.0, -1.0], atol=1e-6)
    np.testing.assert_allclose(measured[-3:], [3.0, 0.0, 0.0], atol=1e-5)


@pytest.mark.slow
def test_rollouts_give_readings_to_the_policy() -> None:
    task = Measured().simulated_by("c", ENVS).with_sensors()

    def act(keys, read, goal):
        assert read.shape == (ENVS, 4)
        return jnp.clip(goal, -1.0, 1.0)

    @jax.jit
    def run(key):
        return rollout(task, act, reset(task, key, ENVS, "train"), key, STEPS, "train")

    _, trajectory = run(jax.random.key(0))
    away = trajectory.goal - trajectory.observation[..., :1]
    np.testing.assert_allclose(trajectory.action, jnp.clip(away, -1.0, 1.0), atol=1e-5)
