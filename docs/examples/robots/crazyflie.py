"""A Crazyflie that flies to a place. The model is that of the package crazyflow."""

import mujoco

from teachers.tasks import FLYING
from teachers.tasks.robot import (
    RobotTask,
    base,
    body,
    box,
    motor_commands,
    package_file,
)

WEIGHT = 0.0328 * 9.81  # N
TURN_RATES = {"roll": 6.0, "pitch": 6.0, "yaw": 3.0}  # rad/s
TURN_GAIN = 1e-3  # N m s/rad, of the rate controller that runs on the Crazyflie


class CrazyflieReach(RobotTask):
    """Thrust and turn rates are the action, as the Crazyflie's own controller takes them."""

    name = "crazyflie_reach"
    summary = "A Crazyflie flies to a place."
    robot = package_file("crazyflow", "drones/cf2x_L250.xml")
    observes = (base("drone"),)
    acts = motor_commands()
    brings = body("drone", scale=0.5)
    scatters = {"drone": (0.3, 0.3, 0.2)}
    goals = box((0.0, 0.0, 1.0), (0.7, 0.7, 0.4))
    substeps = 10
    episode_steps = 150
    success_radius = 0.1
    training = FLYING

    def change(self, spec: mujoco.MjSpec) -> None:
        """Lets the drone fly, and gives it its thrust and its rate controller."""
        spec.delete(spec.body("drone_fused"))  # the same drone again, as one mesh
        drone = spec.body("drone")
        drone.add_freejoint(name="drone")
        drone.pos = [0, 0, 1]
        spec.worldbody.add_geom(
            name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[2, 2, 1], rgba=[0.9, 0.9, 0.9, 1]
        )
        thrust = spec.add_actuator(
            name="thrust", trntype=mujoco.mjtTrn.mjTRN_SITE, target="CoM", gear=[0, 0, 1, 0, 0, 0]
        )
        thrust.set_to_motor()
        thrust.ctrlrange = [0, 2 * WEIGHT]
        for axis, (name, rate) in enumerate(TURN_RATES.items()):
            gear = [0.0] * 6
            gear[3 + axis] = 1.0
            turn = spec.add_actuator(
                name=name, trntype=mujoco.mjtTrn.mjTRN_SITE, target="CoM", gear=gear
            )
            turn.set_to_velocity(kv=TURN_GAIN)
            turn.ctrlrange = [-rate, rate]
