"""Pictures of a task with its goal, with MuJoCo's renderer where there is a GL library and matplotlib where not."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial import ConvexHull

from teachers.tasks.base import Camera, Task
from teachers.tasks.errors import InputError

GOAL_COLOUR = (0.2, 0.7, 0.35, 0.4)
GL_WORKER = Path(__file__).with_name("gl_worker.py")
GL_BACKENDS = ("egl", "osmesa")
GL_TIMEOUT = 30.0  # seconds

Frames = UInt8[np.ndarray, "frame height width 3"]


class Pose(NamedTuple):
    """One picture's content: joint positions and the goal's place in the world (m)."""

    qpos: Float[np.ndarray, "nq"]
    goal: tuple[float, float, float]


def render(task: Task, poses: list[Pose], size: int = 320) -> tuple[Frames, str]:
    """One square picture of `size` pixels for each pose.

    Returns:
        The pictures, and what drew them: `egl`, `osmesa` or `matplotlib`.
    """
    model = scene(task)
    for backend in GL_BACKENDS:
        frames = _render_gl(model, poses, task.camera, size, backend)
        if frames is not None:
            return frames, backend
    return _render_flat(model, poses, task.camera, size), "matplotlib"


def write_animation(file: Path, frames: Frames, fps: float) -> None:
    """Writes a `.gif` or `.mp4`.

    Raises:
        InputError: another ending, or a folder that cannot be written.
    """
    import imageio.v3 as imageio  # late: it is needed by few commands

    file = Path(file)
    require_animation(file)
    options: dict[str, Any] = (
        {"duration": 1000 / fps, "loop": 0} if file.suffix == ".gif" else {"fps": fps}
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        imageio.imwrite(file, frames, **options)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror or error}") from None


def require_animation(file: Path) -> None:
    """Refuses a file that `write_animation` cannot write, before anything is played.

    Raises:
        InputError: its ending is neither `.gif` nor `.mp4`, it exists, or its folder cannot be written.
    """
    if file.suffix not in (".gif", ".mp4"):
        raise InputError(f"{file}: the animation's name must end in .gif or .mp4")
    if file.exists():
        raise InputError(
            f"{file} exists; choose another name or remove it (nothing was overwritten)"
        )
    there = next(folder for folder in file.absolute().parents if folder.exists())
    if not os.access(there, os.W_OK):
        raise InputError(f"cannot write in {there}; choose another folder for {file.name}")


def scene(task: Task) -> mujoco.MjModel:
    """The task's model with a marker of the success radius at the goal, and a sky."""
    spec = task.build()
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        rgb1=[0.96, 0.96, 0.97],
        rgb2=[0.96, 0.96, 0.97],
        width=8,
        height=8,
    )
    spec.visual.headlight.ambient = [0.6, 0.6, 0.6]
    marker = spec.worldbody.add_body(name="goal_marker", mocap=True)
    marker.add_geom(
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        size=[task.success_radius, 0, 0],
        rgba=list(GOAL_COLOUR),
        contype=0,
        conaffinity=0,
    )
    return spec.compile()


def _render_gl(
    model: mujoco.MjModel, poses: list[Pose], camera: Camera, size: int, backend: str
) -> Frames | None:
    # In a process of its own: a broken GL driver may abort it, and the backend is fixed at import.
    with tempfile.TemporaryDirectory() as folder:
        mujoco.mj_saveModel(model, str(Path(folder) / "model.mjb"))
        np.savez(
            Path(folder) / "scene.npz",
            qpos=np.stack([pose.qpos for pose in poses]),
            goal=np.array([pose.goal for pose in poses]),
            lookat=camera.lookat,
            view=(camera.distance, camera.azimuth, camera.elevation),
            size=size,
        )
        try:
            done = subprocess.run(
                [sys.executable, str(GL_WORKER), folder],
                env={**os.environ, "MUJOCO_GL": backend},
                capture_output=True,
                timeout=GL_TIMEOUT,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        frames = Path(folder) / "frames.npy"
        return np.load(frames) if done.returncode == 0 and frames.exists() else None


def _render_flat(model: mujoco.MjModel, poses: list[Pose], camera: Camera, size: int) -> Frames:
    """Orthographic outlines of the geoms, the nearest drawn last."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size / 100, size / 100), dpi=100, facecolor="#f5f5f7")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    half = camera.distance * np.tan(np.radians(model.vis.global_.fovy / 2))
    axes.set(xlim=(-half, half), ylim=(-half, half))

    right, up, forward = _view_axes(camera)
    shapes = [_surface(model, geom) for geom in range(model.ngeom)]
    data = mujoco.MjData(model)
    frames = []
    for pose in poses:
        data.qpos[:], data.mocap_pos[0] = pose.qpos, pose.goal
        mujoco.mj_kinematics(model, data)
        drawn = []
        for geom, local in enumerate(shapes):
            if local is None:
                continue
            world = local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
            world = world - np.array(camera.lookat)
            flat = np.stack([world @ right, world @ up], axis=-1)
            outline = flat[ConvexHull(flat).vertices]
            drawn.append(((world @ forward).mean(), outline, model.geom_rgba[geom]))
        drawn.sort(key=lambda item: -item[0])
        collection = PolyCollection(
            [outline for _, outline, _ in drawn],
            facecolors=[colour for *_, colour in drawn],
            edgecolors="none",
        )
        axes.add_collection(collection)
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        collection.remove()
    return np.stack(frames)


def _view_axes(camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _surface(model: mujoco.MjModel, geom: int) -> np.ndarray | None:
    """Points `[n, 3]` in the geom's frame whose convex hull is the geom; None for what is not drawn."""
    kind, size = model.geom_type[geom], model.geom_size[geom]
    kinds = mujoco.mjtGeom
    if kind == kinds.mjGEOM_PLANE or model.geom_rgba[geom, 3] == 0:
        return None
    ends = np.array([[0, 0, -1.0], [0, 0, 1.0]])
    if kind == kinds.mjGEOM_BOX:
        corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
        return corners * size
    if kind == kinds.mjGEOM_CYLINDER:
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        rim = size[0] * np.stack([np.cos(turn), np.sin(turn), np.zeros(24)], axis=-1)
        return (rim + size[1] * ends[:, None]).reshape(-1, 3)
    if kind == kinds.mjGEOM_CAPSULE:
        return (size[0] * _sphere() + size[1] * ends[:, None]).reshape(-1, 3)
    if kind == kinds.mjGEOM_SPHERE:
        return size[0] * _sphere()
    if kind == kinds.mjGEOM_ELLIPSOID:
        return size * _sphere()
    return None


def _sphere() -> np.ndarray:
    """About evenly spread points on the unit sphere, `[120, 3]`: a Fibonacci lattice."""
    count = 120
    z = 1 - (2 * np.arange(count) + 1) / count
    turn = np.pi * (1 + 5**0.5) * np.arange(count)
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=-1)
