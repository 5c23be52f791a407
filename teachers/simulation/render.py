"""Pictures of a task with its goal, with MuJoCo's renderer where there is a GL library and matplotlib where not."""

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import mujoco
import numpy as np
from etils import epath
from jaxtyping import Float, UInt8
from scipy.spatial import ConvexHull

from teachers.runs.errors import InputError
from teachers.runs.outputs import local_draft, require_new_file
from teachers.tasks.base import Task
from teachers.tasks.declaration import Camera

GOAL_COLOUR = (0.2, 0.7, 0.35, 0.4)
GOAL_MARKER = "picture_goal"  # names of what pictures add start so, that they are not a task's own
ANIMATIONS = (".gif", ".mp4")  # endings of the files that `write_animation` writes
GL_WORKER = Path(__file__).with_name("gl_worker.py")
GL_BACKENDS = ("egl", "osmesa")
GL_TIMEOUT = 30.0  # seconds for one picture

Frame = UInt8[np.ndarray, "height width 3"]
Frames = UInt8[np.ndarray, "frame height width 3"]


class Pose(NamedTuple):
    """One picture's content: joint positions and the goal's place in the world (m)."""

    qpos: Float[np.ndarray, "nq"]
    goal: tuple[float, float, float]


class Renderer:
    """Draws square pictures of one task, one after another; close it, or use it in a `with` statement.

    Attributes:
        backend: what draws: `egl`, `osmesa`, or `matplotlib` where neither of these works. It changes if the GL
            library fails later on.
    """

    backend: str

    def __init__(self, task: Task, size: int = 320) -> None:
        """Finds out what can draw `task` in pictures of `size` pixels."""
        self._model, self._camera, self._size = scene(task), task.camera, size
        self._closed = False
        self._open(GL_BACKENDS)

    def draw(self, poses: list[Pose]) -> Frames:
        """One picture for each pose, all drawn by `backend`."""
        if self._closed:
            raise ValueError("this renderer is closed; make another")
        while True:
            try:
                return np.stack([self._drawer.draw(pose) for pose in poses])
            except _GlError:
                self._drawer.close()
                self._open(GL_BACKENDS[GL_BACKENDS.index(self.backend) + 1 :])

    def close(self) -> None:
        """Ends the process that draws. Closing twice does nothing."""
        self._closed = True
        self._drawer.close()

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, backends: tuple[str, ...]) -> None:
        self._drawer: _Drawer
        for backend in backends:
            try:
                self._drawer = _GlProcess(self._model, self._camera, self._size, backend)
            except _GlError:
                continue
            self.backend = backend
            return
        self._drawer = _Outlines(self._model, self._camera, self._size)
        self.backend = "matplotlib"


def render(task: Task, poses: list[Pose], size: int = 320) -> tuple[Frames, str]:
    """One square picture of `size` pixels for each pose.

    Returns:
        The pictures, and what drew them: `egl`, `osmesa` or `matplotlib`.
    """
    with Renderer(task, size) as renderer:
        frames = renderer.draw(poses)
        return frames, renderer.backend


def write_animation(file: epath.PathLike, frames: Frames, fps: float) -> None:
    """Writes a `.gif` or `.mp4`.

    Raises:
        InputError: another ending, or a folder that cannot be written.
    """
    file = epath.Path(file)
    require_new_file(file, *ANIMATIONS)
    options: dict[str, Any] = (
        {"duration": 1000 / fps, "loop": 0} if file.suffix == ".gif" else {"fps": fps}
    )
    write_image(file, frames, **options)


def write_image(file: epath.PathLike, pixels: Frame | Frames, **options: Any) -> None:
    """Writes one picture or an animation, with imageio's options.

    Raises:
        InputError: it cannot be written.
    """
    import imageio.v3 as imageio  # late: it is needed by few commands

    try:
        epath.Path(file).parent.mkdir(parents=True, exist_ok=True)
        with local_draft(file) as draft:
            imageio.imwrite(draft, pixels, **options)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror or error}") from None


def scene(task: Task) -> mujoco.MjModel:
    """The task's model as pictures show it.

    With a marker of the success radius at the goal, a sky, a light from above, and squares on the floor whose
    edge is 1 m, or 10 cm where the camera is near.
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
            castshadow=False,  # without a GPU it makes pictures take three times as long
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
    """Lays faint squares of `edge` metres over the planes that are seen and have no material of their own."""
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
    # The texture shows two squares each way, and `texrepeat` counts for two metres. A geom's own colour tints it.
    material = spec.add_material(name=name, texuniform=True, texrepeat=[1 / edge, 1 / edge])
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    for geom in spec.geoms:
        if geom.type == mujoco.mjtGeom.mjGEOM_PLANE and geom.rgba[3] > 0 and not geom.material:
            geom.material = name


def goal_marker(model: mujoco.MjModel) -> int:
    """The goal's index among the bodies that are placed by hand."""
    return int(model.body(GOAL_MARKER).mocapid[0])


class _GlError(Exception):
    """The GL library cannot draw here."""


class _Drawer(Protocol):
    def draw(self, pose: Pose) -> Frame: ...

    def close(self) -> None: ...


class _GlProcess:
    """MuJoCo's renderer, in a process of its own: a GL driver may abort it, and the library is fixed at import."""

    def __init__(self, model: mujoco.MjModel, camera: Camera, size: int, backend: str) -> None:
        content = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
        mujoco.mj_saveModel(model, None, content)
        request = {
            **camera._asdict(),
            "size": size,
            "model_bytes": content.size,
            "goal": goal_marker(model),
        }
        self._shape = (size, size, 3)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(GL_WORKER), json.dumps(request)],
                env={**os.environ, "MUJOCO_GL": backend},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise _GlError from error
        self.close = weakref.finalize(self, _end, self._process)
        try:
            self._exchange(content.tobytes(), 1)
        except _GlError:
            self.close()
            raise

    def draw(self, pose: Pose) -> Frame:
        numbers = np.concatenate([pose.qpos, pose.goal]).astype(np.float64)
        answer = self._exchange(numbers.tobytes(), math.prod(self._shape))
        return np.frombuffer(answer, np.uint8).reshape(self._shape)

    def _exchange(self, sent: bytes, answer_bytes: int) -> bytes:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        # Ending the process ends any wait for it, whichever end of the pipes that is at.
        timer = threading.Timer(GL_TIMEOUT, self._process.kill)
        timer.start()
        try:
            pipe_in.write(sent)
            pipe_in.flush()
            answer = pipe_out.read(answer_bytes)
        except OSError as error:
            raise _GlError from error
        except (
            BaseException
        ):  # what comes next on the pipe would be taken for the answer to something else
            self._process.kill()
            raise
        finally:
            timer.cancel()
        if len(answer) < answer_bytes:
            raise _GlError
        return answer


def _end(process: subprocess.Popen) -> None:
    process.kill()  # it holds nothing that a tidy end would save
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not sent is not wanted any more
                pipe.close()


class _Outlines:
    """Orthographic outlines of the geoms, the nearest drawn last."""

    def __init__(self, model: mujoco.MjModel, camera: Camera, size: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(size / 100, size / 100), dpi=100, facecolor="#f5f5f7")
        self._canvas = FigureCanvasAgg(figure)
        self._axes = figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        half = camera.distance * np.tan(np.radians(model.vis.global_.fovy / 2))
        self._axes.set(xlim=(-half, half), ylim=(-half, half))
        self._model, self._camera = model, camera
        self._data, self._goal = mujoco.MjData(model), goal_marker(model)
        self._shapes = [_surface(model, geom) for geom in range(model.ngeom)]

    def draw(self, pose: Pose) -> Frame:
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
        pass


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
    if kind == kinds.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first = model.mesh_vertadr[mesh]
        return model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
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
