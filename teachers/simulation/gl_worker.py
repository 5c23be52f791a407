"""Draws pictures with MuJoCo's renderer, in a process of its own: `python gl_worker.py REQUEST`.

REQUEST is JSON: `size` (pixels), `lookat`, `distance`, `azimuth` and `elevation` of the camera, `goal` (the goal's
index among the mocap bodies) and `model_bytes`. Standard input contains that many bytes of a model, answered with one
byte when all is ready; then, for each picture, joint positions and the goal's position as float64, answered with the
picture's pixels as uint8. The process ends when its input ends. `MUJOCO_GL` names the GL library. It imports nothing of
the project, so that it starts fast.
"""

import json
import os
import sys
from typing import Any

import mujoco
import numpy as np


def main(request: dict[str, Any]) -> None:
    """Draws what standard input asks for."""
    # A GL library may print: from here on its standard output goes to standard error.
    with open(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        content = sys.stdin.buffer.read(request["model_bytes"])
        model = mujoco.MjModel.from_binary_path("model.mjb", {"model.mjb": content})
        size = request["size"]
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        camera = mujoco.MjvCamera()
        camera.lookat[:] = request["lookat"]
        for name in ("distance", "azimuth", "elevation"):
            setattr(camera, name, request[name])
        data = mujoco.MjData(model)
        with mujoco.Renderer(model, height=size, width=size) as renderer:
            answers.write(b"!")
            answers.flush()
            while numbers := sys.stdin.buffer.read(8 * (model.nq + 3)):
                data.qpos[:], data.mocap_pos[request["goal"]] = np.split(
                    np.frombuffer(numbers), [model.nq]
                )
                mujoco.mj_forward(model, data)
                renderer.update_scene(data, camera)
                answers.write(renderer.render().tobytes())
                answers.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
