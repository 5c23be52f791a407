"""What a task's declaration consists of: fields, sensors, camera and goal sets, and the state of one environment."""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

GoalSet = Literal["train", "eval"]


class Field(NamedTuple):
    """One named slice of an observation, goal or action.

    `scale` is its usual magnitude in `unit`: networks read the field divided by it, because their input layer's
    LayerNorm would otherwise hide a small field beside a large one. `low` and `high` are physical limits; for an action
    they are what -1 and 1 stand for. A field of four numbers that is declared as a `quaternion` is one of unit length.
    """

    name: str
    size: int
    unit: str
    meaning: str
    scale: float = 1.0
    low: float | None = None
    high: float | None = None
    quaternion: bool = (
        False  # a unit quaternion whose sign does not matter: networks read its rotation matrix
    )


class Sensor(NamedTuple):
    """One named slice of what a robot measures; the first attributes are those of a `Field`.

    A reading is the measured value, late by `delay`, plus the episode's bias and the reading's noise, rounded to
    `resolution`. Between two readings, and where one is lost, the last one stays.
    """

    name: str
    size: int
    unit: str
    meaning: str
    scale: float = 1.0
    low: float | None = None
    high: float | None = None
    quaternion: bool = False
    noise: float = 0.0  # standard deviation, in `unit`
    bias: float = 0.0  # standard deviation between episodes, in `unit`
    resolution: float = 0.0  # smallest step, in `unit`; 0: none
    delay: int = 0  # control steps
    dropout: float = 0.0  # share of the readings that are lost
    every: int = 1  # control steps from one reading to the next
    # Whether it is the goal as the robot knows it, such as seen from its torso: what reads sensors reads it as the goal.
    is_goal: bool = False
    privileged: bool = False  # something that a robot cannot measure, such as a friction


class Camera(NamedTuple):
    """Where pictures are taken from, in MuJoCo's free-camera terms (metres and degrees)."""

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float = 90.0
    elevation: float = -90.0


class Physics(NamedTuple):
    """All that MuJoCo integrates; everything else in `mjx.Data` is derived from it.

    Carrying this alone keeps states small and checkpoints independent of MJX's internal layout.
    """

    qpos: Float[Array, "*batch nq"]
    qvel: Float[Array, "*batch nv"]
    warmstart: Float[Array, "*batch nv"]
    # The time (s), activations of actuators, and what delays and plugins keep; None where a model has none of them.
    internal: Float[Array, "*batch internal"] | None = None
    # Position (m) and orientation (quaternion) of each mocap body; None where a model has none.
    mocap: Float[Array, "*batch nmocap 7"] | None = None
    # What MuJoCo's sensors measure; None where nobody reads them.
    sensordata: Float[Array, "*batch nsensordata"] | None = None


class State(NamedTuple):
    """One environment between two control steps."""

    physics: Physics
    observation: Float[Array, "*batch obs"]
    goal: Float[Array, "*batch goal"]
    steps: Int[Array, "*batch"]  # control steps taken in this episode
    terminated: Bool[Array, "*batch"]
    disturbed: Any = ()  # `Disturbed` where the episode is disturbed
    sensed: Any = ()  # `Sensed` where a task's sensors are simulated


def namespace(array: Any) -> Any:
    """Returns the module whose functions take `array`: `jax.numpy` or `numpy`."""
    return array.__array_namespace__()


def slices(fields: tuple[Field | Sensor, ...]) -> dict[str, slice]:
    """Returns each field's place in the flat array, by the field's name."""
    stops = [sum(field.size for field in fields[: i + 1]) for i in range(len(fields))]
    return {
        field.name: slice(stop - field.size, stop)
        for field, stop in zip(fields, stops, strict=True)
    }


def scales(fields: tuple[Field | Sensor, ...]) -> Float[np.ndarray, "n"]:
    """Returns the scale of each number of the flat array, float32."""
    return np.concatenate([np.full(field.size, field.scale, np.float32) for field in fields])
