"""An arm on a bench, whose goal is a pose."""

from pathlib import Path

from teachers.tasks.robot import (
    RobotTask,
    gravity_in,
    joint_angles,
    joint_velocities,
    last_control,
    pose,
    position_targets,
    reachable,
)

BENCH = Path(__file__).with_name("bench.xml")


class Reach(RobotTask):
    """The tip of the bench's arm comes to a pose."""

    name = "bench_reach"
    summary = "An arm on a bench brings its hand to a pose."
    robot = BENCH
    rest = "ready"
    observes = (joint_angles(), joint_velocities(), last_control(), gravity_in("hand"))
    acts = position_targets("shoulder_servo", "elbow_servo", scale=0.5)
    brings = pose("hand")
    goals = reachable(0.4, lowest=0.05)
    substeps = 4
    episode_steps = 50
    success_radius = 0.02
    success_angle = 0.2


class Filtered(Reach):
    """Its actuators follow late, and have a state therefore."""

    name = "bench_filtered"
    action_filter = 0.05
    action_delay = 0.02
