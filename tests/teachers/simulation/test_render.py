import numpy as np
import pytest

from teachers.simulation import gl_renderer, render
from teachers.simulation.scene import Pose
from teachers.tasks.reacher import Reacher
from teachers.tasks.registry import get_task

POSES = [Pose(np.zeros(2), (0.1, 0.1, 0.0)), Pose(np.array([1.0, 0.5]), (0.1, 0.1, 0.0))]


@pytest.fixture
def no_gl(monkeypatch) -> None:
    monkeypatch.setattr(render, "GL_BACKENDS", ("no-such-library",))


def is_green(picture: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return (green > red + 20) & (green > blue + 20)


def test_render_draws_with_any_backend() -> None:
    frames, renderer = render.render(get_task("reacher"), POSES, size=64)
    assert renderer in (*render.GL_BACKENDS, "matplotlib")
    assert frames.shape == (2, 64, 64, 3)
    assert is_green(frames[0]).any()


def test_renderer_draws_repeatedly_until_closed() -> None:
    with render.Renderer(get_task("reacher"), size=64) as renderer:
        backend = renderer.backend
        first, again, other = (renderer.draw([pose])[0] for pose in (POSES[0], *POSES))
        assert renderer.backend == backend
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    first[:] = 0  # pictures are writable
    renderer.close()
    with pytest.raises(ValueError, match="closed"):
        renderer.draw(POSES)


@pytest.mark.parametrize(
    "worker",
    [
        "raise SystemExit(1)",
        "import time; time.sleep(60)",
        # It reports that it is ready, and draws one picture only.
        "import os; os.write(1, bytes(1 + 64 * 64 * 3))",
    ],
    ids=["broken", "hanging", "breaking"],
)
def test_renderer_falls_back_to_matplotlib_if_gl_fails(monkeypatch, tmp_path, worker) -> None:
    monkeypatch.setattr(gl_renderer, "GL_WORKER", tmp_path / "worker.py")
    monkeypatch.setattr(gl_renderer, "GL_TIMEOUT", 2.0)
    monkeypatch.setattr(render, "GL_BACKENDS", ("egl",))
    (tmp_path / "worker.py").write_text(worker)
    frames, backend = render.render(get_task("reacher"), POSES, size=64)
    assert backend == "matplotlib"
    assert frames.shape == (2, 64, 64, 3)
    assert all(is_green(frame).any() for frame in frames)


@pytest.mark.parametrize("backends", [render.GL_BACKENDS, ()], ids=["gl", "matplotlib"])
def test_render_hides_invisible_planes(monkeypatch, backends) -> None:
    monkeypatch.setattr(render, "GL_BACKENDS", backends)
    task = get_task("point_u_maze")
    qpos = np.array(task.maze.start, float)
    frames, _ = render.render(task, [Pose(qpos, (1.0, -1.0, 0.2))], size=128)
    # The middle of the start's row, where no wall, point or goal is: nothing but the sky.
    half = task.camera.distance * np.tan(np.radians(22.5))
    row, column = (int(64 - 64 * place / half) for place in (qpos[1], 0.0))
    assert frames[0][row, column].min() > 220


def test_render_accepts_mocap_bodies_of_the_task(no_gl) -> None:
    class Watched(Reacher):
        def build(self):
            spec = super().build()
            watcher = spec.worldbody.add_body(name="watcher", mocap=True, pos=[0, 0, 5])
            watcher.add_geom(size=[0.01, 0, 0], rgba=[1, 0, 0, 1])
            return spec

    frames, _ = render.render(Watched(), POSES[:1], size=64)
    assert is_green(frames[0]).any()
