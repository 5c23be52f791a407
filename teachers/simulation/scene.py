"""A task's model as pictures show it: with its goal, a sky, a light and a floor of squares."""

import math
from typing import NamedTuple

import mujoco
import numpy as np
from jaxtyping import Float, UInt8

from teachers.tasks.base import Task

GOAL_COLOUR = (0.2, 0.7, 0.35, 0.4)
# The names of what pictures add start with `picture_`, so that they differ from a task's names.
GOAL_MARKER = "picture_goal"

Frame = UInt8[np.ndarray, "height width 3"]
Frames = UInt8[np.ndarray, "frame height width 3"]


class Pose(NamedTuple):
    """What one picture shows: joint positions, and the goal's position in the world (m)."""

    qpos: Float[np.ndarray, "nq"]
    goal: tuple[float, float, float]


def build_scene(task: Task) -> mujoco.MjModel:
    """Returns the task's model as pictures show it.

    It has a marker of the success radius at the goal, a sky, a light from above, and squares on the floor whose edge
    is 1 m, or 10 cm where the camera is near.
    """
    spec = task.build()
    spec.add_texture(
        name="picture_sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.9, 0.93, 0.97],
        rgb2=[0.97, 0.97, 0.98],
        width=64,
        height=64,
    )
    _add_squares(spec, edge=10.0 ** round(math.log10(task.camera.distance / 10)))
    spec.visual.headlight.ambient = [0.5, 0.5, 0.5]
    spec.visual.headlight.diffuse = [0.2, 0.2, 0.2]
    spec.visual.headlight.specular = [0, 0, 0]
    if not spec.lights:
        spec.worldbody.add_light(
            name="picture_light",
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            pos=[0, 0, 10],
            dir=[-0.35, 0.25, -1],
            diffuse=[0.45, 0.45, 0.45],
            specular=[0.1, 0.1, 0.1],
            castshadow=False,  # without a GPU, shadows triple the time of a picture
        )
    marker = spec.worldbody.add_body(name=GOAL_MARKER, mocap=True)
    marker.add_geom(
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        size=[task.success_radius, 0, 0],
        rgba=list(GOAL_COLOUR),
        contype=0,
        conaffinity=0,
    )
    return spec.compile()


def _add_squares(spec: mujoco.MjSpec, edge: float) -> None:
    """Adds faint squares of `edge` metres to the visible planes that have no material."""
    name = "picture_squares"
    spec.add_texture(
        name=name,
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[1.0, 1.0, 1.0],
        rgb2=[0.93, 0.93, 0.93],
        width=512,
        height=512,
    )
    # The texture has two squares in each direction, and `texrepeat` counts per two metres. The geom's colour tints it.
    material = spec.add_material(name=name, texuniform=True, texrepeat=[1 / edge, 1 / edge])
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    for geom in spec.geoms:
        if geom.type == mujoco.mjtGeom.mjGEOM_PLANE and geom.rgba[3] > 0 and not geom.material:
            geom.material = name


def find_goal_marker(model: mujoco.MjModel) -> int:
    """Returns the goal's index among the mocap bodies, which are moved by hand."""
    return int(model.body(GOAL_MARKER).mocapid[0])
