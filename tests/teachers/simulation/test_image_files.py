import imageio.v3 as imageio
import numpy as np
import pytest

from teachers.runs.errors import InputError
from teachers.simulation.image_files import write_animation


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_write_animation_reads_back(tmp_path, ending) -> None:
    frames = np.zeros((6, 64, 64, 3), np.uint8)
    frames[3:] = 200
    file = tmp_path / "new" / f"film{ending}"
    write_animation(file, frames, fps=25.0)
    read = imageio.imread(file, index=None)
    assert len(read) >= 2
    assert abs(int(read[-1].mean()) - 200) < 10


def test_write_animation_refuses_other_endings_and_existing_files(tmp_path) -> None:
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(InputError, match=r"must end in .gif or .mp4"):
        write_animation(tmp_path / "film.avi", frames, 25.0)
    (tmp_path / "film.gif").write_text("mine")
    with pytest.raises(InputError, match="nothing was overwritten"):
        write_animation(tmp_path / "film.gif", frames, 25.0)
    assert (tmp_path / "film.gif").read_text() == "mine"
