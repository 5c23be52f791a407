import importlib.util

import jax
import numpy as np
import pytest

from teachers.runs.errors import InputError
from teachers.simulation.rollout import reset
from teachers.tasks.registry import get_task


def test_simulated_by_refuses_warp_where_not_installed(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'crl-distill\[warp\]'"):
        get_task("reacher").simulated_by("warp", 4)
    assert get_task("reacher").simulated_by("jax", 4).engine == "jax"


@pytest.mark.slow  # for its kernels, which are compiled at their first use
@pytest.mark.parametrize("name", ["reacher", "cheetah"])
def test_simulated_by_warp_agrees_with_jax(name) -> None:
    pytest.importorskip("warp", reason="needs the extra `warp`")
    task = get_task(name)
    states = jax.jit(lambda key: reset(task, key, 8, "train"))(jax.random.key(0))
    actions = jax.random.uniform(jax.random.key(1), (8, task.action_size), minval=-1, maxval=1)
    stepped = [
        jax.jit(jax.vmap(task.simulated_by(engine, 8).step))(states, actions)
        for engine in ("jax", "warp")
    ]
    difference = np.abs(stepped[0].observation - stepped[1].observation) / task.observation_scale
    assert np.abs(stepped[0].observation - states.observation).max() > 1e-3
    assert difference.max() < 1e-3
