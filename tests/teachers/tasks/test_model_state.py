"""Models with more state than positions and velocities: activations, delays, mocap bodies, and quaternions."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from jaxtyping import Array, Float, Key

from teachers.runs.errors import InputError
from teachers.simulation.c_twin import make_twins
from teachers.simulation.check import check_task
from teachers.simulation.rollout import reset
from teachers.tasks import Camera, Field, Task, namespace
from teachers.tasks.engines import simulate_with_jax
from teachers.tasks.model_state import initial_internal, initial_mocap, internal_size

ENVS, STEPS = 4, 10
DELAY = 0.04  # s, two control periods

XML = """
<mujoco>
  <option timestep="0.005" gravity="0 0 0" integrator="implicitfast"/>
  <worldbody>
    <body name="hand" mocap="true" pos="0 0 0.5"/>
    <body name="load" pos="0.1 0 0.5">
      <freejoint name="load"/>
      <geom type="ellipsoid" size="0.05 0.03 0.02" mass="1"/>
    </body>
    <body name="slider" pos="1 0 0">
      <joint name="rail" type="slide" axis="1 0 0" damping="1" ref="0.2"/>
      <geom size="0.05" mass="1"/>
    </body>
    <body name="late" pos="2 0 0">
      <joint name="wheel" type="hinge" axis="0 1 0" damping="1"/>
      <geom size="0.05 0.1" type="capsule" mass="1"/>
    </body>
  </worldbody>
  <equality><weld body1="hand" body2="load" relpose="0.1 0 0 1 0 0 0"/></equality>
  <actuator>
    <general name="slow" joint="rail" dyntype="filter" dynprm="0.1" ctrllimited="true" ctrlrange="-5 5"/>
    <motor name="late" joint="wheel" ctrllimited="true" ctrlrange="-1 1" {delay}/>
  </actuator>
</mujoco>
"""


class Carrier(Task):
    """A hand that is moved, a load that hangs on it, a slow actuator and perhaps a late one."""

    name = "carrier"
    summary = "A hand carries a load to a place."
    observation = (
        Field("load", 3, "m", "place of the load"),
        Field("rail", 2, "m", "place and velocity on the rail", 0.2),
        Field("wheel", 2, "rad", "angle and velocity of the wheel"),
        Field("hand", 3, "m", "place of the hand"),
        Field("force", 1, "N", "what the slow actuator does"),
        Field("time", 1, "s", "since the start", 0.2),
    )
    goal = (Field("load", 3, "m", "where the load should be"),)
    action = (
        Field("step", 3, "m", "step of the hand", low=-0.01, high=0.01),
        Field("slow", 1, "N", "of the slow actuator", low=-5.0, high=5.0),
        Field("late", 1, "N m", "of the late actuator", low=-1.0, high=1.0),
    )
    substeps = 4
    episode_steps = 50
    success_radius = 0.02
    camera = Camera((0, 0, 0.5), 3.0)
    delay = f'delay="{DELAY}" nsample="8"'

    def build(self) -> mujoco.MjSpec:
        return mujoco.MjSpec.from_string(XML.format(delay=self.delay))

    def sample_state(self, key: Key[Array, ""]) -> tuple[Float[Array, "nq"], Float[Array, "nv"]]:
        noise = 0.02 * jax.random.normal(key, (self.model.nq,))
        # The quaternion is not of unit length.
        return jnp.asarray(self.model.qpos0, jnp.float32) + noise, jnp.zeros(self.model.nv)

    def sample_goal(self, key, observation, goal_set):
        return observation[:3] + jax.random.uniform(key, (3,), minval=-0.3, maxval=0.3)

    def control(self, action):
        return namespace(action).clip(action[3:], -1.0, 1.0) * np.float32([5.0, 1.0])

    def move_mocap(self, mocap, action):
        xp = namespace(action)
        place = mocap[0, :3] + 0.01 * xp.clip(action[:3], -1.0, 1.0)
        return xp.concatenate([place, mocap[0, 3:]])[None]

    def observe(self, data):
        xp = namespace(data.qpos)
        parts = [
            data.xpos[2],
            xp.stack([data.qpos[7], data.qvel[6]]),
            xp.stack([data.qpos[8], data.qvel[7]]),
            data.mocap_pos[0],
            data.act[:1],
            xp.asarray(data.time).reshape(1),
        ]
        return xp.concatenate(parts)

    def achieved_goal(self, observation):
        return observation[..., :3]


class PromptCarrier(Carrier):
    """The same without the delay, which MJX does not take."""

    name = "prompt_carrier"
    delay = ""


@pytest.fixture(scope="module")
def late() -> Carrier:
    return Carrier()


@pytest.fixture(scope="module")
def prompt() -> PromptCarrier:
    return PromptCarrier()


def play(
    task: Task, actions: np.ndarray
) -> tuple[list[np.ndarray], Float[np.ndarray, "time env obs"]]:
    """Returns observations of the twins and of the task's engine, from the same starts and with the same actions."""
    starts = jax.jit(lambda key: reset(task, key, ENVS, "train"))(jax.random.key(0))
    twins = make_twins(task, starts)

    @jax.jit
    def roll(states, actions):
        def step(states, action):
            states = jax.vmap(task.step)(states, action)
            return states, states.observation

        return jax.lax.scan(step, states, actions)[1]

    found = np.concatenate([starts.observation[None], roll(starts, actions)])
    expected = [np.stack([twin.observation for twin in twins])]
    for row in actions:
        for twin, action in zip(twins, row, strict=True):
            twin.step(action)
        expected.append(np.stack([twin.observation for twin in twins]))
    return expected, found


@pytest.fixture(scope="module")
def actions() -> np.ndarray:
    random = np.random.default_rng(0).uniform(-1, 1, (STEPS, ENVS, 5))
    return random.astype(np.float32)


def test_rollout_in_c_agrees_with_twins_of_models_with_more_state(late, actions) -> None:
    expected, found = play(late.simulated_by("c", ENVS), actions)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(found[-1, :, 10]).min() > 0.01  # the activation has moved
    np.testing.assert_allclose(found[:, 0, 11], np.arange(STEPS + 1) * 0.02, rtol=1e-6)
    # The wheel turns as soon as the delay is over, and not before.
    np.testing.assert_array_equal(found[2, :, 6], 0.0)
    assert (np.abs(found[4, :, 6]) > 1e-3).all()


@pytest.mark.slow
def test_rollout_in_mjx_agrees_with_twins_of_models_with_more_state(prompt, actions) -> None:
    expected, found = play(prompt.simulated_by("jax", ENVS), actions)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_initial_state_is_that_of_a_reset(late, prompt) -> None:
    assert internal_size(prompt.model) == 1 + 1  # time and activation
    np.testing.assert_array_equal(initial_internal(prompt.model, np.float32([2, 1])), [0.0, 2.0])
    assert internal_size(late.model) > internal_size(prompt.model)
    np.testing.assert_array_equal(initial_mocap(late.model), [[0, 0, 0.5, 1, 0, 0, 0]])
    assert initial_internal(mujoco.MjSpec().compile(), np.zeros(0, np.float32)) is None


def test_simulate_with_jax_refuses_delays_and_names_the_other_engine(late) -> None:
    with pytest.raises(InputError, match="delays and plugins with a state; use physics 'c'"):
        simulate_with_jax(late.model, "carrier")


def test_quaternions_of_starts_have_unit_length(late) -> None:
    states = jax.jit(lambda key: reset(late, key, ENVS, "train"))(jax.random.key(0))
    norm = np.linalg.norm(states.physics.qpos[:, 3:7], axis=1)
    np.testing.assert_allclose(norm, 1.0, atol=1e-6)


def test_check_task_takes_models_that_mjx_refuses(late) -> None:
    assert check_task(late) == []


class Unlimited(Carrier):
    control = Task.control
    action = (
        Field("slow", 1, "N", "of the slow actuator"),
        Field("late", 1, "N m", "of the late one"),
    )

    def build(self) -> mujoco.MjSpec:
        spec = super().build()
        spec.actuators[1].ctrllimited = False
        spec.actuators[1].ctrlrange = [0, 0]
        return spec


def test_actuator_without_range_uses_its_fields_limits() -> None:
    with pytest.raises(
        InputError, match="actuator 'late' has no ctrlrange, and action field 'late'"
    ):
        Unlimited()
    limited = type(
        "Limited",
        (Unlimited,),
        {"action": (Unlimited.action[0], Unlimited.action[1]._replace(low=-3.0, high=3.0))},
    )
    np.testing.assert_array_equal(limited().control(np.float32([0.5, 0.5])), [2.5, 1.5])
