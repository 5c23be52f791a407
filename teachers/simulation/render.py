"""Draws pictures of a task with its goal: with MuJoCo's renderer, or with matplotlib where there is no GL library."""

from typing import Protocol

import numpy as np

from teachers.simulation.gl_renderer import GlError, GlRenderer
from teachers.simulation.outline_renderer import OutlineRenderer
from teachers.simulation.scene import Frame, Frames, Pose, build_scene
from teachers.tasks.base import Task

GL_BACKENDS = ("egl", "osmesa")


class _Drawer(Protocol):
    """Draws pictures of one model."""

    def draw(self, pose: Pose) -> Frame: ...

    def close(self) -> None: ...


class Renderer:
    """Draws square pictures of one task; close it, or use it in a `with` statement.

    Attributes:
        backend: what draws: `egl`, `osmesa`, or `matplotlib` where neither of these works. It changes if the GL
            library fails later.
    """

    backend: str

    def __init__(self, task: Task, size: int = 320) -> None:
        """Starts the first backend that can draw `task`, in pictures of `size` pixels."""
        self._model, self._camera, self._size = build_scene(task), task.camera, size
        self._closed = False
        self._open(GL_BACKENDS)

    def draw(self, poses: list[Pose]) -> Frames:
        """Returns one picture for each pose, all drawn by `backend`."""
        if self._closed:
            raise ValueError("this renderer is closed; make another")
        while True:
            try:
                return np.stack([self._drawer.draw(pose) for pose in poses])
            except GlError:
                self._drawer.close()
                self._open(GL_BACKENDS[GL_BACKENDS.index(self.backend) + 1 :])

    def close(self) -> None:
        """Ends the process that draws. Closing twice does nothing."""
        self._closed = True
        self._drawer.close()

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, backends: tuple[str, ...]) -> None:
        self._drawer: _Drawer
        for backend in backends:
            try:
                self._drawer = GlRenderer(self._model, self._camera, self._size, backend)
            except GlError:
                continue
            self.backend = backend
            return
        self._drawer = OutlineRenderer(self._model, self._camera, self._size)
        self.backend = "matplotlib"


def render(task: Task, poses: list[Pose], size: int = 320) -> tuple[Frames, str]:
    """Draws one square picture of `size` pixels for each pose.

    Returns:
        The pictures, and what drew them: `egl`, `osmesa` or `matplotlib`.
    """
    with Renderer(task, size) as renderer:
        frames = renderer.draw(poses)
        return frames, renderer.backend
