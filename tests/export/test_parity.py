import jax
import numpy as np
import pytest

from export.convert import convert
from export.parity import ParityRows, measure_parity
from export.session import open_session


def test_measure_parity_returns_the_largest_difference(student) -> None:
    random = np.random.default_rng(0)
    observation, goal = (random.standard_normal((7, n)).astype(np.float32) for n in (8, 2))
    action = np.array(jax.jit(student.networks.policy)(student.params, observation, goal))
    rows = ParityRows(observation, goal, action, np.zeros(7, np.float32))
    function = open_session(convert(student, "policy"))
    assert 0 < measure_parity(student.task, function, rows, "policy", "task") < 1e-5
    action[3, 1] += 0.25
    difference = measure_parity(student.task, function, rows, "policy", "task")
    assert difference == pytest.approx(0.25, abs=1e-5)
