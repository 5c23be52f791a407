import jax.numpy as jnp
import pytest

from teachers import InputError
from teachers.runs.metadata import library_versions, parameter_digest, parse_metadata


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
