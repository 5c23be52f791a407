"""Tests of teachers.tasks.fusion."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from teachers.process import mjx
from teachers.tasks import fusion
from teachers.tasks.fusion import is_limited, limit_fusion
from teachers.tasks.registry import get_task

JOINTS = 5
limited_here = pytest.mark.skipif(not is_limited(), reason="this version of JAX needs no limit")


@pytest.fixture(scope="module")
def end_of_chain() -> Callable[[jax.Array], jax.Array]:
    """Returns the position of the last body of a chain, as a function of the joint angles."""
    spec = mujoco.MjSpec()
    body = spec.worldbody
    for joint in range(JOINTS):
        body = body.add_body(pos=[0, 0, 0.2])
        body.add_joint(axis=[joint % 2, 1 - joint % 2, 0])
        body.add_geom(size=[0.05, 0.05, 0.05])
    model = spec.compile()
    mjx_model, data = mjx.put_model(model), mjx.make_data(model)
    return lambda qpos: mjx.kinematics(mjx_model, data.replace(qpos=qpos)).xpos[-1]


@pytest.fixture(scope="module")
def angles() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (8, JOINTS))


def _compile(function: Callable[[jax.Array], jax.Array], angles: jax.Array) -> Any:
    # The loops that commands are compiled to; fast tests use others.
    options = {"xla_cpu_use_fusion_emitters": True} if is_limited() else {}
    return jax.jit(jax.vmap(function)).lower(angles).compile(options)


def test_chain_is_computed_as_before_with_a_fraction_of_the_operations(
    end_of_chain: Callable[[jax.Array], jax.Array], angles: jax.Array
) -> None:
    plain, limited = _compile(end_of_chain, angles), _compile(limit_fusion(end_of_chain), angles)
    np.testing.assert_allclose(limited(angles), plain(angles), rtol=1e-5, atol=1e-6)
    if is_limited():
        assert limited.cost_analysis()["flops"] < 0.5 * plain.cost_analysis()["flops"]


@limited_here
def test_barrier_follows_each_concatenation(angles: jax.Array) -> None:
    def function(x: jax.Array) -> dict[str, jax.Array]:
        joined = jax.jit(lambda y: jnp.concatenate([y, 2 * y]))(x)  # in a program of its own
        return {"joined": joined, "sum": jnp.concatenate([joined, x]).sum()}

    program = str(jax.make_jaxpr(limit_fusion(function))(angles))
    assert program.count("optimization_barrier") == 2
    for name, value in limit_fusion(function)(angles).items():
        np.testing.assert_array_equal(value, function(angles)[name])


def test_values_that_are_known_and_keywords_are_kept() -> None:
    def function(x: jax.Array, *, offset: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.concatenate([x, jnp.arange(3.0)]) + offset, jnp.float32(2.0)

    joined, two = jax.jit(limit_fusion(function))(jnp.ones(2), offset=jnp.float32(1.0))
    np.testing.assert_array_equal(joined, [2, 2, 1, 2, 3])
    assert two == 2


def test_function_may_be_batched_over_what_it_closes_over_and_differentiated(
    angles: jax.Array,
) -> None:
    def limited(factor: jax.Array, x: jax.Array) -> jax.Array:
        return limit_fusion(lambda y: jnp.concatenate([factor * y, jnp.maximum(y, 0.0)]).sum())(x)

    factors = jnp.arange(len(angles), dtype=jnp.float32)
    gradients = jax.vmap(jax.grad(limited, argnums=(0, 1)))(factors, angles)
    np.testing.assert_allclose(gradients[0], angles.sum(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients[1], factors[:, None] + (angles > 0), rtol=1e-5)


@pytest.mark.parametrize(("version", "backend"), [((0, 11, 0), "cpu"), ((0, 10, 2), "gpu")])
def test_function_is_left_alone_elsewhere(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], backend: str
) -> None:
    monkeypatch.setattr(fusion.jax, "__version_info__", version)
    monkeypatch.setattr(fusion.jax, "default_backend", lambda: backend)
    program = jax.make_jaxpr(limit_fusion(lambda x: jnp.concatenate([x, x])))(jnp.ones(2))
    assert "optimization_barrier" not in str(program)


@limited_here
@pytest.mark.parametrize("name", ["advance", "kinematics"])
def test_simulation_by_mjx_is_limited(name: str) -> None:
    task = get_task("reacher").simulated_by("jax", 1)
    physics = jax.eval_shape(task.reset, jax.random.key(0)).physics
    function = {
        "advance": task.advance,
        "kinematics": lambda physics, control: task.kinematics.update(
            physics, control, jnp.zeros(())
        ),
    }[name]
    program = jax.make_jaxpr(function)(physics, jax.ShapeDtypeStruct((2,), jnp.float32))
    assert "optimization_barrier" in str(program)
