import pytest

from distill import distill_config
from distill.config import STEPS_SHARE
from distill.methods import METHODS
from teachers import InputError


def test_the_buffer_is_whole_rounds_and_no_larger_than_needed() -> None:
    sizes = {
        "collect.environments": 4,
        "collect.steps": 10,
        "collect.goals_per_state": 1,
        "steps": 190,
    }
    assert distill_config(overrides=sizes).buffer_rows == 200
    assert distill_config(overrides={**sizes, "collect.capacity": 41}).buffer_rows == 80
    assert distill_config(overrides={**sizes, "collect.goals_per_state": 3}).buffer_rows == 600


def test_bad_values_are_named() -> None:
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


def test_steps_follow_the_teachers_unless_they_are_given() -> None:
    settled = distill_config().for_teacher(1_000_000)
    assert settled.steps == settled.rounds * settled.states_per_round
    assert STEPS_SHARE * 0.97 < settled.steps / 1_000_000 <= STEPS_SHARE
    longest = distill_config().for_teacher(100_000_000)
    assert longest.rounds * longest.states_per_round <= 500_000
    assert distill_config().for_teacher(160).rounds == 1
    assert distill_config(overrides={"steps": 7}).for_teacher(1_000_000).steps == 7


def test_few_rounds_have_more_updates_unless_they_are_given() -> None:
    few = distill_config().for_teacher(100_000)
    assert few.rounds * few.gradient_steps >= 4_000
    assert distill_config().for_teacher(10_000_000).gradient_steps == 100
    assert (
        distill_config(overrides={"learning.gradient_steps": 3}).for_teacher(160).gradient_steps
        == 3
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_settings_are_fields_and_yield_to_what_the_user_says(method) -> None:
    assert distill_config(method=method)
    assert distill_config(None, {"policy.loss": "kl"}, method).policy.loss == "kl"
