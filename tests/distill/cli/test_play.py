import pytest
from commands import assert_refused, run, run_json


def test_evaluate_prints_table(export_folder) -> None:
    result = run("evaluate", export_folder / "policy.onnx", "--episodes", 4)
    assert result.exit_code == 0
    assert "success_at_end" in result.stdout


@pytest.mark.slow
@pytest.mark.end_to_end
def test_evaluate_draws_the_actions_of_teachers_alone(teacher_run, student_run) -> None:
    figures = run_json("evaluate", teacher_run, "--episodes", 4, "--best-of", 3)
    assert figures["best_of"] == 3
    assert figures["physics"] == "c"
    assert figures["sampled_distance_at_end"] != figures["distance_at_end"]
    assert_refused(run("evaluate", student_run, "--best-of", 3), "--best-of 3", "leave it out")
    plain = run_json("evaluate", student_run, "--episodes", 4)
    assert not {name for name in plain if name.startswith(("sampled_", "best_of"))}


@pytest.mark.parametrize("kind", ["teacher", "student", "onnx"])
def test_info_has_stable_keys(teacher_run, student_run, export_folder, kind) -> None:
    path = {"teacher": teacher_run, "student": student_run, "onnx": export_folder / "policy.onnx"}[
        kind
    ]
    described = run_json("info", path)
    assert described["kind"] == kind
    assert {"task", "networks", "config", "metrics", "lineage", "versions"} <= set(described)
    assert "reacher" in run("info", path).stdout


def test_play_evaluate_and_info_refuse_text_file(tmp_path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    for command in ("evaluate", "play", "info"):
        assert_refused(run(command, tmp_path / "text.onnx"), "text.onnx")


def test_play_refuses_existing_video(export_folder, tmp_path) -> None:
    (tmp_path / "film.gif").write_text("mine")
    result = run("play", export_folder / "policy.onnx", "--video", tmp_path / "film.gif")
    assert_refused(result, "film.gif", "nothing was overwritten")
    assert (tmp_path / "film.gif").read_text() == "mine"
