import pytest

from distill import distill_config
from distill.config import STEPS_SHARE
from distill.methods import METHODS
from teachers import InputError
from teachers.tasks.reacher import Reacher


def test_buffer_rows_are_complete_rounds_and_no_more_than_needed() -> None:
    sizes = {
        "collect.environments": 4,
        "collect.steps": 10,
        "collect.goals_per_state": 1,
        "steps": 190,
    }
    assert distill_config(overrides=sizes).buffer_rows == 200
    assert distill_config(overrides={**sizes, "collect.capacity": 41}).buffer_rows == 80
    assert distill_config(overrides={**sizes, "collect.goals_per_state": 3}).buffer_rows == 600


def test_distill_config_names_bad_values() -> None:
    with pytest.raises(InputError, match=r"student.policy.width = -1"):
        distill_config(overrides={"student.policy.width": -1})
    with pytest.raises(InputError, match=r"did you mean 'collect.noise'"):
        distill_config(overrides={"collect.nose": 3})
    with pytest.raises(InputError, match=r"policy.loss = 'mse'.*mode"):
        distill_config(overrides={"policy.loss": "mse"})
    with pytest.raises(
        InputError, match=r"no method 'dager'; choose one of bc, bc-augmented, dagger"
    ):
        distill_config(method="dager")


def test_for_teacher_derives_steps_unless_given() -> None:
    config = distill_config().for_teacher(1_000_000)
    assert config.steps == config.rounds * config.states_per_round
    assert STEPS_SHARE * 0.97 < config.steps / 1_000_000 <= STEPS_SHARE
    longest = distill_config().for_teacher(100_000_000)
    assert longest.rounds * longest.states_per_round <= 500_000
    assert distill_config().for_teacher(160).rounds == 1
    assert distill_config(overrides={"steps": 7}).for_teacher(1_000_000).steps == 7


def test_for_teacher_raises_gradient_steps_of_few_rounds() -> None:
    few = distill_config().for_teacher(100_000)
    assert few.rounds * few.gradient_steps >= 4_000
    assert distill_config().for_teacher(10_000_000).gradient_steps == 100
    assert (
        distill_config(overrides={"learning.gradient_steps": 3}).for_teacher(160).gradient_steps
        == 3
    )


@pytest.mark.parametrize("method", METHODS)
def test_distill_config_of_method_yields_to_overrides(method) -> None:
    assert distill_config(method=method)
    assert distill_config(None, {"policy.loss": "kl"}, method).policy.loss == "kl"


def test_distill_config_takes_the_tasks_own_defaults_unless_given() -> None:
    class OtherReacher(Reacher):
        distillation = {"collect.goals_per_state": 3, "student.policy.width": 7}

    task = OtherReacher()
    assert distill_config(task=task).collect.goals_per_state == 3
    config = distill_config(None, {"student.policy.width": 9}, "bc", task)
    assert (config.collect.goals_per_state, config.student.policy.width) == (1, 9)
