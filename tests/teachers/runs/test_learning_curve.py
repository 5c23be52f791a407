import imageio.v3 as imageio
import numpy as np

from teachers.runs.learning_curve import plot_learning_curve


def test_plot_learning_curve_draws_a_picture(teacher_run, tmp_path) -> None:
    plot_learning_curve(teacher_run, tmp_path / "curve.png")
    picture = imageio.imread(tmp_path / "curve.png")
    assert picture.shape[1] > 500
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20
