"""Draws outlines of a model's geoms with matplotlib, where no GL library works."""

import mujoco
import numpy as np
from scipy.spatial import ConvexHull

from teachers.simulation.scene import Frame, Pose, find_goal_marker
from teachers.tasks.declaration import Camera


class OutlineRenderer:
    """Draws orthographic outlines of the geoms of one model, the nearest last."""

    def __init__(self, model: mujoco.MjModel, camera: Camera, size: int) -> None:
        """Prepares a figure.

        Args:
            model: as `build_scene` returns it.
            camera: from which pictures are taken.
            size: of a picture's edge, in pixels.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(size / 100, size / 100), dpi=100, facecolor="#f5f5f7")
        self._canvas = FigureCanvasAgg(figure)
        self._axes = figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        half = camera.distance * np.tan(np.radians(model.vis.global_.fovy / 2))
        self._axes.set(xlim=(-half, half), ylim=(-half, half))
        self._model, self._camera = model, camera
        self._data, self._goal = mujoco.MjData(model), find_goal_marker(model)
        self._shapes = [_hull_points(model, geom) for geom in range(model.ngeom)]

    def draw(self, pose: Pose) -> Frame:
        """Returns a picture."""
        from matplotlib.collections import PolyCollection

        right, up, forward = _view_axes(self._camera)
        data = self._data
        data.qpos[:], data.mocap_pos[self._goal] = pose.qpos, pose.goal
        mujoco.mj_kinematics(self._model, data)
        drawn = []
        for geom, local in enumerate(self._shapes):
            if local is None:
                continue
            world = local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
            world = world - np.array(self._camera.lookat)
            flat = np.stack([world @ right, world @ up], axis=-1)
            outline = flat[ConvexHull(flat).vertices]
            drawn.append(((world @ forward).mean(), outline, self._model.geom_rgba[geom]))
        drawn.sort(key=lambda item: -item[0])
        collection = PolyCollection(
            [outline for _, outline, _ in drawn],
            facecolors=[colour for *_, colour in drawn],
            edgecolors="none",
        )
        self._axes.add_collection(collection)
        self._canvas.draw()
        frame = np.asarray(self._canvas.buffer_rgba())[..., :3].copy()
        collection.remove()
        return frame

    def close(self) -> None:
        """Does nothing: there is no process to end."""


def _view_axes(camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the unit vectors to the right, up and forward of the camera in the world."""
    azimuth, elevation = np.radians(camera.azimuth), np.radians(camera.elevation)
    forward = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    return right, np.cross(right, forward), forward


def _hull_points(model: mujoco.MjModel, geom: int) -> np.ndarray | None:
    """Returns points `[n, 3]` in the geom's frame whose convex hull is the geom, or None if it is not drawn."""
    kind, size = model.geom_type[geom], model.geom_size[geom]
    kinds = mujoco.mjtGeom
    if kind == kinds.mjGEOM_PLANE or model.geom_rgba[geom, 3] == 0:
        return None
    if kind == kinds.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first = model.mesh_vertadr[mesh]
        return model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
    ends = np.array([[0, 0, -1.0], [0, 0, 1.0]])
    if kind == kinds.mjGEOM_BOX:
        corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
        return corners * size
    if kind == kinds.mjGEOM_CYLINDER:
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        rim = size[0] * np.stack([np.cos(angle), np.sin(angle), np.zeros(24)], axis=-1)
        return (rim + size[1] * ends[:, None]).reshape(-1, 3)
    if kind == kinds.mjGEOM_CAPSULE:
        return (size[0] * _sphere_points() + size[1] * ends[:, None]).reshape(-1, 3)
    if kind == kinds.mjGEOM_SPHERE:
        return size[0] * _sphere_points()
    if kind == kinds.mjGEOM_ELLIPSOID:
        return size * _sphere_points()
    return None


def _sphere_points() -> np.ndarray:
    """Returns points that are spread evenly over the unit sphere, `[120, 3]`: a Fibonacci lattice."""
    count = 120
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (1 + 5**0.5) * np.arange(count)
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=-1)
