import jax
import jax.numpy as jnp
import numpy as np
from tiny import TEACHER

from teachers import teacher_config

CONFIG = teacher_config("reacher", overrides=TEACHER)


def test_make_iteration_returns_pure_function(tiny_programs) -> None:
    # Each call gets its own copy of the state, because the state is donated.
    state, *copies = (tiny_programs.init(jnp.uint32(0)) for _ in range(3))
    first, again = (tiny_programs.iterate(copy) for copy in copies)
    jax.tree.map(np.testing.assert_array_equal, first[0].learner.params, again[0].learner.params)
    assert int(first[0].iteration) == 1
    assert not np.array_equal(jax.random.key_data(first[0].key), jax.random.key_data(state.key))


def test_make_iteration_trains_every_network(tiny_programs) -> None:
    state = tiny_programs.init(jnp.uint32(0))
    after, _ = tiny_programs.iterate(tiny_programs.init(jnp.uint32(0)))
    for name in ("actor", "phi", "psi"):
        before, now = state.learner.params[name], after.learner.params[name]
        moved = [
            not np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(now), strict=True)
        ]
        assert all(moved), name
    assert after.learner.log_temperature != state.learner.log_temperature
    assert int(after.replay.inserted) == CONFIG.rollout.steps
