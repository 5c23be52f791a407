"""All devices of a run as one mesh: environments and batches are spread over them, parameters are on each.

One device is a mesh of one. Where several machines work together the mesh is that of all their devices.
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
MESSAGE = 1000  # bytes of an error message sent between processes


@lru_cache(maxsize=1)
def mesh() -> Mesh:
    """All devices, in a row."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def replicated() -> NamedSharding:
    """Of an array that every device holds."""
    return NamedSharding(mesh(), PartitionSpec())


def sharded(axis: int = 0) -> NamedSharding:
    """Of an array that is cut along `axis`, each device holding a part."""
    return NamedSharding(mesh(), _cut(axis))


def sharded_if_even(count: int) -> NamedSharding:
    """Of an array with `count` rows: cut where they can be dealt out evenly."""
    return replicated() if count % mesh().size else sharded()


def shard_batch(tree: Tree) -> Tree:
    """Inside a jitted function: the same batch, cut along its leading axis."""
    return jax.lax.with_sharding_constraint(tree, sharded())


def map_over_devices(
    function: Callable[..., tuple[Any, Any]], count: int
) -> Callable[..., tuple[Any, Any]]:
    """The same function, with every device working on its own rows and never waiting for another.

    Left out where `count` rows cannot be dealt out evenly: then every device does all.

    Args:
        function: of pytrees with a leading axis of rows; its first result has that axis first, its second has it
            behind an axis of time.
        count: rows in all.
    """
    if count % mesh().size:
        return function
    return jax.shard_map(
        function,
        mesh=mesh(),
        in_specs=_cut(0),
        out_specs=(_cut(0), _cut(1)),
        check_vma=False,
    )


def require_divisible(**counts: int) -> None:
    """Refuses numbers that cannot be dealt out evenly to the devices.

    Args:
        counts: by dotted key, with `__` for the dot.

    Raises:
        InputError: one cannot.
    """
    devices = mesh().size
    for name, count in counts.items():
        if count % devices:
            raise InputError(
                f"{name.replace('__', '.')} = {count}: it must be a multiple of the {devices} devices, such as "
                f"{-(-count // devices) * devices}; or let JAX see fewer devices (CUDA_VISIBLE_DEVICES)"
            )


def on_main_process(work: Callable[[], Any]) -> None:
    """Has the first process of a run do something to its files, while all others wait.

    Raises:
        InputError: the work raised it, or anything else in another process.
    """
    if jax.process_count() == 1:
        work()
        return
    message = ""
    if jax.process_index() == 0:
        try:
            work()
        except Exception as error:  # the others would wait for ever
            message = str(error)
    said = np.frombuffer(message.encode()[:MESSAGE].ljust(MESSAGE), np.uint8)
    if message := bytes(multihost_utils.broadcast_one_to_all(said)).decode(errors="ignore").strip():
        raise InputError(message)


def require_same_settings(settings: str) -> None:
    """Refuses processes that were not all started with the same settings.

    Raises:
        InputError: some differ.
    """
    if jax.process_count() == 1:
        return
    own = np.frombuffer(hashlib.sha256(settings.encode()).digest(), np.uint8)
    if (multihost_utils.process_allgather(own) != own).any():
        raise InputError(
            "the processes of this run were started with different settings; give all of them the same options "
            "(or, to train apart, unset the variables by which they found each other)"
        )


def all_processes_agree(choice: bool) -> bool:
    """The choice of the first process of a run."""
    if jax.process_count() == 1:
        return choice
    return bool(multihost_utils.broadcast_one_to_all(np.array(choice)))


def _cut(axis: int) -> PartitionSpec:
    return PartitionSpec(*[None] * axis, AXIS)
