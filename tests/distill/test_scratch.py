import shutil

import jax
import numpy as np
import pytest
from etils import epath
from metrics import drop_timings
from tiny import TEACHER

from distill.scratch import ScratchConfig, scratch_programs, train_from_scratch
from students import MLPConfig, StudentConfig, load_student
from students.artefact import load_finished_student
from teachers import InputError, evaluate_agent, teacher_config
from teachers.crl.training_run import SELECTION
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.run_log import read_metrics
from teachers.tasks.registry import get_task

SEED = 5  # of a run that is not best at its end
SHAPE = MLPConfig(layers=1, width=8)
CONFIG = ScratchConfig(
    teacher=teacher_config(
        "reacher", overrides={**TEACHER, "logging.evaluate_every": 1, "seed": SEED}
    ),
    student=StudentConfig(policy=SHAPE, critic=SHAPE),
)


@pytest.fixture(scope="module")
def programs():
    return scratch_programs(get_task("reacher"), CONFIG)


@pytest.fixture(scope="module")
def trained(programs, tmp_path_factory):
    """A finished run and its student."""
    run = tmp_path_factory.mktemp("scratch") / "run"
    return run, train_from_scratch(get_task("reacher"), CONFIG, run, programs=programs)


def test_train_from_scratch_keeps_the_best_evaluation(trained, programs) -> None:
    run, made = trained
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [40, 80, 120, 160]
    opened = load_student(run)
    jax.tree.map(np.testing.assert_array_equal, opened.params, made.params)
    assert opened.metadata.lineage == {}
    assert opened.metadata.networks["actor"]["width"] == 8
    best = max(rows, key=lambda row: (row["time_at_goal"], row["step"]))
    assert best["step"] < 160
    evaluation_seed = SELECTION + SEED
    assert opened.metadata.metrics["steps"] == best["step"]
    assert evaluate_agent(made, 8, evaluation_seed).time_at_goal.mean() == best["time_at_goal"]
    assert opened.metadata.metrics["trained_steps"] == 160
    assert checkpoint_steps(run) == [160]
    # All of it was trained, and it can be played.
    first = opened.networks.init(jax.random.key(0))
    assert jax.tree.structure(first) == jax.tree.structure(opened.params)


def test_scratch_programs_refuses_a_run_without_gradient_steps() -> None:
    rollout = CONFIG.teacher.rollout.model_copy(update={"prefill_steps": 31})
    config = CONFIG.model_copy(
        update={"teacher": CONFIG.teacher.model_copy(update={"rollout": rollout})}
    )
    with pytest.raises(InputError, match=r"has 160 steps.* first 160 pass without a gradient step"):
        scratch_programs(get_task("reacher"), config)


def test_train_from_scratch_refuses_used_folder(trained, programs) -> None:
    with pytest.raises(InputError, match="already holds files"):
        train_from_scratch(get_task("reacher"), CONFIG, trained[0], programs=programs)


def test_train_from_scratch_resumes_after_interruption(trained, programs, tmp_path) -> None:
    run, task = tmp_path / "run", get_task("reacher")

    def interrupt(done, total, figures):
        if done == 120:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_from_scratch(task, CONFIG, run, programs=programs, progress=interrupt)
    assert checkpoint_steps(run) == [80]
    assert load_student(run).metadata.metrics["trained_steps"] == 80
    assert load_finished_student(epath.Path(run), CONFIG) is None
    resumed = train_from_scratch(task, CONFIG, run, programs=programs, resume=True)
    uninterrupted = trained[1]
    jax.tree.map(np.testing.assert_array_equal, resumed.params, uninterrupted.params)
    assert drop_timings([resumed.metadata.metrics]) == drop_timings(
        [uninterrupted.metadata.metrics]
    )
    assert drop_timings(read_metrics(run)) == drop_timings(read_metrics(trained[0]))
    assert load_finished_student(epath.Path(run), CONFIG) is not None


def test_train_from_scratch_resumes_only_unfinished_runs_of_its_settings(
    trained, programs, tmp_path
) -> None:
    task = get_task("reacher")
    run = shutil.copytree(trained[0], tmp_path / "run")
    with pytest.raises(InputError, match="is finished"):
        train_from_scratch(task, CONFIG, run, programs=programs, resume=True)
    student = StudentConfig(policy=SHAPE, critic=MLPConfig(layers=1, width=4))
    other = CONFIG.model_copy(update={"student": student})
    with pytest.raises(InputError, match="was made with other settings"):
        train_from_scratch(task, other, run, resume=True)


def test_scratch_config_is_written_without_folder_of_task_file() -> None:
    teacher = CONFIG.teacher.model_copy(update={"task": "/home/me/mine.py:Mine"})
    assert (
        ScratchConfig(teacher=teacher, student=CONFIG.student).model_dump()["teacher"]["task"]
        == "mine.py:Mine"
    )
