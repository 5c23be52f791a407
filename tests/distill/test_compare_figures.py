import imageio.v3 as imageio
from comparison import RESULT

from distill.compare_figures import draw_figures

FIGURES = ("students", "methods", "robustness")


def test_draw_figures_writes_three_pictures(tmp_path) -> None:
    draw_figures(RESULT, tmp_path)
    for name in FIGURES:
        assert imageio.imread(tmp_path / f"{name}.png").std() > 5


def test_draw_figures_leaves_out_students_without_retention(tmp_path) -> None:
    undefined = {"retention": None, "retention_ci95": None}
    students = [{**student, **undefined} for student in RESULT["students"]]
    draw_figures({**RESULT, "students": students, "methods": []}, tmp_path)
    assert (tmp_path / "students.png").exists()
