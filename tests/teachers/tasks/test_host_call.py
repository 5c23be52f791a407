import jax
import jax.numpy as jnp
import numpy as np
import pytest

from teachers.tasks import host_call
from teachers.tasks.host_call import (
    HostCallsUnsupportedError,
    call_on_host,
    register_function,
    require_host_calls,
)

SHAPE = jax.ShapeDtypeStruct((3,), jnp.float32)
calls: list[list[tuple[int, ...]]] = []


def add_and_multiply(arguments, results) -> None:
    """Writes the sum of two arrays, and their product."""
    calls.append([array.shape for array in arguments])
    one, other = arguments
    results[0][...] = one + other
    results[1][...] = one * other


def fail(arguments, results) -> None:
    raise ValueError("this is why")


@pytest.fixture(autouse=True)
def registered():
    register_function("test: add", lambda: add_and_multiply)
    register_function("test: fail", lambda: fail)
    calls.clear()


def add(one, other):
    return call_on_host("test: add", [SHAPE, SHAPE], one, other)


def test_call_on_host_is_called_once_for_a_batch_of_batches() -> None:
    one = jax.random.normal(jax.random.key(0), (4, 5, 3))
    other = jnp.arange(3.0)
    total, product = jax.jit(jax.vmap(jax.vmap(add, (0, None)), (0, None)))(one, other)
    np.testing.assert_array_equal(total, one + other)
    np.testing.assert_array_equal(product, one * other)
    assert calls == [[(4, 5, 3), (4, 5, 3)]]


def test_call_on_host_is_called_in_every_turn_of_a_loop() -> None:
    found = jax.jit(lambda x: jax.lax.fori_loop(0, 4, lambda _, x: add(x, x)[0], x))(jnp.ones(3))
    np.testing.assert_array_equal(found, np.full(3, 16.0))
    assert len(calls) == 4


def test_call_on_host_takes_empty_arrays() -> None:
    total, _ = jax.jit(jax.vmap(add))(jnp.ones((0, 3)), jnp.ones((0, 3)))
    assert total.shape == (0, 3)


def test_call_on_host_raises_what_the_function_raised() -> None:
    function = jax.jit(lambda x: call_on_host("test: fail", [SHAPE], x)[0])
    with pytest.raises(Exception, match="ValueError: this is why"):
        jax.block_until_ready(function(jnp.ones(3)))
    with pytest.raises(Exception, match="float32"):
        jax.block_until_ready(jax.jit(lambda x: add(x, x))(jnp.ones(3, jnp.int32)))


def test_call_on_host_is_kept_in_compilation_cache(tmp_path) -> None:
    settings = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_enable_compilation_cache": True,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        jax.experimental.compilation_cache.compilation_cache.reset_cache()
        jax.jit(lambda x: add(x, 2 * x)[0])(jnp.ones(3))
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        jax.experimental.compilation_cache.compilation_cache.reset_cache()
    assert [file for file in tmp_path.iterdir() if "lambda" in file.name]


def test_register_function_keeps_the_first_of_a_key() -> None:
    register_function("test: add", lambda: pytest.fail("made again"))
    assert calls == []


def test_require_host_calls_refuses_unchecked_version(monkeypatch) -> None:
    monkeypatch.setattr(host_call, "TARGET", "test_of_an_unchecked_version")
    monkeypatch.setattr(host_call, "CHECKED_VERSIONS", ((9, 9),))
    with pytest.raises(HostCallsUnsupportedError, match=f"JAX {jax.__version__}"):
        require_host_calls.__wrapped__()
