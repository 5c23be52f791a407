"""What a robot runs: an exported policy or critic, with numpy and ONNX Runtime alone.

This file imports nothing else of the project; copying it to the robot is enough.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

PREFIX = "crl_distill."  # of our keys among an ONNX file's metadata
FORMAT_VERSION = 4  # the newest that this file reads


class _Network:
    """One ONNX file of ours, on one thread of the CPU.

    Attributes:
        metadata: what the file says of itself: task, fields of every input and output, control period,
            lineage.
    """

    role: str
    inputs: tuple[str, ...]
    output: str

    def __init__(self, path: str | Path) -> None:
        """Opens an exported file.

        Args:
            path: of the `.onnx` file.

        Raises:
            ValueError: it is not an ONNX file, or not one that crl-distill exported for this use.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"{path} is not a model that ONNX Runtime can load ({reason})"
            ) from None
        self.metadata = read_metadata(self._session.get_modelmeta().custom_metadata_map, str(path))
        found = self.metadata.get("role")
        if found != self.role:
            raise ValueError(
                f"{path} is a {found}, not a {self.role}; give the {self.role}.onnx beside it"
            )

    def _run(self, *arrays: Any) -> np.ndarray:
        feeds = {
            name: np.asarray(array, np.float32)
            for name, array in zip(self.inputs, arrays, strict=True)
        }
        single = next(iter(feeds.values())).ndim == 1
        if single:
            feeds = {name: array[None] for name, array in feeds.items()}
        result = np.asarray(self._session.run([self.output], feeds)[0])
        return np.asarray(result[0]) if single else result


class Policy(_Network):
    """An exported policy: `Policy("policy.onnx")(observation, goal)`."""

    role = "policy"
    inputs = ("observation", "goal")
    output = "action"

    def __call__(self, observation: Any, goal: Any) -> np.ndarray:
        """The action in [-1, 1].

        Args:
            observation: `[obs]` or `[batch, obs]`, in the units of the metadata.
            goal: `[goal]` or `[batch, goal]`.

        Returns:
            `[act]` or `[batch, act]`, float32. The metadata gives the physical value of -1 and 1.
        """
        return self._run(observation, goal)


class Critic(_Network):
    """An exported critic: `Critic("critic.onnx")(observation, goal, action)`."""

    role = "critic"
    inputs = ("observation", "goal", "action")
    output = "value"

    def __call__(self, observation: Any, goal: Any, action: Any) -> np.ndarray:
        """The value f(s, a, g), at most 0: the nearer to 0, the sooner the goal can be reached.

        Args:
            observation: `[obs]` or `[batch, obs]`, in the units of the metadata.
            goal: `[goal]` or `[batch, goal]`.
            action: `[act]` or `[batch, act]`, in [-1, 1].

        Returns:
            a scalar array or `[batch]`, float32.
        """
        return self._run(observation, goal, action)


def read_metadata(properties: dict[str, str], source: str) -> dict[str, Any]:
    """Our part of an ONNX file's metadata, decoded.

    Raises:
        ValueError: there is none, it is not JSON, or of a newer format.
    """
    ours = {
        key.removeprefix(PREFIX): value
        for key, value in properties.items()
        if key.startswith(PREFIX)
    }
    if not ours:
        raise ValueError(
            f"{source} is an ONNX file, but crl-distill did not export it (it has no {PREFIX}* metadata)"
        )
    try:
        metadata = {key: json.loads(value) for key, value in ours.items()}
    except json.JSONDecodeError:
        raise ValueError(f"{source} has damaged metadata; export it again") from None
    version = metadata.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ValueError(
            f"{source} has format version {version}, newer than this runtime.py reads ({FORMAT_VERSION}); "
            "take the runtime.py of the crl-distill that exported it"
        )
    return metadata
