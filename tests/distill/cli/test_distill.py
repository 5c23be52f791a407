import io

import pytest
from commands import assert_refused, run
from comparison import RESULT
from rich.console import Console

from distill.cli.distill import compare_tables
from teachers import InputError


def test_distill_refuses_student_as_teacher(student_run, tmp_path) -> None:
    assert_refused(run("distill", student_run, "--out", tmp_path / "x"), "a student, not a teacher")


def test_distill_passes_options_to_configuration(teacher_run, tmp_path, monkeypatch) -> None:
    configs = []

    def distill_teacher(teacher, config, out, **_):
        configs.append(config)
        raise InputError(f"{out} is not written")

    monkeypatch.setattr("distill.run.distill_teacher", distill_teacher)
    result = run(
        "distill", teacher_run, "--layers", 1, "--width", 16, "--steps", 80, "--seed", 3, "--out", tmp_path / "x",
        "--method", "dagger-kl", "--randomize", "--set", "student.critic.width=32",
    )  # fmt: skip
    assert_refused(result, "x is not written")
    (config,) = configs
    assert (config.student.policy.layers, config.student.critic.layers) == (1, 1)
    assert (config.student.policy.width, config.student.critic.width) == (16, 32)
    assert (config.steps, config.seed, config.policy.loss) == (80, 3, "kl")
    assert config.collect.disturbances.noise > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "dager"], ["'dager'", "bc, bc-augmented, dagger"]),
        (
            ["--set", "collect.disturbances.delay=0,9"],
            ["collect.disturbances.delay", "3"],
        ),
    ],
)
def test_distill_refuses_bad_settings_in_one_line(teacher_run, tmp_path, options, words) -> None:
    assert_refused(run("distill", teacher_run, "--out", tmp_path / "x", *options), *words)


def test_compare_refuses_bad_input_in_one_line(teacher_run, student_run) -> None:
    assert_refused(run("compare", student_run), "a student, not a teacher")
    assert_refused(run("compare", teacher_run, "--task", "point_u_maze"), "of task 'reacher'")
    assert_refused(run("compare", "/nowhere"), "/nowhere", "does not exist")


def test_compare_tables_show_every_part() -> None:
    page = io.StringIO()
    Console(width=200, file=page).print(compare_tables("runs/x", RESULT))
    text = page.getvalue()
    for words in ("2 x 16", "0.990 [0.970, 1.000]", "from scratch", "dagger", "logits", "delay 2"):
        assert words in text
    assert "8.0% of the teacher's steps" in text
