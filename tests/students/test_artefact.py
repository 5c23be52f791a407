import shutil

import jax.numpy as jnp
import pytest
from edited import copy_with_metadata
from etils import epath

from students import load_student
from students.artefact import load_finished_student
from teachers import InputError, load_teacher
from teachers.runs.configuration import Config
from teachers.runs.metadata import parameter_digest
from teachers.tasks import get_task


def test_load_student_opens_a_run_and_names_its_teacher(student_run, teacher_run) -> None:
    student, teacher = load_student(student_run), load_teacher(teacher_run)
    assert student.metadata.kind == "student"
    lineage = student.metadata.lineage["teacher"]
    assert lineage["digest"] == parameter_digest(teacher.params)
    assert lineage["networks"]["actor"]["depth"] == 8
    assert lineage["steps"] == 160
    assert student.metadata.networks["actor"]["width"] == 8
    observation, goal = jnp.ones((3, 8)), jnp.ones((3, 2))
    assert student.networks.policy(student.params, observation, goal).shape == (3, 2)


def test_load_student_refuses_an_incomplete_configuration(student_run, tmp_path) -> None:
    config = dict(load_student(student_run).metadata.config)
    del config["embedding"]
    damaged = copy_with_metadata(student_run, tmp_path / "run", config=config)
    with pytest.raises(InputError, match=r"does not fit this crl-distill \(embedding"):
        load_student(damaged)


def test_load_student_and_load_teacher_refuse_the_other_kind(teacher_run, student_run) -> None:
    with pytest.raises(InputError, match="holds a teacher, not a student"):
        load_student(teacher_run)
    with pytest.raises(InputError, match="holds a student, not a teacher"):
        load_teacher(student_run)


class Settings(Config):
    seed: int = 0
    physics: str = "auto"


def test_load_finished_student_accepts_the_same_settings_alone(student_run, tmp_path) -> None:
    run = epath.Path(shutil.copytree(student_run, tmp_path / "run"))
    (run / "config.toml").write_text(Settings().to_toml())
    found = load_finished_student(run, Settings())
    assert found
    assert parameter_digest(found.params) == parameter_digest(load_student(student_run).params)
    assert load_finished_student(run, Settings(physics="jax"))  # as early versions wrote
    with pytest.raises(InputError, match="other settings"):
        load_finished_student(run, Settings(seed=1))


def test_load_finished_student_refuses_another_file_of_the_task(student_run, tmp_path) -> None:
    run = epath.Path(copy_with_metadata(student_run, tmp_path / "run", task_digest="0" * 64))
    (run / "config.toml").write_text(Settings().to_toml())
    with pytest.raises(InputError, match="made with another file of task 'reacher'"):
        load_finished_student(run, Settings(), get_task("reacher"))


def test_load_finished_student_removes_an_interrupted_run(student_run, tmp_path) -> None:
    run = epath.Path(shutil.copytree(student_run, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    assert load_finished_student(run, Settings()) is None
    assert not (run / "config.toml").exists()
    assert load_finished_student(run / "new", Settings()) is None
