import copy
import pickle
import subprocess
import sys

import gymnasium
import jax
import numpy as np
import pytest
from diverging import DivergingReacher
from falling import FallingReacher
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from export import Policy
from teachers.runs.errors import InputError
from teachers.simulation import render
from teachers.simulation.gym_env import TaskEnv
from teachers.tasks.registry import TASKS, get_task


class ShortReacher(FallingReacher):
    episode_steps = 5

    def terminated(self, observation):
        return observation[..., 6] < -1.0


class ShortReacherWithoutSensors(ShortReacher):
    name = "reacher"
    sensors = ()


def play(env, steps, seed=0):
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    observations = [observation["observation"]]
    for _ in range(steps):
        observation, *_ = env.step(env.action_space.sample())
        observations.append(observation["observation"])
    return np.stack(observations)


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is -?infinity")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", TASKS)
def test_task_env_passes_gymnasium_checker(name) -> None:
    env = gymnasium.make(f"crl-distill/{name}-v0")
    check_env(env.unwrapped, skip_render_check=True)
    sizes = {key: box.shape for key, box in env.observation_space.items()}
    task = get_task(name)
    assert sizes == {
        "observation": (task.observation_size,),
        "achieved_goal": (task.goal_size,),
        "desired_goal": (task.goal_size,),
    }
    assert env.metadata["render_fps"] == pytest.approx(1 / task.control_period)
    env.close()


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is -?infinity")
@pytest.mark.filterwarnings("error")
def test_task_env_with_render_mode_passes_gymnasium_checker() -> None:
    env = gymnasium.make("crl-distill/reacher-v0", render_mode="rgb_array", render_size=32)
    check_env(env.unwrapped)
    env.close()


def test_gymnasium_make_imports_module_named_in_id() -> None:
    code = """
import gymnasium
env = gymnasium.make("export.gym_env:crl-distill/point_u_maze-v0")
print(env.reset(seed=0)[0]["desired_goal"].shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "(2,)", done.stderr


def test_reset_starts_as_task_reset() -> None:
    env = TaskEnv("reacher", goal_set="train")
    observation, info = env.reset(seed=3)
    key = jax.random.key(int(np.random.default_rng(3).integers(2**31)))
    state = jax.jit(env.task.reset, static_argnums=1)(key, "train")
    np.testing.assert_allclose(observation["observation"], state.observation, atol=1e-6)
    np.testing.assert_allclose(observation["desired_goal"], state.goal, atol=1e-6)
    assert info["steps"] == 0
    assert not info["is_terminated"]


def test_reset_draws_from_goal_set() -> None:
    def goals(**options):
        env = TaskEnv("point_u_maze", **options)
        return np.stack([env.reset(seed=i)[0]["desired_goal"] for i in range(40)])

    np.testing.assert_array_equal(goals(), goals(goal_set="eval"))
    assert goals()[:, 1].max() < 0  # the corridor's far end
    assert goals(goal_set="train")[:, 1].max() > 0.5


def test_reset_seed_determines_later_episodes() -> None:
    one, other = TaskEnv("reacher"), TaskEnv("reacher")
    np.testing.assert_array_equal(play(one, 10, seed=1), play(other, 10, seed=1))
    for env in (one, other):
        env.goal = env.reset()[0]["desired_goal"]
    np.testing.assert_array_equal(one.goal, other.goal)
    assert not np.allclose(play(one, 10, seed=2), play(other, 10, seed=1))


def test_reset_with_goal_keeps_later_episodes() -> None:
    env = TaskEnv("reacher")
    free = [env.reset(seed=0)[0], env.reset()[0]]
    given = [env.reset(seed=0, options={"goal": [0.1, 0.05]})[0], env.reset()[0]]
    np.testing.assert_allclose(given[0]["desired_goal"], [0.1, 0.05])
    np.testing.assert_array_equal(given[0]["observation"], free[0]["observation"])
    np.testing.assert_array_equal(given[1]["desired_goal"], free[1]["desired_goal"])


def test_compute_reward_accepts_leading_axes() -> None:
    env = TaskEnv("reacher")
    goal = np.zeros((2, 3, 2), np.float32)
    achieved = goal.copy()
    achieved[0, :, 0] = env.task.success_radius * 0.99
    achieved[1, :, 1] = env.task.success_radius * 1.01
    reward = env.compute_reward(achieved, goal, {})
    assert reward.dtype == np.float32
    np.testing.assert_array_equal(reward, [[0.0] * 3, [-1.0] * 3])
    assert env.compute_reward(achieved[0, 0], goal[0, 0], {}) == 0.0


def test_step_agrees_with_compute_functions_and_task_success() -> None:
    env = TaskEnv("reacher")
    start = env.reset(seed=0)[0]
    tip = start["achieved_goal"]
    env.action_space.seed(0)
    _, info = env.reset(seed=0, options={"goal": tip})
    assert info["is_success"]
    successes = []
    for count in range(1, env.task.episode_steps + 1):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        goals = observation["achieved_goal"], observation["desired_goal"]
        assert reward == env.compute_reward(*goals, info)
        assert terminated == env.compute_terminated(*goals, info)
        assert truncated == env.compute_truncated(*goals, info) == (count == 100)
        assert info["is_success"] == (reward == 0.0)
        near = env.task.distance(observation["observation"], goals[1]) < env.task.success_radius
        assert info["is_success"] == near
        successes.append(info["is_success"])
    assert 0 < sum(successes) < 100


def test_step_terminated_is_no_success() -> None:
    env = TaskEnv(FallingReacher())
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        if observation["achieved_goal"][0] > -0.1:
            continue
        goal = np.array([-0.18, 0.0], np.float32)
        env.reset(seed=seed, options={"goal": goal})
        for _ in range(20):
            observation, _, terminated, _, info = env.step(np.array([1.0, -0.2]))
            assert terminated == (observation["achieved_goal"][0] < -0.15)
            assert not (terminated and info["is_success"])
            if terminated:
                return
    pytest.fail("no episode ended early")


def test_step_terminates_broken_episode_and_reset_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warnings there
    env = TaskEnv(DivergingReacher(), render_mode="rgb_array", render_size=32)
    start, info = env.reset(seed=0)
    assert not info["broken"]
    env.reset(seed=0, options={"goal": start["achieved_goal"]})  # it is at its goal
    last, reward, terminated, _, info = env.step(np.zeros(2))
    assert (reward, terminated, info["broken"], info["is_success"]) == (0.0, False, False, True)
    for steps in (2, 3):  # nothing changes until the reset
        observation, reward, terminated, truncated, info = env.step(np.ones(2))
        assert (reward, terminated, truncated) == (-1.0, True, False)
        assert info == {
            "is_success": False, "is_terminated": True, "broken": True, "steps": steps
        }  # fmt: skip
        for name, part in observation.items():
            np.testing.assert_array_equal(part, last[name])
        goals = observation["achieved_goal"], observation["desired_goal"]
        assert env.compute_reward(*goals, info) == reward
        assert env.compute_terminated(*goals, info)
    assert env.render().shape == (32, 32, 3)
    env.close()
    again = env.reset(seed=0)[0]
    np.testing.assert_array_equal(again["observation"], start["observation"])
    assert not env.step(np.zeros(2))[2]


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is -?infinity")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sensors", ["noisy", "clean"])
def test_task_env_reads_sensors(sensors) -> None:
    env = TaskEnv("ant", sensors=sensors)
    check_env(env, skip_render_check=True)
    assert env.observation_space["sensors"].shape == (22,)
    assert env.observation_space["sensed_goal"].shape == (3,)
    first, _ = env.reset(seed=3)
    again, _ = TaskEnv("ant", sensors="clean").reset(seed=3)
    difference = np.abs(first["sensors"] - again["sensors"]).max()
    assert (difference > 0) == (sensors == "noisy")
    assert difference < 0.5
    # The goal is seen from the torso, and not where the task has it.
    assert np.linalg.norm(first["sensed_goal"][:2]) == pytest.approx(
        np.linalg.norm(first["desired_goal"] - first["achieved_goal"]), rel=0.1
    )
    for copied in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        action = np.full(8, 0.5, np.float32)
        one, other = (each.step(action)[0] for each in (copied, copy.deepcopy(env)))
        np.testing.assert_array_equal(one["sensors"], other["sensors"])


def test_task_env_refuses_sensors_that_are_not_there() -> None:
    with pytest.raises(InputError, match="task reacher declares no sensors; declare them"):
        TaskEnv(ShortReacherWithoutSensors(), sensors="noisy")
    with pytest.raises(InputError, match="sensors = 'loud'; choose 'noisy', 'clean' or None"):
        TaskEnv("reacher", sensors="loud")


@pytest.mark.parametrize(
    "info",
    [{"broken": np.array([True, False])}, [{"broken": True}, {}], [{"broken": True}, None]],
)
def test_compute_reward_of_broken_steps_of_a_batch(info) -> None:
    env, goal = TaskEnv("reacher"), np.zeros((2, 2), np.float32)
    np.testing.assert_array_equal(env.compute_reward(goal, goal, info), [-1.0, 0.0])


@pytest.mark.parametrize("info", [None, {}, [{}, {}], [None, None], np.array([{}, {}])])
def test_compute_reward_takes_missing_info_for_no_broken_step(info) -> None:
    env, goal = TaskEnv("reacher"), np.zeros((2, 2), np.float32)
    np.testing.assert_array_equal(env.compute_reward(goal, goal, info), [0.0, 0.0])


def test_step_clips_actions() -> None:
    one, other = TaskEnv("reacher"), TaskEnv("reacher")
    for env in (one, other):
        env.reset(seed=0)
    far, near = one.step(np.array([7.0, -9.0])), other.step(np.array([1.0, -1.0]))
    np.testing.assert_array_equal(far[0]["observation"], near[0]["observation"])


def test_task_env_refuses_wrong_input() -> None:
    with pytest.raises(InputError, match="no goal set 'eval'; choose one of: train"):
        TaskEnv("reacher", goal_set="eval")
    with pytest.raises(InputError, match="did you mean 'reacher'"):
        TaskEnv("reachr")
    with pytest.raises(InputError, match="render_mode = 'human'"):
        TaskEnv("reacher", render_mode="human")
    env = TaskEnv("reacher")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2))
    with pytest.raises(InputError, match=r"goal has shape \(3,\); give \(2,\)"):
        env.reset(options={"goal": np.zeros(3)})
    with pytest.raises(InputError, match=r"unknown options \['gaol'\]"):
        env.reset(options={"gaol": np.zeros(2)})
    env.reset()
    with pytest.raises(InputError, match=r"action has shape \(\); give \(2,\)"):
        env.step(0.5)
    with pytest.raises(InputError, match="give finite numbers"):
        env.step(np.array([0.0, np.nan]))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_task_env_autoresets_in_vector_env(mode) -> None:
    envs = gymnasium.vector.SyncVectorEnv(
        [lambda: TaskEnv(ShortReacher())] * 3, autoreset_mode=mode
    )
    observation, _ = envs.reset(seed=0)
    first = observation["desired_goal"]
    assert first.shape == (3, 2)
    assert len(np.unique(first, axis=0)) == 3
    envs.action_space.seed(0)
    restart = 6 if mode is AutoresetMode.NEXT_STEP else 5
    for count in range(1, 7):
        observation, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
        assert observation in envs.observation_space
        assert reward.shape == (3,)
        assert not terminated.any()
        assert truncated.all() == (count == 5)
        restarted = count >= restart
        assert (observation["desired_goal"] != first).all() == restarted
        np.testing.assert_array_equal(info["steps"], count - restart if restarted else count)
    envs.close()


@pytest.mark.parametrize(("given", "steps"), [(None, 100), (7, 7), (130, 130)])
def test_make_takes_max_episode_steps(given, steps) -> None:
    options = {} if given is None else {"max_episode_steps": given}
    env = gymnasium.make("crl-distill/reacher-v0", **options)
    assert env.spec.max_episode_steps == steps
    assert gymnasium.spec("crl-distill/reacher-v0").max_episode_steps == 100
    for _ in range(2):
        env.reset(seed=0)
        truncated = [env.step(np.zeros(2))[3] for _ in range(steps)]
        assert truncated == [False] * (steps - 1) + [True]


def continue_both(env, other, steps=6) -> None:
    """Steps two environments with the same actions, through a reset, and asserts that they do the same."""
    for step in range(2 * steps):
        action = np.random.default_rng(step).uniform(-1, 1, 2)
        ours, theirs = (
            each.reset() if step == steps else each.step(action) for each in (env, other)
        )
        for name, part in ours[0].items():
            np.testing.assert_array_equal(part, theirs[0][name])
        assert ours[1:] == theirs[1:]


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copy_of_rendered_env_goes_on_from_the_same_state(make_copy) -> None:
    env = gymnasium.make("crl-distill/reacher-v0", render_mode="rgb_array", render_size=32)
    play(env, 3)
    before = env.render()
    copied = make_copy(env)
    assert copied.unwrapped.task is env.unwrapped.task
    np.testing.assert_array_equal(copied.render(), before)
    assert copied.unwrapped._renderer is not env.unwrapped._renderer
    copied.step(np.ones(2))
    np.testing.assert_array_equal(env.render(), before)  # the copy has a state of its own
    continue_both(env, make_copy(env))
    for each in (env, copied):
        each.close()


def test_pickled_env_of_a_class_and_of_a_broken_state_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warnings there
    env = TaskEnv(DivergingReacher())
    assert env.task.contacts == 0  # it has compiled MJX's simulation, which cannot be pickled
    env.reset(seed=0)
    env.step(np.ones(2))
    copied = pickle.loads(pickle.dumps(env))
    assert type(copied.task) is DivergingReacher
    for each in (env, copied):
        assert each.step(np.zeros(2))[4]["broken"]
    continue_both(env, copied)


@pytest.mark.slow
def test_env_of_a_file_is_sent_to_other_processes(tmp_path, no_known_task_files) -> None:
    (tmp_path / "mine.py").write_text(
        "from teachers.tasks.reacher import Reacher\n\nclass Mine(Reacher):\n    name = 'mine'\n"
    )
    env = TaskEnv(f"{tmp_path / 'mine.py'}:Mine", render_mode="rgb_array", render_size=32)
    env.reset(seed=0)
    env.render()
    envs = gymnasium.vector.AsyncVectorEnv([lambda: env] * 2, context="spawn")
    try:
        other = copy.deepcopy(env)
        envs.reset(seed=[1, 2])
        other.reset(seed=2)
        theirs = envs.step(np.full((2, 2), 0.5))[0]
        for name, part in other.step(np.full(2, 0.5))[0].items():
            np.testing.assert_array_equal(theirs[name][1], part)
    finally:
        envs.close()
        env.close()


def test_make_vec_gives_environments_different_episodes() -> None:
    envs = gymnasium.make_vec("crl-distill/reacher-v0", num_envs=4)
    observation, info = envs.reset(seed=0)
    alone = gymnasium.make("crl-distill/reacher-v0").reset(seed=2)[0]
    for name, part in observation.items():
        np.testing.assert_array_equal(part[2], alone[name])
    np.testing.assert_array_equal(info["steps"], np.zeros(4))
    observation, reward, *_, info = envs.step(envs.action_space.sample())
    goals = observation["achieved_goal"], observation["desired_goal"]
    np.testing.assert_array_equal(reward, envs.envs[0].unwrapped.compute_reward(*goals, {}))
    np.testing.assert_array_equal(info["is_success"], reward == 0.0)
    envs.close()


def test_task_env_plays_exported_policy(export_folder) -> None:
    policy = Policy(export_folder / "policy.onnx", normalized=True)
    env = gymnasium.make("crl-distill/reacher-v0")
    observation, info = env.reset(seed=0)
    truncated = False
    while not truncated:
        action = policy(observation["observation"], observation["desired_goal"])
        observation, _, _, truncated, info = env.step(action)
    assert info["steps"] == env.unwrapped.task.episode_steps


def test_render_draws_every_step_in_one_process(monkeypatch) -> None:
    opened = []
    monkeypatch.setattr(
        "teachers.simulation.gym_env.Renderer",
        lambda *args: opened.append(render.Renderer(*args)) or opened[-1],
    )
    env = gymnasium.make("crl-distill/reacher-v0", render_mode="rgb_array_list", render_size=48)
    play(env, 3)
    frames = env.render()
    assert len(frames) == 4
    assert frames[0].shape == (48, 48, 3)
    assert not np.array_equal(frames[0], frames[3])
    assert len(opened) == 1
    assert env.unwrapped.render_backend == opened[0].backend
    env.close()
    env.close()


def test_render_without_render_mode_returns_none() -> None:
    env = TaskEnv("reacher")
    env.reset()
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert env.render() is None
