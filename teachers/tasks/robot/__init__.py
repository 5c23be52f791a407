"""Tasks of robots that are given as a MuJoCo model: `RobotTask` and the parts that it is made of."""

from teachers.tasks.robot.actions import mocap_steps, motor_commands, position_targets
from teachers.tasks.robot.ends import height_outside, tilted_beyond
from teachers.tasks.robot.files import package_file
from teachers.tasks.robot.goals import box, reachable, ring
from teachers.tasks.robot.parts import (
    base,
    body,
    gravity_in,
    joint_angles,
    joint_velocities,
    last_control,
    pose,
    site,
)
from teachers.tasks.robot.task import RobotTask

__all__ = [
    "RobotTask",
    "base",
    "body",
    "box",
    "gravity_in",
    "height_outside",
    "joint_angles",
    "joint_velocities",
    "last_control",
    "mocap_steps",
    "motor_commands",
    "package_file",
    "pose",
    "position_targets",
    "reachable",
    "ring",
    "site",
    "tilted_beyond",
]
