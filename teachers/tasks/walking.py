"""What the tasks of walking robots have in common. Their first joint is free, and belongs to the torso."""

from typing import Any

from teachers.tasks.declaration import Sensor, namespace

INERTIAL_SENSORS = (
    Sensor("gyro", 3, "rad/s", "angular velocity in the torso's frame", 3.0, noise=0.05, bias=0.02),
    Sensor("gravity", 3, "1", "direction of gravity in the torso's frame", noise=0.02),
)
GOAL_FROM_TORSO = Sensor(
    "goal", 3, "m", "from the torso to the goal, in its frame", 3.0, noise=0.05, is_goal=True
)


def is_outside(height: Any, limits: tuple[float, float]) -> Any:
    """Returns whether a height `[*batch]` is below the lower or above the upper limit (m)."""
    return (height < limits[0]) | (height > limits[1])


def turn_into_torso(data: Any, vector: Any) -> Any:
    """Returns a vector `[3]`, given in the world, in the torso's frame."""
    xp = namespace(data.qpos)
    w, axis = data.qpos[3], -data.qpos[4:7]  # of the inverse rotation
    twice = 2.0 * xp.cross(axis, vector)
    return vector + w * twice + xp.cross(axis, twice)


def measure_inertial(data: Any) -> tuple[Any, Any]:
    """Returns what `INERTIAL_SENSORS` measure: angular velocity (rad/s), and direction of gravity, `[3]` each."""
    down = namespace(data.qpos).asarray([0.0, 0.0, -1.0], dtype=data.qpos.dtype)
    return data.qvel[3:6], turn_into_torso(data, down)
