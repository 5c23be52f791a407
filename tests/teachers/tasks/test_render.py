import imageio.v3 as imageio
import numpy as np
import pytest

from teachers.tasks import InputError, get_task, render
from teachers.tasks.render import Pose, write_animation

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
