import contextlib
from types import SimpleNamespace

import mujoco
import mujoco.viewer
import numpy as np
import pytest
from commands import assert_refused, run, run_json

from export import play_in_c
from export.artefacts import open_policy
from teachers import InputError
from teachers.simulation.c_twin import Twin
from teachers.simulation.scene import build_scene, find_goal_marker
from teachers.simulation.viewer import RealTime, viewer
from teachers.tasks.registry import get_task


class Clock:
    """A clock that advances only in `sleep` and by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Window(SimpleNamespace):
    """Stands in for what `mujoco.viewer.launch_passive` returns, without a display."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        super().__init__(model=model, data=data, cam=mujoco.MjvCamera(), shown=[], open=True)

    def is_running(self) -> bool:
        return self.open

    def lock(self):
        return contextlib.nullcontext()

    def sync(self) -> None:
        marker = find_goal_marker(self.model)
        self.shown.append((self.data.qpos.copy(), self.data.mocap_pos[marker].copy()))

    def close(self) -> None:
        self.open = False


@pytest.fixture
def window(monkeypatch) -> list[Window]:
    """The windows that were opened."""
    opened: list[Window] = []

    def launch(model, data, **_):
        opened.append(Window(model, data))
        return opened[-1]

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(mujoco.viewer, "launch_passive", launch)
    return opened


def test_real_time_keeps_control_period_and_counts_missed_steps() -> None:
    task, clock = get_task("reacher"), Clock()
    busy, begun = [0.001, 0.001, 0.05, 0.001, 0.001], []
    pace = RealTime(task, clock=clock, sleep=clock.sleep)
    for seconds in busy:
        begun.append(clock.now)
        clock.now += seconds
        pace(Twin(task), np.zeros(2))
    assert pace.missed == 1
    np.testing.assert_allclose(np.diff(begun), [0.001, 0.02, 0.05, 0.02], atol=1e-9)


def test_viewer_shows_played_episodes(export_folder, window) -> None:
    task = get_task("reacher")
    act = open_policy(export_folder / "policy.onnx").act
    with viewer(task) as show:
        recording = play_in_c(task, act, 2, 0, watch=show)
    assert not window[0].open
    qpos, goals = zip(*window[0].shown, strict=True)
    assert len(qpos) == 2 * task.episode_steps
    np.testing.assert_array_equal(qpos[: task.episode_steps - 1], recording.qpos[1:, 0])
    np.testing.assert_allclose(goals[-1], task.goal_position(recording.goal[-1, 1]))
    assert window[0].model.nq == build_scene(task).nq
    alone = play_in_c(task, act, 2, 0)
    np.testing.assert_allclose(recording.distance, alone.distance, atol=1e-5)


def test_viewer_refuses_closed_window_and_missing_display(
    export_folder, window, monkeypatch
) -> None:
    task = get_task("reacher")
    with viewer(task) as show:
        window[0].close()
        with pytest.raises(InputError, match="the viewer was closed"):
            show(Twin(task), np.zeros(2))
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    refused = run("play", export_folder / "policy.onnx", "--viewer")
    assert_refused(refused, "there is no display for a viewer; write an animation with --video")


def test_play_command_counts_missed_steps_in_real_time(export_folder) -> None:
    played = run_json("play", export_folder / "policy.onnx", "--episodes", 1, "--real-time")
    assert isinstance(played["missed"], int)
    assert "missed" not in run_json("play", export_folder / "policy.onnx", "--episodes", 1)
