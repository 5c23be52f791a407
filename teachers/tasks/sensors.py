"""What a robot measures: sensors with noise, bias, steps, delay, lost readings and a rate, as functions of their state.

A student may read sensors in place of the observation, which its teacher reads.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from teachers.runs.errors import InputError
from teachers.tasks.declaration import Sensor, namespace


class SensorErrors(NamedTuple):
    """How each number of a measurement errs: the attributes of its sensor."""

    noise: Float[np.ndarray, "sens"]
    bias: Float[np.ndarray, "sens"]
    resolution: Float[np.ndarray, "sens"]
    delay: Int[np.ndarray, "sens"]
    every: Int[np.ndarray, "sens"]
    dropout: Float[np.ndarray, "sensors"]  # of each sensor, whose numbers are lost together
    sensor: Int[np.ndarray, "sens"]  # to which a number belongs


class Sensed(NamedTuple):
    """The state of the sensors of one environment; arrays are JAX's or NumPy's."""

    measured: Float[Any, "*batch sens"]  # what there is to measure now
    reading: Float[Any, "*batch sens"]  # what the robot has last read
    bias: Float[Any, "*batch sens"]  # of this episode
    before: Float[
        Any, "*batch delay sens"
    ]  # measured in the control steps before, the newest first


def sensor_errors(sensors: tuple[Sensor, ...]) -> SensorErrors:
    """Returns how each number of a measurement errs."""

    def spread(name: str, kind: type) -> np.ndarray:
        return np.concatenate([np.full(s.size, getattr(s, name), kind) for s in sensors])

    return SensorErrors(
        noise=spread("noise", np.float32),
        bias=spread("bias", np.float32),
        resolution=spread("resolution", np.float32),
        delay=spread("delay", np.int32),
        every=spread("every", np.int32),
        dropout=np.array([sensor.dropout for sensor in sensors], np.float32),
        sensor=np.repeat(np.arange(len(sensors)), [sensor.size for sensor in sensors]),
    )


class Draws(NamedTuple):
    """The random numbers of a control step."""

    bias: Float[Any, "sens"]  # normal
    noise: Float[Any, "sens"]  # normal
    loss: Float[Any, "sensors"]  # uniform in [0, 1)


def unread(errors: SensorErrors, measured: Float[Any, "sens"]) -> Sensed:
    """Returns sensors at the start of an episode, before they are read for the first time; arrays are JAX's or NumPy's."""
    xp = namespace(measured)
    longest = int(errors.delay.max(initial=1))  # checkpoints hold no empty arrays
    before = xp.broadcast_to(measured, (longest, *measured.shape))
    return Sensed(measured, measured, xp.zeros_like(measured), before)


def read_sensors(
    errors: SensorErrors, sensed: Sensed, step: Int[Array, ""], key: Key[Array, ""]
) -> Sensed:
    """Returns the sensors after they were read in a control step.

    In the first one of an episode, all of them read what would have been measured if the robot had stood there for long.

    Args:
        errors: of the sensors.
        sensed: their state, with what there is to measure now.
        step: of the episode; sensors with a rate of their own read in each `every`-th.
        key: of bias, noise and lost readings.
    """
    bias_key, noise_key, loss_key = jax.random.split(key, 3)
    shape = sensed.measured.shape
    draws = Draws(
        bias=jax.random.normal(bias_key, shape),
        noise=jax.random.normal(noise_key, shape),
        loss=jax.random.uniform(loss_key, errors.dropout.shape),
    )
    return read_with_draws(errors, sensed, step, draws)


def read_sensors_in_c(
    errors: SensorErrors, sensed: Sensed, step: int, random: np.random.Generator
) -> Sensed:
    """Returns what `read_sensors` does, for arrays of NumPy and its random numbers."""
    size = len(errors.delay)
    draws = Draws(
        bias=random.standard_normal(size, np.float32),
        noise=random.standard_normal(size, np.float32),
        loss=random.random(len(errors.dropout), np.float32),
    )
    return read_with_draws(errors, sensed, step, draws)


def read_with_draws(errors: SensorErrors, sensed: Sensed, step: Any, draws: Draws) -> Sensed:
    """Returns the sensors after they were read in a control step, with these random numbers; see `read_sensors`."""
    xp = namespace(sensed.measured)
    is_first = xp.asarray(step == 0)
    bias = xp.where(is_first, errors.bias * draws.bias, sensed.bias)
    recent = xp.concatenate([sensed.measured[None], sensed.before])
    value = recent[errors.delay, np.arange(len(errors.delay))] + bias
    value = value + errors.noise * draws.noise
    has_steps = errors.resolution > 0
    unit = np.where(has_steps, errors.resolution, np.float32(1.0))
    value = xp.where(has_steps, xp.round(value / unit) * unit, value)
    is_lost = draws.loss < errors.dropout
    is_read = (step % errors.every == 0) & ~is_lost[errors.sensor]
    reading = xp.where(is_first | is_read, value, sensed.reading)
    return Sensed(sensed.measured, reading, bias, recent[: len(sensed.before)])


def require_sensors(task_name: str, sensors: Any) -> None:
    """Raises an error if a task's sensors are not declared as they have to be.

    Raises:
        InputError: they are not; the message names the sensor, the value and the remedy.
    """
    if not isinstance(sensors, tuple) or not all(isinstance(part, Sensor) for part in sensors):
        raise InputError(
            f"task {task_name}: sensors is not a tuple of Sensor; write sensors = (Sensor(...),)"
        )
    for sensor in sensors:
        for name, is_right, remedy in (
            ("noise", sensor.noise >= 0, "a standard deviation of 0 or more"),
            ("bias", sensor.bias >= 0, "a standard deviation of 0 or more"),
            ("resolution", sensor.resolution >= 0, "a step of 0 or more"),
            (
                "delay",
                isinstance(sensor.delay, int) and sensor.delay >= 0,
                "control steps, 0 or more",
            ),
            (
                "every",
                isinstance(sensor.every, int) and sensor.every >= 1,
                "control steps, 1 or more",
            ),
            ("dropout", 0 <= sensor.dropout < 1, "a share of 0 or more, below 1"),
        ):
            if not is_right:
                raise InputError(
                    f"task {task_name}: sensor {sensor.name!r} has {name} = {getattr(sensor, name)}; it is {remedy}"
                )
