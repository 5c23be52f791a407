"""Plays at the robot's own pace, and shows it in MuJoCo's viewer where there is a display."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from teachers.runs.errors import InputError
from teachers.simulation.c_twin import Twin
from teachers.simulation.play import Watch
from teachers.simulation.render import goal_marker, scene
from teachers.tasks import Task

CLOSING = 5.0  # s that a window may take to close


class RealTime:
    """Waits, after each control step, until a robot would do the next.

    Attributes:
        missed: how many steps were not done when the next was due.
    """

    def __init__(
        self,
        task: Task,
        show: Watch | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepares to wait; the first step begins when it likes.

        Args:
            task: whose control period is kept.
            show: what to do with every step first.
            clock: gives s that only grow.
            sleep: waits so many s.
        """
        self.missed = 0
        self._period, self._show = task.control_period, show
        self._clock, self._sleep = clock, sleep
        self._due: float | None = None

    def __call__(self, robot: Twin, goal: np.ndarray) -> None:
        """To be called after each step of `robot` towards `goal`."""
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
    """MuJoCo's viewer in a window of its own: gives a function that shows a robot and its goal in it.

    Raises:
        InputError: there is no display, or the window was closed.
    """
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        raise InputError("there is no display for a viewer; write an animation with --video")
    import mujoco.viewer

    model = scene(task)
    data = mujoco.MjData(model)
    marker = goal_marker(model)
    before = set(threading.enumerate())
    try:
        window: Any = mujoco.viewer.launch_passive(
            model, data, show_left_ui=False, show_right_ui=False
        )
    except Exception as error:  # of GLFW, of macOS without mjpython
        reason = str(error).strip().splitlines()[0]
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
        for thread in set(threading.enumerate()) - before:
            thread.join(CLOSING)  # left alone it crashes when Python ends
