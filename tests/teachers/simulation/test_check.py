"""Each task here has one fault: `check_task` names it, its value and a remedy."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from examples.cart import Cart

from teachers.simulation import static_checks
from teachers.simulation.check import check_task
from teachers.simulation.problem_report import ProblemReport
from teachers.simulation.static_checks import check_declaration
from teachers.tasks import Field
from teachers.tasks.registry import TASKS, get_task


def assert_found(task, *problems: str) -> None:
    """Asserts that `check_task` finds exactly these problems, each given by a part of its line."""
    found = check_task(task)
    assert all("\n" not in line and "; " in line for line in found)
    missing = [part for part in problems if not any(part in line for line in found)]
    assert not missing, found
    assert len(found) == len(problems), found


def test_check_task_of_good_task_finds_nothing() -> None:
    assert check_task(Cart()) == []


class Undeclared(Cart):
    action = (Field("force", 1, "", "", low=-1.0),)
    success_radius = 0.0
    goal_sets = ("test",)


def test_check_task_finds_wrong_declaration() -> None:
    assert_found(
        Undeclared(),
        "action field 'force': unit is empty",
        "action field 'force': meaning is empty",
        "action field 'force': low or high is missing",
        "action field 'force': low = -1, but the model's actuator has [-10]",
        "success_radius: 0.0",
        "goal_sets: ('test',)",
    )


class Unsupported(Cart):
    """It uses a solver that MJX does not have."""

    def build(self):
        spec = super().build()
        spec.option.solver = mujoco.mjtSolver.mjSOL_PGS
        return spec


def test_check_task_finds_what_the_default_engine_does_not_take(monkeypatch) -> None:
    assert check_task(Unsupported()) == []  # MuJoCo C
    monkeypatch.setattr(static_checks, "choose_engine", lambda choice: "jax")  # as on a GPU
    assert_found(
        Unsupported(),
        "the engine does not take the model: raises InputError: MJX does not take the model of task cart: "
        "mjtSolver.mjSOL_PGS; use physics 'c'",
    )


class Types(Cart):
    success_radius = None
    hard_radius = "3 cm"
    substeps = "4"
    goal_sets = None


def test_check_task_finds_attributes_of_wrong_type() -> None:
    assert_found(
        Types(),
        "success_radius: None",
        "hard_radius: '3 cm'",
        "substeps: '4'",
        "goal_sets: None",
    )


class Gripper(Cart):
    action = (Cart.action[0]._replace(low=10.0, high=-10.0),)
    hard_radius = 0.01

    def control(self, action):
        return super().control(-action)


def test_check_task_accepts_falling_action_limits() -> None:
    assert check_task(Gripper()) == []


@pytest.mark.parametrize("name", list(TASKS))
def test_check_declaration_of_shipped_tasks_finds_nothing(name) -> None:
    task = get_task(name)
    report = ProblemReport(task)
    check_declaration(task, report)
    assert report.problems == []


class Sizes(Cart):
    def sample_state(self, key):
        return jnp.zeros(2), jnp.zeros(3)


class Branches(Cart):
    def observe(self, data):
        return super().observe(data) if data.qpos[0] > 0 else super().observe(data) * 2

    def sample_goal(self, key, observation, goal_set):
        return jnp.zeros(2)

    def achieved_goal(self, observation):
        return observation[..., 0]


class Numpy(Cart):
    def observe(self, data):
        return np.concatenate([data.qpos, data.qvel])


class Integers(Cart):
    def sample_goal(self, key, observation, goal_set):
        return jax.random.randint(key, (1,), -1, 2)

    def terminated(self, observation):
        return observation[..., 0]


class Raises(Cart):
    def observe(self, data):
        return data.no_such_thing


@pytest.mark.parametrize(
    ("task", "problems"),
    [
        (Sizes, ["qvel of sample_state: gives [3], not [2]"]),
        (Branches, ["observe: JAX cannot trace it: TracerBoolConversionError"]),
        (Numpy, ["observe: JAX cannot trace it: TracerArrayConversionError"]),
        (Integers, ["sample_goal: gives int32; return float32", "terminated: gives float32; return bool"]),
        (Raises, ["observe: raises AttributeError"]),
    ],
)  # fmt: skip
def test_check_task_finds_functions_that_jax_cannot_use(task, problems) -> None:
    assert_found(task(), *problems)


def test_check_task_locates_error_in_task_file() -> None:
    (line,) = check_task(Raises())
    assert __file__ in line


class FirstAxis(Cart):
    def achieved_goal(self, observation):
        return observation[:1]


class Mutates(Cart):
    def achieved_goal(self, observation):
        if isinstance(observation, np.ndarray):
            observation[..., 0] = 0.5
        return observation[..., :1]

    goal_position = None


class Remembers(Cart):
    calls = 0

    def achieved_goal(self, observation):
        self.calls += 1
        return observation[..., :1] + self.calls

    goal_position = None  # the checks stop there, so that nothing is compiled


@pytest.mark.parametrize(
    ("task", "problems"),
    [
        (FirstAxis, ["achieved_goal: gives [1, 2, 5] for observations [3, 2, 5]"]),
        (Remembers, [
            "achieved_goal: gives different goals for the same observation",
            "achieved_goal: differs between numpy and jax",
            "goal_position: raises TypeError",
        ]),
        (Mutates, [
            "achieved_goal: changes its argument",
            "achieved_goal: differs between numpy and jax",
            "goal field 'position': does not depend on the observation",
            "goal_position: raises TypeError",
        ]),
    ],
)  # fmt: skip
def test_check_task_finds_goals_that_are_no_function_of_observation(task, problems) -> None:
    assert_found(task(), *problems)


class Idle(Cart):
    """It starts on its goal, and has an actuator without effect and a wrong scale."""

    observation = (
        Cart.observation[0],
        Cart.observation[1]._replace(scale=1000.0),
        *Cart.observation[2:],
    )
    action = (*Cart.action, Field("brake", 1, "N", "nothing", low=-1.0, high=1.0))
    training = {}

    def build(self):
        spec = super().build()
        spec.add_actuator(
            name="brake",
            target="slide",
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            ctrlrange=[-1, 1],
            gear=[0, 0, 0, 0, 0, 0],
        ).set_to_motor()
        return spec

    def sample_state(self, key):
        return jnp.full(2, 0.1), jnp.zeros(2)

    def sample_goal(self, key, observation, goal_set):
        return jnp.full(1, 0.1)

    def terminated(self, observation):
        return observation[..., 0] < 0.2


def test_check_task_finds_wrong_resets_actions_and_scales() -> None:
    assert_found(
        Idle(),
        "train goals: all 64 resets draw the same, [0.1]",
        "start states: all 64 resets draw the same",
        "terminated: is true at 64 of 64 resets",
        "train goals: 64 of 64 are already reached",
        "observation field 'pole': scale = 1000",
        "action field 'brake': 1 and -1 lead to the same motion (action 1)",
    )


class TwoEngines(Cart):
    """It observes what is not current, and gives goals in millimetres."""

    def observe(self, data):
        observation = super().observe(data)
        return observation + (data.qacc[0] * np.array([0, 0, 0, 9, 0])).astype("float32")

    def sample_goal(self, key, observation, goal_set):
        return 1000 * super().sample_goal(key, observation, goal_set)


def test_check_task_finds_differing_engines_and_goal_units() -> None:
    assert_found(
        TwoEngines(),
        "goal field 'position': train goals lie",
        "goal field 'position': scale = 0.5 m, but its values are near",
        "observation field 'velocity': differs between JAX and MuJoCo C",
    )


class Divides(Cart):
    def observe(self, data):
        return super().observe(data) / (data.time * 0)


def test_check_task_finds_numbers_that_are_not_finite() -> None:
    assert_found(Divides(), "observation field 'position': is not finite at a reset")
