import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import ring as buffer

ROWS = 4

insert = jax.jit(buffer.insert)
sample = jax.jit(buffer.sample, static_argnames=("batch", "per_round"))


def labelled(round: int) -> buffer.Labelled:
    """Rows that all say which round and place they are."""
    value = jnp.stack([jnp.full(ROWS, float(round)), jnp.arange(ROWS, dtype=jnp.float32)], axis=-1)
    return buffer.Labelled(*[value] * len(buffer.Labelled._fields))


@settings(max_examples=25, deadline=None)
@given(rounds=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_the_newest_rounds_are_kept_and_rows_stay_whole(rounds, seed) -> None:
    ring = buffer.empty(3 * ROWS, labelled(0))
    for i in range(rounds):
        ring = insert(ring, labelled(i))
    drawn = sample(ring, jax.random.key(seed), batch=256, per_round=ROWS)
    expected = {
        (float(r), float(k)) for r in range(max(0, rounds - 3), rounds) for k in range(ROWS)
    }
    assert {tuple(row) for row in np.asarray(drawn.observation).tolist()} == expected
    for other in drawn:
        np.testing.assert_array_equal(other, drawn.observation)


def test_capacity_must_be_whole_rounds() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        buffer.insert(buffer.empty(ROWS + 1, labelled(0)), labelled(0))
