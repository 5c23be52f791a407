import copy
import pickle

import mujoco
import numpy as np
import pytest
from diverging import DivergingReacher

from teachers.process import show_mujoco_warning
from teachers.simulation.c_twin import Twin
from teachers.tasks.disturbance import MAX_DELAY, Disturbed


class BlindReacher(DivergingReacher):
    """A reacher that observes NaN once its shoulder has turned."""

    def observe(self, data):
        observation = super().observe(data)
        return np.where(np.abs(data.qpos[0]) > 0.1, np.nan, observation)


class LargeReacher(DivergingReacher):
    """A reacher that observes numbers whose squares are too large for float32."""

    def observe(self, data):
        return super().observe(data) + np.float32(1e20)


@pytest.fixture
def twin() -> Twin:
    robot = Twin(DivergingReacher())
    robot.reset(np.array([0.5, 0.0]), np.zeros(2))
    robot.step(np.array([0.3, 0.0]))
    return robot


@pytest.mark.parametrize("action", [[1.0, 0.0], [np.nan, 0.0]])
def test_twin_stands_still_in_last_sound_state_once_broken(twin, action) -> None:
    sound = twin.qpos, twin.observation
    assert not twin.broken
    for _ in range(3):
        twin.step(np.array(action))
        assert twin.broken
        np.testing.assert_array_equal(twin.qpos, sound[0])
        np.testing.assert_array_equal(twin.observation, sound[1])
    read, _ = twin.sense(np.zeros(2, np.float32), np.random.default_rng(0))
    assert np.isfinite(read).all()


@pytest.mark.parametrize("qvel", [np.nan, 1e20])
def test_twin_breaks_from_a_state_that_is_not_sound(qvel) -> None:
    robot = Twin(DivergingReacher())
    robot.reset(np.zeros(2), np.array([qvel, 0.0]))
    robot.step(np.zeros(2))
    assert robot.broken


def pickled(robot: Twin) -> Twin:
    return pickle.loads(pickle.dumps(robot))


@pytest.mark.parametrize("copied", [lambda robot: robot, copy.deepcopy, pickled])
def test_twin_breaks_without_a_word(tmp_path, monkeypatch, capfd, copied) -> None:
    monkeypatch.chdir(tmp_path)
    for start in ([0.0, 0.0], [np.nan, 0.0], [0.0, 1e20]):
        robot = Twin(DivergingReacher())
        robot.reset(np.zeros(2), np.zeros(2))
        robot.step(np.zeros(2))
        robot = copied(robot)
        robot.step(np.zeros(2))
        assert not robot.broken
        robot.reset(np.zeros(2), np.array(start))
        for action in ([1.0, 0.0], [np.nan, 0.0]):
            robot.step(np.array(action))
        assert robot.broken
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_twin_leaves_other_warnings_to_mujoco(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    heard = []
    mujoco.set_mju_user_warning(heard.append)
    try:
        robot = Twin(DivergingReacher())
        robot.step(np.ones(2))
        assert robot.broken
        assert heard == []
        data = mujoco.MjData(robot.task.model)
        data.qpos[:] = np.nan
        mujoco.mj_step(robot.task.model, data)
    finally:
        mujoco.set_mju_user_warning(show_mujoco_warning)
    assert len(heard) == 1  # of a simulation that is none of ours


@pytest.mark.filterwarnings("error")
def test_twin_takes_large_observations_for_sound() -> None:
    robot = Twin(LargeReacher())
    robot.reset(np.zeros(2), np.zeros(2))
    robot.step(np.zeros(2))
    assert not robot.broken


def test_twin_is_sound_again_after_reset(twin) -> None:
    twin.step(np.ones(2))
    twin.reset(np.array([0.5, 0.0]), np.zeros(2))
    other = Twin(twin.task)
    other.reset(np.array([0.5, 0.0]), np.zeros(2))
    for robot in (twin, other):
        robot.step(np.array([0.3, 0.0]))
        assert not robot.broken
    np.testing.assert_array_equal(twin.observation, other.observation)


def test_twin_breaks_where_observation_is_not_finite() -> None:
    robot = Twin(BlindReacher())
    robot.reset(np.zeros(2), np.zeros(2))
    for _ in range(30):
        robot.step(np.array([0.9, 0.0]))
    assert robot.broken
    assert np.isfinite(robot.observation).all()
    assert 0 < robot.qpos[0] <= 0.1


def test_twin_leaves_the_model_of_the_task_alone() -> None:
    task = DivergingReacher()
    undisturbed = Disturbed(
        noise=0.0,
        delay=0,
        mass=1.0,
        friction=1.0,
        push=np.zeros(2),
        push_step=0,
        pending=np.zeros((MAX_DELAY, 2)),
        gain=1.0,
        center=np.zeros(2),
        dropout=0.0,
        last=np.zeros(8),
    )
    for disturbance in (None, undisturbed, undisturbed._replace(mass=2.0)):
        robot = Twin(task, disturbance)
        robot.reset(np.zeros(2), np.zeros(2))
        robot.step(np.ones(2))
        assert robot.broken
    assert not task.model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_AUTORESET
