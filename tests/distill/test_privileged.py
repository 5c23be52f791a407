"""The students of a privileged teacher, from its training to their files."""

import numpy as np
import pytest
from stages import require_fitting_stages
from tiny import DISTILL, TEACHER

from distill import distill_config, distill_teacher, run_compare
from distill.critic_measures import measure_critic
from export import export_student
from students import load_student, student_networks
from teachers import InputError, evaluate_agent, load_teacher, teacher_config, train_teacher
from teachers.crl.networks import teacher_networks
from teachers.tasks.disturbance import RANDOMIZED, randomized_settings

PRIVILEGED = {**TEACHER, **randomized_settings("rollout"), "rollout.privileged": True}
MEMORY = {"student.memory": "gru", "student.memory_width": 5, "learning.burn_in": 0}


@pytest.mark.parametrize("settings", [{}, {"student.sees": "sensors"}, MEMORY], ids=str)
def test_stages_fit_students_of_a_privileged_teacher(settings) -> None:
    """Nothing is compiled."""
    networks = teacher_networks(teacher_config("reacher", overrides=PRIVILEGED))
    config = distill_config(
        overrides={**DISTILL, **randomized_settings("collect"), "learning.batch": 20, **settings}
    )
    student = student_networks(networks.task, config.student, 4)
    assert "critic_loss" in require_fitting_stages(config, networks, student)


@pytest.mark.slow
def test_privileged_teacher_is_trained_distilled_and_its_student_exported(tmp_path) -> None:
    train_teacher(teacher_config("reacher", overrides=PRIVILEGED), tmp_path / "teacher")
    teacher = load_teacher(tmp_path / "teacher")
    assert teacher.metadata.sizes == {"observation": 8, "goal": 2, "action": 2}
    assert len(evaluate_agent(teacher, 4, disturbances=RANDOMIZED).time_at_goal) == 4
    with pytest.raises(InputError, match="observes what no robot measures; distill it"):
        export_student(teacher, tmp_path / "files")
    with pytest.raises(InputError, match="compared by what they read: give --sensors"):
        run_compare(teacher, tmp_path / "compare", force=True)
    settings = {**DISTILL, **randomized_settings("collect"), **MEMORY}
    distill_teacher(teacher, distill_config(overrides=settings), tmp_path / "student", force=True)
    student = load_student(tmp_path / "student")
    assert student.task.read_sizes["observation"] == 8
    ranges = student.metadata.lineage["seen"]["observation"]
    assert np.shape(ranges["low"]) == (8,)
    with pytest.raises(InputError, match="critics are compared where student and teacher read the"):
        measure_critic(student, teacher, 4, 0)
    found = export_student(student, tmp_path / "student-files", min_retention=0)
    assert found["parity_max_abs"] < 1e-4
