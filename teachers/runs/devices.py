"""All devices of a run as one mesh: environments and batches are sharded over them, parameters are replicated.

One device is a mesh of one. Where several machines train together, the mesh holds the devices of all of them.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from teachers.runs.errors import InputError

Tree = TypeVar("Tree")

AXIS = "devices"
MESSAGE_BYTES = 1000  # size of an error message sent between processes


def require_backend() -> None:
    """Raises an error if JAX has nothing to compute on, as where `JAX_PLATFORMS` names a device that is not there.

    To be called after `join_processes`, which has to come before JAX looks for its devices.

    Raises:
        InputError: JAX finds no device.
    """
    try:
        jax.devices()
    # JAX only asserts that there is a device where `JAX_PLATFORMS=cuda` finds no GPU.
    except (RuntimeError, AssertionError) as error:
        platforms = jax.config.jax_platforms  # type: ignore[attr-defined] # documented
        where = f"JAX_PLATFORMS={platforms}" if platforms else "JAX"
        reason = str(error).partition("\n")[0].partition(" (")[0].rstrip(".")
        raise InputError(
            f"{where}: nothing to compute on was found ({reason or 'there is no such device'}); set JAX_PLATFORMS=cpu, "
            "or unset it to let JAX choose"
        ) from None


@lru_cache(maxsize=1)
def mesh() -> Mesh:
    """Returns the mesh of all devices, with one axis."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def replicated() -> NamedSharding:
    """Returns the sharding of an array that every device holds completely."""
    return NamedSharding(mesh(), PartitionSpec())


def sharded(axis: int = 0) -> NamedSharding:
    """Returns the sharding of an array that is divided along `axis`, each device holding a part."""
    return NamedSharding(mesh(), _partition(axis))


def sharded_if_divisible(count: int) -> NamedSharding:
    """Returns the sharding of `count` rows: divided if `count` is a multiple of the devices, else replicated."""
    return replicated() if count % mesh().size else sharded()


def shard_batch(tree: Tree) -> Tree:
    """Returns the same batch divided along its leading axis; to be used inside a jitted function."""
    return jax.lax.with_sharding_constraint(tree, sharded())


def map_over_devices(
    function: Callable[..., tuple[Any, Any]], count: int
) -> Callable[..., tuple[Any, Any]]:
    """Returns the same function, with every device computing its own rows and never waiting for another.

    If `count` is not a multiple of the devices, the function is returned as it is: then every device computes all rows.

    Args:
        function: takes pytrees with a leading axis of rows; its first result has that axis first, its second result has
            it second, after an axis of time.
        count: rows in all.
    """
    if count % mesh().size:
        return function
    return jax.shard_map(
        function,
        mesh=mesh(),
        in_specs=_partition(0),
        out_specs=(_partition(0), _partition(1)),
        check_vma=False,
    )


def require_divisible(**counts: int) -> None:
    """Raises an error if a number is not a multiple of the number of devices.

    Args:
        counts: numbers by configuration key, with `__` for the dot.

    Raises:
        InputError: one of them is no multiple.
    """
    devices = mesh().size
    for name, count in counts.items():
        if count % devices:
            raise InputError(
                f"{name.replace('__', '.')} = {count}: it must be a multiple of the {devices} devices, such as "
                f"{-(-count // devices) * devices}; or let JAX see fewer devices (CUDA_VISIBLE_DEVICES)"
            )


def on_main_process(work: Callable[[], Any]) -> None:
    """Calls a function in the first process of a run, while all others wait.

    Args:
        work: changes the run's files.

    Raises:
        InputError: `work` raised an error, of any type; then all processes raise this one. A single process raises the
            error of `work` itself.
    """
    if jax.process_count() == 1:
        work()
        return
    message = ""
    if jax.process_index() == 0:
        try:
            work()
        except Exception as error:  # sent to the other processes, which would wait without end
            message = str(error)
    sent = np.frombuffer(
        message.encode(errors="replace")[:MESSAGE_BYTES].ljust(MESSAGE_BYTES), np.uint8
    )
    received = bytes(multihost_utils.broadcast_one_to_all(sent))
    if message := received.decode(errors="ignore").strip():
        raise InputError(message)


def require_same_settings(settings: str) -> None:
    """Raises an error if the processes of a run were started with different settings.

    Args:
        settings: this process's settings as text.

    Raises:
        InputError: another process has other settings.
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(
        hashlib.sha256(settings.encode(errors="surrogateescape")).digest(), np.uint8
    )
    if (multihost_utils.process_allgather(digest) != digest).any():
        raise InputError(
            "the processes of this run were started with different settings; give all of them the same options "
            "(or, to train apart, unset the variables by which they found each other)"
        )


def all_processes_agree(choice: bool) -> bool:
    """Returns the choice of the first process of a run, in all processes."""
    if jax.process_count() == 1:
        return choice
    return bool(multihost_utils.broadcast_one_to_all(np.array(choice)))


def _partition(axis: int) -> PartitionSpec:
    return PartitionSpec(*[None] * axis, AXIS)
