import math

import jax.numpy as jnp
import numpy as np
import pytest

from teachers import InputError
from teachers.runs.metadata import (
    as_interval,
    as_number,
    library_versions,
    parameter_digest,
    parse_metadata,
)


def test_parameter_digest_distinguishes_networks() -> None:
    params = {"a": jnp.ones(3), "b": jnp.zeros((2, 2))}
    assert parameter_digest(params) == parameter_digest({"b": jnp.zeros((2, 2)), "a": jnp.ones(3)})
    assert parameter_digest(params) != parameter_digest({"a": jnp.ones(3), "b": jnp.zeros(4)})
    assert parameter_digest(params) != parameter_digest(
        {"a": jnp.ones(3).at[0].set(1.0000001), "b": jnp.zeros((2, 2))}
    )


def test_library_versions_names_libraries() -> None:
    assert {"crl-distill", "jax", "mujoco", "mujoco-mjx"} <= set(library_versions())


@pytest.mark.parametrize("raw", [None, [], {}, {"kind": "teacher"}, {"format_version": "1"}])
def test_parse_metadata_refuses_foreign_description(raw) -> None:
    with pytest.raises(InputError, match="does not describe a crl-distill artefact"):
        parse_metadata(raw, "somewhere")


@pytest.mark.parametrize(
    ("value", "number"),
    [(0.5, 0.5), (3, 3.0), (np.float32(0.5), 0.5)]
    + [(value, None) for value in ("x", "0.5", None, True, [1], {}, math.nan, -math.inf, 10**400)],
)
def test_as_number_takes_numbers_alone(value, number) -> None:
    assert as_number(value) == number


@pytest.mark.parametrize(
    ("value", "interval"),
    [([0.1, 1], (0.1, 1.0)), ((0.1, None), (0.1, None))]
    + [
        (value, None)
        for value in ("ab", 3, None, [], [1], [1, 2, 3], [None, 1], [0, "x"], {"a": 1})
    ],
)
def test_as_interval_takes_pairs_of_numbers_alone(value, interval) -> None:
    assert as_interval(value) == interval
