import imageio.v3 as imageio
import numpy as np
import pytest

from export import play_in_c
from teachers.simulation.animate import animate
from teachers.tasks.registry import get_task

TASK = get_task("reacher")


@pytest.fixture(scope="module")
def recording():
    return play_in_c(TASK, lambda observation, _: np.ones((2, 2)), 2, 0)


@pytest.mark.parametrize(("episodes", "frames"), [(1, 50), (2, 100)])
def test_animate_shows_episodes_in_real_time(recording, tmp_path, episodes, frames) -> None:
    animate(TASK, recording, tmp_path / "film.gif", episodes)
    film = imageio.imread(tmp_path / "film.gif", index=None)
    assert abs(len(film) - frames) <= frames // 4  # equal neighbouring frames are merged


def test_animate_refuses_recording_without_joint_positions(recording, tmp_path) -> None:
    with pytest.raises(ValueError, match="no joint positions"):
        animate(TASK, recording._replace(qpos=None), tmp_path / "film.gif")
