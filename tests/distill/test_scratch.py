import jax
import numpy as np
import pytest
from tiny import TEACHER

from distill.scratch import SELECTION, ScratchConfig, train_from_scratch
from students import MLPConfig, StudentConfig, load_student
from teachers import InputError, evaluate_agent, teacher_config
from teachers.runs.run_log import read_metrics
from teachers.tasks.registry import get_task

SEED = 5  # of a run that is not best at its end
SHAPE = MLPConfig(layers=1, width=8)


def test_a_students_networks_are_trained_as_a_teacher_is(tmp_path) -> None:
    settings = {**TEACHER, "logging.evaluate_every": 1, "seed": SEED}
    config = ScratchConfig(
        teacher=teacher_config("reacher", overrides=settings),
        student=StudentConfig(policy=SHAPE, critic=SHAPE),
    )
    task = get_task("reacher")
    made = train_from_scratch(task, config, tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [40, 80, 120, 160]
    opened = load_student(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, opened.params, made.params)
    assert opened.metadata.lineage == {}
    assert opened.metadata.networks["actor"]["width"] == 8
    # Kept is what did best.
    best = max(rows, key=lambda row: (row["time_at_goal"], row["step"]))
    assert best["step"] < 160
    assert opened.metadata.metrics["steps"] == best["step"]
    assert evaluate_agent(opened, 8, SELECTION + SEED).time_at_goal.mean() == best["time_at_goal"]
    assert opened.metadata.metrics["trained_steps"] == 160
    # All of it was trained, and it can be played.
    first = opened.networks.init(jax.random.key(0))
    assert jax.tree.structure(first) == jax.tree.structure(opened.params)
    with pytest.raises(InputError, match="already holds files"):
        train_from_scratch(task, config, tmp_path / "run")
