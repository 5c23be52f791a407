import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.ring import LabelledStates, empty_ring, insert_rows, sample_rows

ROWS = 4

insert = jax.jit(insert_rows)
sample = jax.jit(sample_rows, static_argnames=("batch", "rows_per_round"))


def make_rows(round: int) -> LabelledStates:
    """Returns rows that hold their round and their index in every field."""
    value = jnp.stack([jnp.full(ROWS, float(round)), jnp.arange(ROWS, dtype=jnp.float32)], axis=-1)
    return LabelledStates(*[value] * (len(LabelledStates._fields) - 1))


@settings(max_examples=25, deadline=None)
@given(rounds=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_sample_rows_draws_from_newest_rounds(rounds, seed) -> None:
    ring = empty_ring(3 * ROWS, make_rows(0))
    for i in range(rounds):
        ring = insert(ring, make_rows(i))
    drawn = sample(ring, jax.random.key(seed), batch=256, rows_per_round=ROWS)
    expected = {
        (float(r), float(k)) for r in range(max(0, rounds - 3), rounds) for k in range(ROWS)
    }
    assert {tuple(row) for row in np.asarray(drawn.observation).tolist()} == expected
    for other in drawn[:-1]:
        np.testing.assert_array_equal(other, drawn.observation)


def test_insert_rows_refuses_capacity_of_partial_rounds() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        insert_rows(empty_ring(ROWS + 1, make_rows(0)), make_rows(0))
