import pytest

from teachers import InputError, teacher_config
from teachers.presets import preset_settings
from teachers.tasks.registry import TASKS, get_task


def test_preset_settings_of_paper_are_the_published_ones() -> None:
    config = teacher_config("ant_u4_maze", preset="paper")
    assert (config.actor.depth, config.phi.width, config.embedding) == (64, 256, 64)
    assert (config.rollout.environments, config.rollout.steps) == (512, 62)
    assert config.rollout.prefill_steps == 1000
    assert config.prefill_iterations == 17
    assert (config.learning.batch, config.learning.gradient_steps) == (512, 800)
    assert (config.learning.discount, config.learning.learning_rate) == (0.99, 3e-4)
    changed = teacher_config("ant", overrides={"learning.batch": 256}, preset="paper")
    assert changed.learning.batch == 256


def test_preset_settings_of_paper_leave_nothing_of_how_a_task_learns() -> None:
    of_tasks = {key for name in TASKS for key in get_task(name).training}
    assert "learning.random_goals" in of_tasks
    assert of_tasks <= set(preset_settings("paper"))


def test_preset_settings_refuses_unknown_name() -> None:
    with pytest.raises(InputError, match="unknown preset 'papr'; choose from paper"):
        teacher_config("ant", preset="papr")
