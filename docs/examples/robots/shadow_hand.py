"""A Shadow hand that brings its forefinger to a place. The model is that of the package gymnasium-robotics."""

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


class ShadowHandReach(RobotTask):
    """The tip of the forefinger is the goal's place."""

    name = "shadow_hand_reach"
    summary = "A Shadow hand brings the tip of its forefinger to a place."
    robot = package_file("gymnasium_robotics", "envs/assets/hand/reach.xml")
    observes = (joint_angles(), joint_velocities(scale=2.0))
    acts = position_targets(scale=1.0)
    brings = site("robot0:S_fftip", scale=0.05)
    goals = reachable(0.8)
    substeps = 20
    episode_steps = 100
    success_radius = 0.01
    training = REACHING
