import itertools

import imageio.v3 as imageio
import mujoco
import numpy as np
import pytest

from teachers.runs.errors import InputError
from teachers.simulation import render
from teachers.simulation.render import Pose, write_animation
from teachers.tasks.reacher import Reacher
from teachers.tasks.registry import get_task

POSES = [Pose(np.zeros(2), (0.1, 0.1, 0.0)), Pose(np.array([1.0, 0.5]), (0.1, 0.1, 0.0))]


@pytest.fixture
def no_gl(monkeypatch) -> None:
    monkeypatch.setattr(render, "GL_BACKENDS", ("no-such-library",))


def green(picture: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return (green > red + 20) & (green > blue + 20)


def test_without_gl_matplotlib_draws_arm_and_goal(no_gl) -> None:
    frames, renderer = render.render(get_task("reacher"), POSES, size=200)
    assert renderer == "matplotlib"
    assert frames.shape == (2, 200, 200, 3)
    assert frames.dtype == np.uint8
    assert not np.array_equal(*frames)
    rows, columns = np.nonzero(green(frames[0]))
    # The goal, 0.1 m right of and above the middle, of a view 0.54 m wide.
    half = 0.65 * np.tan(np.radians(22.5))
    assert columns.mean() == pytest.approx(100 + 100 * 0.1 / half, abs=6)
    assert rows.mean() == pytest.approx(100 - 100 * 0.1 / half, abs=6)


def test_the_point_is_drawn_over_the_maze(no_gl) -> None:
    frames, _ = render.render(get_task("point_u_maze"), [Pose(np.array([-1.0, 1.0]), (1, -1, 0.2))])
    assert len(np.unique(frames[0].reshape(-1, 3), axis=0)) > 4


def test_render_always_gives_pictures_whatever_the_machine_has() -> None:
    frames, renderer = render.render(get_task("reacher"), POSES, size=64)
    assert renderer in (*render.GL_BACKENDS, "matplotlib")
    assert frames.shape == (2, 64, 64, 3)
    assert green(frames[0]).any()


def test_one_renderer_draws_again_and_again() -> None:
    with render.Renderer(get_task("reacher"), size=64) as renderer:
        backend = renderer.backend
        first, again, other = (renderer.draw([pose])[0] for pose in (POSES[0], *POSES))
        assert renderer.backend == backend
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    first[:] = 0  # pictures are the caller's own
    renderer.close()
    with pytest.raises(ValueError, match="closed"):
        renderer.draw(POSES)


@pytest.mark.parametrize(
    "worker",
    [
        "raise SystemExit(1)",
        "import time; time.sleep(60)",
        # Says that it is ready, and draws one picture alone.
        "import os; os.write(1, bytes(1 + 64 * 64 * 3))",
    ],
    ids=["broken", "hanging", "breaking"],
)
def test_matplotlib_takes_over_from_a_gl_library_that_fails(monkeypatch, tmp_path, worker) -> None:
    monkeypatch.setattr(render, "GL_WORKER", tmp_path / "worker.py")
    monkeypatch.setattr(render, "GL_TIMEOUT", 2.0)
    monkeypatch.setattr(render, "GL_BACKENDS", ("egl",))
    (tmp_path / "worker.py").write_text(worker)
    frames, backend = render.render(get_task("reacher"), POSES, size=64)
    assert backend == "matplotlib"
    assert frames.shape == (2, 64, 64, 3)
    assert all(green(frame).any() for frame in frames)


def test_pictures_add_squares_to_the_floor_that_is_seen_alone() -> None:
    model = render.scene(get_task("ant_u_maze"))
    squares = model.material("picture_squares").id
    assert model.geom("floor").matid == squares
    for name in ("edge_0", "border_0"):
        assert model.geom(name).matid == -1
    assert model.geom("edge_0").rgba[3] == 0


@pytest.mark.parametrize("backends", [render.GL_BACKENDS, ()], ids=["gl", "matplotlib"])
def test_planes_that_are_not_to_be_seen_are_not(monkeypatch, backends) -> None:
    monkeypatch.setattr(render, "GL_BACKENDS", backends)
    task = get_task("point_u_maze")
    qpos = np.array(task.maze.start, float)
    frames, _ = render.render(task, [Pose(qpos, (1.0, -1.0, 0.2))], size=128)
    # The middle of the start's row, where no wall, point or goal is: nothing but the sky.
    half = task.camera.distance * np.tan(np.radians(22.5))
    row, column = (int(64 - 64 * place / half) for place in (qpos[1], 0.0))
    assert frames[0][row, column].min() > 220


def test_tasks_may_place_bodies_by_hand_too(no_gl) -> None:
    class Watched(Reacher):
        def build(self):
            spec = super().build()
            watcher = spec.worldbody.add_body(name="watcher", mocap=True, pos=[0, 0, 5])
            watcher.add_geom(size=[0.01, 0, 0], rgba=[1, 0, 0, 1])
            return spec

    frames, _ = render.render(Watched(), POSES[:1], size=64)
    assert green(frames[0]).any()


def test_outlines_show_meshes(no_gl) -> None:
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


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_animations_read_back(tmp_path, ending) -> None:
    frames = np.zeros((6, 64, 64, 3), np.uint8)
    frames[3:] = 200
    file = tmp_path / "new" / f"film{ending}"
    write_animation(file, frames, fps=25.0)
    read = imageio.imread(file, index=None)
    assert len(read) >= 2
    assert abs(int(read[-1].mean()) - 200) < 10


def test_other_endings_and_existing_files_are_refused(tmp_path) -> None:
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(InputError, match=r"must end in .gif or .mp4"):
        write_animation(tmp_path / "film.avi", frames, 25.0)
    (tmp_path / "film.gif").write_text("mine")
    with pytest.raises(InputError, match="nothing was overwritten"):
        write_animation(tmp_path / "film.gif", frames, 25.0)
    assert (tmp_path / "film.gif").read_text() == "mine"
