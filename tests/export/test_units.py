import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.units import in_task_units, limits, normalized
from teachers import InputError
from teachers.tasks.registry import get_task

ARM = get_task("arm_reach")


@given(st.floats(-1, 1, width=32))
def test_task_units_and_back(action) -> None:
    given = np.full((2, ARM.action_size), action, np.float32)
    physical = in_task_units(ARM, given)
    low, high = limits(ARM)
    assert (physical >= np.minimum(low, high)).all()
    assert (physical <= np.maximum(low, high)).all()
    np.testing.assert_allclose(normalized(ARM, physical), given, atol=1e-5)


def test_the_ends_are_the_limits() -> None:
    low, high = limits(ARM)
    ends = np.stack([-np.ones(ARM.action_size, np.float32), np.ones(ARM.action_size, np.float32)])
    np.testing.assert_allclose(in_task_units(ARM, ends), np.stack([low, high]), atol=1e-6)


def test_actions_without_limits_are_refused(monkeypatch) -> None:
    bare = tuple(field._replace(low=None) for field in ARM.action)
    monkeypatch.setattr(type(ARM), "action", bare)
    with pytest.raises(InputError, match=r"does not say what -1 and 1 stand for; .* --normalized"):
        limits(ARM)
