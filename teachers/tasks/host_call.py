"""Lets a compiled JAX program on a CPU call a Python function on XLA's own arrays.

`jax.pure_callback` does this too, but JAX's compilation cache keeps no program that contains one, so that every command
would compile its training anew. Here the program names a handler of XLA's foreign function interface, and by a key the
function that the handler calls. The declarations are the part of that interface which is needed (`xla/ffi/api/c_api.h` in
jaxlib's folder `include`); versions of the interface for which they have not been checked are refused.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cffi
import jax
import numpy as np
from jaxtyping import Array

TARGET = "crl_distill_host_call"
CHECKED_VERSIONS = ((0, 3), (0, 4))  # of the interface: JAX 0.10 and 0.11
METADATA = 1  # type of the extension by which XLA asks for a handler's version
FLOAT32 = 11  # XLA's number of the type
INTERNAL = 13  # an error code

# Takes the arguments, and writes into the results.
HostFunction = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], None]

_c = cffi.FFI()
_c.cdef(
    """
    typedef struct { size_t size; void *extension; int major; int minor; } Version;
    typedef struct { size_t size; Version version; uint32_t traits; int64_t state_type; } Metadata;
    typedef struct { size_t size; int type; void *next; Metadata *metadata; } Extension;
    typedef struct {
        size_t size; void *extension; int type; char *data; int64_t rank; int64_t *shape;
    } Buffer;
    typedef struct { size_t size; void *extension; int64_t count; int *types; Buffer **buffers; } Buffers;
    typedef struct { char *text; size_t length; } Text;
    typedef struct {
        size_t size; void *extension; int64_t count; int *types; Text **names; Text **values;
    } Attributes;
    typedef struct { size_t size; void *extension; const char *message; int code; } ErrorArguments;
    typedef struct {
        size_t size; void *extension; Version version; void *internal;
        void *(*create_error)(ErrorArguments *);
    } Api;
    typedef struct {
        size_t size; Extension *extension; Api *api; void *context; int stage;
        Buffers arguments; Buffers results; Attributes attributes;
    } CallFrame;
    """
)
_functions: dict[str, HostFunction] = {}
_api: Any = None  # XLA's functions, once it has asked for the handler's version


class HostCallsUnsupportedError(Exception):
    """The interface of the installed XLA has a version that has not been checked."""


def register_function(key: str, make: Callable[[], HostFunction]) -> None:
    """Makes a function known by a key, if there is none of this key yet.

    Args:
        key: it has to mean the same in all processes that share a compilation cache.
        make: returns the function.

    Raises:
        HostCallsUnsupportedError: see `require_host_calls`.
    """
    require_host_calls()
    if key not in _functions:
        _functions[key] = make()


@lru_cache(maxsize=1)
def require_host_calls() -> None:
    """Registers the handler with XLA, once in a process.

    Raises:
        HostCallsUnsupportedError: this version of JAX has another interface.
    """
    address = int(_c.cast("uintptr_t", _handle))
    try:
        jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(address), platform="cpu")
    except RuntimeError as error:  # XLA found no version that it knows
        raise HostCallsUnsupportedError(f"JAX {jax.__version__}: {error}") from None


def call_on_host(
    key: str, results: Sequence[jax.ShapeDtypeStruct], *arguments: Array
) -> Sequence[Array]:
    """Calls a registered function from a JAX program; under `jax.vmap` once for the whole batch.

    Args:
        key: that of `register_function`.
        results: shape of each result, without the batch; all are float32.
        arguments: float32; under `jax.vmap`, those that are not batched are repeated.
    """
    return jax.ffi.ffi_call(TARGET, results, vmap_method="broadcast_all")(*arguments, key=key)


def _on_exception(_type: Any, exception: BaseException, _traceback: Any) -> Any:
    """Returns XLA's error for an exception, which JAX then raises where the program was called."""
    message = _c.new("char[]", f"{type(exception).__name__}: {exception}".encode(errors="replace"))
    arguments = _c.new("ErrorArguments *", {"message": message, "code": INTERNAL})
    arguments.size = _c.sizeof("ErrorArguments")
    return _api.create_error(arguments)


@_c.callback("void *(CallFrame *)", onerror=_on_exception)
def _handle(frame: Any) -> Any:
    global _api
    if frame.extension != _c.NULL and frame.extension.type == METADATA:
        version = frame.api.version
        if (version.major, version.minor) in CHECKED_VERSIONS:
            _api = frame.api
            frame.extension.metadata.version.major = version.major
            frame.extension.metadata.version.minor = version.minor
        return _c.NULL
    key = frame.attributes.values[0]
    function = _functions[_c.string(key.text, key.length).decode()]
    function(_arrays(frame.arguments), _arrays(frame.results))
    return _c.NULL


def _arrays(buffers: Any) -> list[np.ndarray]:
    """Returns float32 arrays as NumPy sees them, without copies."""
    return [_array(buffers.buffers[i]) for i in range(buffers.count)]


def _array(buffer: Any) -> np.ndarray:
    if buffer.type != FLOAT32:
        raise TypeError(f"XLA's type {buffer.type} in place of float32")
    shape = [buffer.shape[i] for i in range(buffer.rank)]
    size = math.prod(shape)
    memory = _c.buffer(buffer.data, 4 * size) if size else b""
    return np.frombuffer(memory, np.float32).reshape(shape)
