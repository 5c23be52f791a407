import itertools

import mujoco
import numpy as np
import pytest

from teachers.simulation import render
from teachers.simulation.scene import Pose
from teachers.tasks.reacher import Reacher
from teachers.tasks.registry import get_task

POSES = [Pose(np.zeros(2), (0.1, 0.1, 0.0)), Pose(np.array([1.0, 0.5]), (0.1, 0.1, 0.0))]


@pytest.fixture(autouse=True)
def _no_gl(monkeypatch) -> None:
    monkeypatch.setattr(render, "GL_BACKENDS", ("no-such-library",))


def is_green(picture: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return (green > red + 20) & (green > blue + 20)


def test_outline_renderer_draws_arm_and_goal() -> None:
    frames, renderer = render.render(get_task("reacher"), POSES, size=200)
    assert renderer == "matplotlib"
    assert frames.shape == (2, 200, 200, 3)
    assert frames.dtype == np.uint8
    assert not np.array_equal(*frames)
    rows, columns = np.nonzero(is_green(frames[0]))
    # The goal, 0.1 m right of and above the middle, of a view 0.54 m wide.
    half = 0.65 * np.tan(np.radians(22.5))
    assert columns.mean() == pytest.approx(100 + 100 * 0.1 / half, abs=6)
    assert rows.mean() == pytest.approx(100 - 100 * 0.1 / half, abs=6)


def test_outline_renderer_draws_point_over_maze() -> None:
    frames, _ = render.render(get_task("point_u_maze"), [Pose(np.array([-1.0, 1.0]), (1, -1, 0.2))])
    assert len(np.unique(frames[0].reshape(-1, 3), axis=0)) > 4


def test_outline_renderer_draws_meshes() -> None:
    class Crate(Reacher):
        def build(self):
            spec = super().build()
            corners = np.array(list(itertools.product([-0.05, 0.05], repeat=3)))
            spec.add_mesh(name="crate", uservert=corners.ravel())
            spec.worldbody.add_geom(
                type=mujoco.mjtGeom.mjGEOM_MESH,
                meshname="crate",
                pos=[-0.15, 0, 0],
                rgba=[1, 0, 0, 1],
            )
            return spec

    frames, _ = render.render(Crate(), POSES[:1], size=64)
    red = frames[0][..., 0].astype(int) - frames[0][..., 1] > 200
    assert red.sum() == pytest.approx((64 * 0.1 / 0.54) ** 2, rel=0.2)
