"""Draws pictures with MuJoCo's renderer, as a process of its own: `python gl_worker.py FOLDER`.

Reads `model.mjb` and `scene.npz` from the folder and writes `frames.npy` there. `MUJOCO_GL` names the GL
library. It imports nothing of the project, so that it starts fast.
"""

import sys
from pathlib import Path

import mujoco
import numpy as np


def main(folder: Path) -> None:
    """Draws what `folder` describes."""
    model = mujoco.MjModel.from_binary_path(str(folder / "model.mjb"))
    scene = np.load(folder / "scene.npz")
    size = int(scene["size"])
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    camera = mujoco.MjvCamera()
    camera.lookat[:] = scene["lookat"]
    camera.distance, camera.azimuth, camera.elevation = scene["view"]
    data = mujoco.MjData(model)
    frames = []
    with mujoco.Renderer(model, height=size, width=size) as renderer:
        for qpos, goal in zip(scene["qpos"], scene["goal"], strict=True):
            data.qpos[:], data.mocap_pos[0] = qpos, goal
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            frames.append(renderer.render())
    np.save(folder / "frames.npy", np.stack(frames))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
