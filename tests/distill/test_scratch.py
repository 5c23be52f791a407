import jax
import numpy as np
import pytest
from tiny import TEACHER

from distill.scratch import ScratchConfig, train_from_scratch
from students import MLPConfig, StudentConfig, load_student
from teachers import InputError, evaluate_agent, teacher_config
from teachers.runlog import read_metrics
from teachers.tasks import get_task

SHAPE = MLPConfig(layers=1, width=8)


def test_a_students_networks_are_trained_as_a_teacher_is(tmp_path) -> None:
    config = ScratchConfig(
        teacher=teacher_config("reacher", overrides={**TEACHER, "steps": 80}),
        student=StudentConfig(policy=SHAPE, critic=SHAPE),
    )
    task = get_task("reacher")
    made = train_from_scratch(task, config, tmp_path / "run")
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [40, 80]
    opened = load_student(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, opened.params, made.params)
    assert opened.metadata.lineage == {}
    assert opened.metadata.networks["actor"]["width"] == 8
    assert opened.metadata.metrics["steps"] == 80
    # All of it was trained, and it can be played.
    first = opened.networks.init(jax.random.key(0))
    assert jax.tree.structure(first) == jax.tree.structure(opened.params)
    assert evaluate_agent(opened, 8, 0).time_at_goal.shape == (8,)
    with pytest.raises(InputError, match="already holds files"):
        train_from_scratch(task, config, tmp_path / "run")
