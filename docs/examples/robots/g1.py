"""A Unitree G1 that stands and brings its right hand to a place. The model is that of the package mjlab."""

import mujoco
import numpy as np

from teachers.tasks import REACHING
from teachers.tasks.robot import (
    RobotTask,
    base,
    box,
    joint_angles,
    joint_velocities,
    package_file,
    position_targets,
    site,
)

# Stiffness (N m/rad) and largest torque (N m) of the joints whose names contain the word, the first that fits.
SERVOS = {
    "hip": (150.0, 88.0),
    "knee": (200.0, 139.0),
    "ankle": (200.0, 50.0),
    "waist": (150.0, 88.0),
    "shoulder": (40.0, 25.0),
    "elbow": (40.0, 25.0),
    "wrist": (20.0, 5.0),
}
ARMATURE = 0.01  # kg m²
ARM = [f"right_{joint}_joint" for joint in (
    "shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw",
)]  # fmt: skip
WAIST = [f"waist_{axis}_joint" for axis in ("yaw", "roll", "pitch")]
BENT = {"hip_pitch": -0.2, "knee": 0.4, "ankle_pitch": -0.2, "elbow": 0.6}  # rad


class G1Reach(RobotTask):
    """Waist and arm move; stiff legs keep it standing."""

    name = "g1_reach"
    summary = "A G1 stands and brings its right hand to a place."
    robot = package_file("mjlab", "asset_zoo/robots/unitree_g1/xmls/g1.xml")
    rest = "bent"
    observes = (base("pelvis"), joint_angles(), joint_velocities(scale=5.0))
    acts = position_targets(*WAIST, *ARM, scale=0.5)
    brings = site("right_palm", scale=0.3)
    goals = box((0.0, 0.0, 0.0), (0.15, 0.15, 0.15), from_start=True)
    substeps = 10
    episode_steps = 150
    success_radius = 0.05
    start_noise = 0.02
    training = REACHING

    def change(self, spec: mujoco.MjSpec) -> None:
        """Adds a floor, the joints' servos, and a keyframe in which the robot stands with bent knees."""
        spec.worldbody.add_geom(
            name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3, 3, 1], rgba=[0.9, 0.9, 0.9, 1]
        )
        qpos = [0.0, 0.0, 0.78, 1.0, 0.0, 0.0, 0.0]
        for joint in spec.joints[1:]:
            stiffness, torque = next(v for word, v in SERVOS.items() if word in joint.name)
            joint.armature = ARMATURE
            servo = spec.add_actuator(name=joint.name, target=joint.name)
            servo.trntype = mujoco.mjtTrn.mjTRN_JOINT
            servo.set_to_position(kp=stiffness, kv=2 * np.sqrt(stiffness * ARMATURE))
            servo.ctrlrange, servo.forcerange = joint.range, [-torque, torque]
            qpos.append(next((angle for word, angle in BENT.items() if word in joint.name), 0.0))
        spec.add_key(name="bent", qpos=qpos)
