import pytest

from distill import distill_config
from teachers import InputError


def test_the_buffer_is_whole_rounds_and_no_larger_than_needed() -> None:
    sizes = {"collect.environments": 4, "collect.steps": 10, "collect.rounds": 5}
    assert distill_config(overrides=sizes).buffer_rows == 200
    assert distill_config(overrides={**sizes, "collect.capacity": 41}).buffer_rows == 80


def test_bad_values_are_named() -> None:
    with pytest.raises(InputError, match=r"student.policy.width = -1"):
        distill_config(overrides={"student.policy.width": -1})
    with pytest.raises(InputError, match=r"did you mean 'collect.rounds'"):
        distill_config(overrides={"collect.round": 3})
