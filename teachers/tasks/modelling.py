"""Parts that the models of several tasks have in common."""

import mujoco

BODY_COLOUR = [0.25, 0.42, 0.68, 1]
LIMB_COLOUR = [0.38, 0.55, 0.78, 1]
FLOOR_COLOUR = [0.86, 0.87, 0.88, 1]
WALL_COLOUR = [0.55, 0.57, 0.6, 1]
MOVABLE_COLOUR = [0.85, 0.55, 0.25, 1]
# Of geoms that touch only what a contact pair names.
PAIRS_ONLY = {"contype": 0, "conaffinity": 0}


def add_motor(spec: mujoco.MjSpec, joint: str, limit: float) -> None:
    """Adds a motor of the joint's name whose control is its torque (N m) or force (N) within +-`limit`."""
    motor = spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        ctrlrange=[-limit, limit],
    )
    motor.set_to_motor()


def add_floor(
    spec: mujoco.MjSpec, half_width: float, half_depth: float | None = None, name: str = "floor"
) -> None:
    """Adds a horizontal plane at z = 0.

    Args:
        spec: the model.
        half_width: of the part that pictures show, along x (m).
        half_depth: of that part, along y (m); by default as along x.
        name: of the geom.
    """
    spec.worldbody.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[half_width, half_width if half_depth is None else half_depth, 1],
        rgba=FLOOR_COLOUR,
        **PAIRS_ONLY,
    )
