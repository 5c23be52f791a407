"""A student's C source, compiled on this machine and called from Python, to compare it with other engines."""

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from export.c_source import export_c
from students.artefact import Student
from teachers.runs.errors import InputError

FLAGS = ("-std=c99", "-O2", "-shared", "-fPIC")


def find_compiler() -> str | None:
    """Returns the path of this machine's C compiler; None if there is none."""
    return shutil.which("cc")


class CPolicy:
    """The policy of a student's C source, as `play_in_c` takes it: each row of a batch has a state of its own."""

    def __init__(self, student: Student) -> None:
        """Writes the source, compiles it and loads it.

        Raises:
            InputError: there is no compiler, or it fails.
        """
        compiler = find_compiler()
        if compiler is None:
            raise InputError("there is no C compiler; install gcc or clang")
        self._memory_size = student.networks.memory_size
        self._action_size = student.task.action_size
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "c"
            export_c(student, folder, "normalized")
            library = folder / "policy.so"
            command = [compiler, *FLAGS, "policy.c", "-o", str(library), "-lm"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = done.stderr.strip().partition("\n")[0]
                raise InputError(f"{compiler} cannot compile the policy's C source ({reason})")
            self._library = ctypes.CDLL(str(library))
        array = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
        arguments = [array] * (4 if self._memory_size else 3)
        self._library.policy_act.argtypes, self._library.policy_act.restype = arguments, None
        self.reset()

    def reset(self) -> None:
        """Forgets what was read, before the first step of new episodes."""
        self._states: np.ndarray | None = None

    def __call__(self, read: np.ndarray, goal: np.ndarray) -> Float[np.ndarray, "env act"]:
        """Returns the action in [-1, 1]."""
        if self._states is None:
            self._states = np.zeros((len(read), self._memory_size), np.float32)
        actions = np.zeros((len(read), self._action_size), np.float32)
        rows = (np.ascontiguousarray(array, np.float32) for array in (read, goal))
        for state, *row in zip(self._states, *rows, actions, strict=True):
            self._library.policy_act(*([state] if self._memory_size else []), *row)
        return actions
