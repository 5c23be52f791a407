"""Draws pictures with MuJoCo's renderer, in a process of its own."""

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import mujoco
import numpy as np

from teachers.simulation.scene import Frame, Pose, find_goal_marker
from teachers.tasks.declaration import Camera

GL_WORKER = Path(__file__).with_name("gl_worker.py")
GL_TIMEOUT = 30.0  # seconds for one picture


class GlError(Exception):
    """The GL library cannot draw on this machine."""


class GlRenderer:
    """MuJoCo's renderer for one model.

    It runs in a process of its own, because a GL driver may abort its process, and because MuJoCo chooses the GL library
    once, when it is imported.
    """

    def __init__(self, model: mujoco.MjModel, camera: Camera, size: int, backend: str) -> None:
        """Starts the process.

        Args:
            model: as `build_scene` returns it.
            camera: from which pictures are taken.
            size: of a picture's edge, in pixels.
            backend: the GL library: `egl` or `osmesa`.

        Raises:
            GlError: the library cannot draw on this machine.
        """
        content = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
        mujoco.mj_saveModel(model, None, content)
        request = {
            **camera._asdict(),
            "size": size,
            "model_bytes": content.size,
            "goal": find_goal_marker(model),
        }
        self._shape = (size, size, 3)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(GL_WORKER), json.dumps(request)],
                env={**os.environ, "MUJOCO_GL": backend},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise GlError from error
        self.close = weakref.finalize(self, _end_process, self._process)
        try:
            self._exchange(content.tobytes(), 1)
        except GlError:
            self.close()
            raise

    def draw(self, pose: Pose) -> Frame:
        """Returns a picture.

        Raises:
            GlError: the process ended, or took longer than `GL_TIMEOUT`.
        """
        numbers = np.concatenate([pose.qpos, pose.goal]).astype(np.float64)
        answer = self._exchange(numbers.tobytes(), math.prod(self._shape))
        return np.frombuffer(answer, np.uint8).reshape(self._shape)

    def _exchange(self, sent: bytes, answer_bytes: int) -> bytes:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        # Ending the process ends both a write to it and a read from it that would wait for ever.
        timer = threading.Timer(GL_TIMEOUT, self._process.kill)
        timer.start()
        try:
            pipe_in.write(sent)
            pipe_in.flush()
            answer = pipe_out.read(answer_bytes)
        except OSError as error:
            raise GlError from error
        except BaseException:
            # The rest of this answer would be read as the answer to the next request.
            self._process.kill()
            raise
        finally:
            timer.cancel()
        if len(answer) < answer_bytes:
            raise GlError
        return answer


def _end_process(process: subprocess.Popen) -> None:
    process.kill()  # it has nothing to save
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # of requests that were not sent
                pipe.close()
