"""How much memory a training run takes, by part; refuses what cannot fit before anything is allocated."""

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from teachers.config import LAYERS_PER_BLOCK, NetworkConfig, TeacherConfig
from teachers.crl import replay
from teachers.crl.learner import init_learner
from teachers.crl.networks import teacher_networks
from teachers.crl.parameters import count_parameters
from teachers.crl.residual_mlp import residual_dtype
from teachers.runs.devices import mesh
from teachers.runs.errors import InputError
from teachers.tasks.registry import get_task

GIB = 2**30
COMFORTABLE = 0.8  # of the device's memory; beyond that, activations are computed again


def training_memory(
    config: TeacherConfig, *, remat: bool | None = None, seeds: int = 1
) -> dict[str, int]:
    """Bytes that training needs on each device, by part, but for the simulation's own scratch memory.

    Args:
        config: of the run.
        remat: whether activations are computed again for the gradient; by default as the run will do.
        seeds: trained at once; what is given is for one of them.

    Returns:
        `parameters`, `gradients`, `optimizers`, `replay`, `environments` and `activations`.
    """
    remat = needs_remat(config, seeds) if remat is None else remat
    return {**_kept(config), "activations": _activations(config, remat)}


def parameter_counts(config: TeacherConfig) -> dict[str, int]:
    """Numbers in the parameters of each network, without making them."""
    shapes = teacher_networks(config).shapes
    return {name: count_parameters(tree) for name, tree in shapes.items()}


def needs_remat(config: TeacherConfig, seeds: int = 1) -> bool:
    """Whether a run computes activations again for the gradient, with `auto` resolved for this device."""
    if config.learning.remat == "auto":
        needed = sum(_kept(config).values()) + _activations(config, remat=False)
        return seeds * needed > COMFORTABLE * device_memory()
    return config.learning.remat == "on"


def require_memory(needed: int, remedy: str) -> None:
    """Checks that so many bytes fit the default device.

    Args:
        needed: bytes, at least.
        remedy: what to lower.

    Raises:
        InputError: they do not fit.
    """
    there = device_memory()
    if needed > there:
        raise InputError(
            f"this needs at least {needed / GIB:,.1f} GiB of memory and the device has "
            f"{there / GIB:,.1f} GiB; lower {remedy}"
        )


def device_memory() -> int:
    """Bytes of memory of a device; of a CPU, its share of the machine's."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(statistics.get("bytes_limit", machine // jax.local_device_count()))


def total_bytes(tree: Any) -> int:
    """Bytes of a pytree of arrays or `jax.ShapeDtypeStruct`."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))


@lru_cache(maxsize=8)
def _kept(config: TeacherConfig) -> Mapping[str, int]:
    """Bytes of what a run holds all the time on each device."""
    task, networks, learning = get_task(config.task), teacher_networks(config), config.learning
    key = jax.eval_shape(lambda: jax.random.key(0))
    learner = jax.eval_shape(lambda key: init_learner(networks, learning, key), key)
    parameters, environments = total_bytes(learner.params), config.rollout.environments
    devices = mesh().size
    ring = jax.eval_shape(
        lambda: replay.empty(
            config.replay_slots, environments, task.observation_size, task.action_size
        )
    )
    # Of each: `teachers.tasks.base.State`.
    numbers = task.model.nq + 2 * task.model.nv + task.observation_size + task.goal_size + 1
    return {
        "parameters": parameters,
        "gradients": parameters,
        "optimizers": total_bytes(learner.optimizers),
        "replay": total_bytes(ring) // devices,
        "environments": (4 * numbers + 1) * environments // devices,
    }


def _activations(config: TeacherConfig, remat: bool) -> int:
    # What the backward pass reads (see `ResidualMLP`): each block's input, and each layer's product.
    size = jnp.dtype(residual_dtype(config.learning.precision)).itemsize

    def kept(network: NetworkConfig) -> int:
        inputs = 4 * network.depth // LAYERS_PER_BLOCK
        return network.width * (inputs + (0 if remat else size * network.depth))

    # The critic's gradient, then the actor's, which goes through phi; and the logits with their gradient.
    phi, psi, actor = kept(config.phi), kept(config.psi), kept(config.actor)
    batch, devices = config.learning.batch, mesh().size
    return (batch * max(phi + psi, actor + phi) + 8 * batch**2) // devices


def _bytes(leaf: Any) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return 0
    return int(leaf.size) * int(leaf.dtype.itemsize)
