from dataclasses import replace

from tiny import DISTILL

from distill import distill_config
from teachers import load_teacher
from teachers.config import NetworkConfig


def test_can_distill_depends_on_settings_and_networks(
    teacher, teacher_run, tiny_distill_programs
) -> None:
    config = distill_config(overrides=DISTILL)
    assert tiny_distill_programs.can_distill(config, teacher)
    same_stages = config.model_copy(update={"seed": 1, "episodes": 2})
    assert tiny_distill_programs.can_distill(same_stages, load_teacher(teacher_run))
    longer = distill_config(overrides={**DISTILL, "steps": 200})
    assert not tiny_distill_programs.can_distill(longer, teacher)
    deeper = teacher.config.model_copy(update={"actor": NetworkConfig(depth=12, width=8)})
    assert not tiny_distill_programs.can_distill(config, replace(teacher, config=deeper))
