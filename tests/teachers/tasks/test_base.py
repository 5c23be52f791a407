import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teachers import InputError
from teachers.tasks.reacher import Reacher
from teachers.tasks.registry import get_task

ARM = get_task("arm_reach")


@given(st.floats(-1, 1, width=32))
def test_to_actuator_units_stays_within_limits_and_is_inverted(value) -> None:
    action = np.full((2, ARM.action_size), value, np.float32)
    physical = ARM.to_actuator_units(action)
    low, high = ARM.action_limits
    assert (physical >= np.minimum(low, high)).all()
    assert (physical <= np.maximum(low, high)).all()
    np.testing.assert_allclose(ARM.from_actuator_units(physical), action, atol=1e-5)


def test_to_actuator_units_maps_ends_to_limits() -> None:
    low, high = ARM.action_limits
    ends = np.stack([-np.ones(ARM.action_size, np.float32), np.ones(ARM.action_size, np.float32)])
    np.testing.assert_allclose(ARM.to_actuator_units(ends), np.stack([low, high]), atol=1e-6)


def test_action_limits_undeclared_are_refused(monkeypatch) -> None:
    bare = tuple(field._replace(low=None) for field in ARM.action)
    monkeypatch.setattr(type(ARM), "action", bare)
    with pytest.raises(InputError, match=r"does not say what -1 and 1 stand for; .* --normalized"):
        _ = ARM.action_limits


def test_task_refuses_action_that_does_not_match_actuators() -> None:
    class Wrong(Reacher):
        action = Reacher.action[:1]

    with pytest.raises(InputError, match="actuators"):
        Wrong()
