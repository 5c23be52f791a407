"""Plays in real time, and shows the robot in MuJoCo's viewer where there is a display."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from teachers.runs.errors import InputError, first_line
from teachers.simulation.c_twin import Twin
from teachers.simulation.play import Watch
from teachers.simulation.scene import build_scene, find_goal_marker
from teachers.tasks import Task

CLOSE_TIMEOUT = 5.0  # s for a window to close


class RealTime:
    """Waits after each control step until the next one is due on a robot.

    Attributes:
        missed: how many steps were not finished when the next one was due.
    """

    def __init__(
        self,
        task: Task,
        show: Watch | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepares to wait; the first step may begin at any time.

        Args:
            task: whose control period is used.
            show: called with each step first.
            clock: returns a time in s that never decreases.
            sleep: waits for a time in s.
        """
        self.missed = 0
        self._period, self._show = task.control_period, show
        self._clock, self._sleep = clock, sleep
        self._due: float | None = None

    def __call__(self, robot: Twin, goal: np.ndarray) -> None:
        """Waits after a step of `robot` towards `goal`."""
        if self._show is not None:
            self._show(robot, goal)
        now = self._clock()
        if self._due is None:
            self._due = now
        elif now > self._due:
            self.missed, self._due = self.missed + 1, now
        else:
            self._sleep(self._due - now)
        self._due += self._period


@contextlib.contextmanager
def viewer(task: Task) -> Iterator[Watch]:
    """Opens MuJoCo's viewer in a window, and yields a function that shows a robot and its goal in it.

    Raises:
        InputError: there is no display, or the window was closed.
    """
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        raise InputError("there is no display for a viewer; write an animation with --video")
    import mujoco.viewer

    model = build_scene(task)
    data = mujoco.MjData(model)
    marker = find_goal_marker(model)
    threads_before = set(threading.enumerate())
    try:
        window: Any = mujoco.viewer.launch_passive(
            model, data, show_left_ui=False, show_right_ui=False
        )
    except Exception as error:  # from GLFW, or from macOS without mjpython
        reason = first_line(error)
        raise InputError(
            f"the viewer cannot be opened ({reason}); write an animation with --video"
        ) from None
    window.cam.lookat[:] = task.camera.lookat
    for name in ("distance", "azimuth", "elevation"):
        setattr(window.cam, name, getattr(task.camera, name))

    def show(robot: Twin, goal: np.ndarray) -> None:
        if not window.is_running():
            raise InputError("the viewer was closed before the last episode; nothing was measured")
        with window.lock():
            data.qpos[:], data.mocap_pos[marker] = robot.qpos, task.goal_position(goal)
            mujoco.mj_forward(model, data)
        window.sync()

    try:
        yield show
    finally:
        window.close()
        for thread in set(threading.enumerate()) - threads_before:
            thread.join(CLOSE_TIMEOUT)  # a thread that is still running crashes when Python ends
