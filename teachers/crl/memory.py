"""Estimates how much memory a training run needs, by part, and refuses what cannot fit before it is allocated."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import mujoco

from teachers.config import LAYERS_PER_BLOCK, NetworkConfig, TeacherConfig
from teachers.crl.learner import init_learner
from teachers.crl.networks import teacher_networks
from teachers.crl.parameters import count_parameters
from teachers.crl.replay import empty_replay
from teachers.crl.residual_mlp import residual_dtype
from teachers.runs.devices import mesh
from teachers.runs.errors import InputError
from teachers.tasks.base import Task
from teachers.tasks.engines import choose_engine
from teachers.tasks.model_state import internal_size

GIB = 2**30
COMFORTABLE_SHARE = 0.8  # of the device's memory; a run that needs more recomputes activations


def training_memory(
    config: TeacherConfig, *, remat: bool | None = None, seeds: int = 1
) -> dict[str, int]:
    """Returns the bytes that training needs on each device, by part, without the simulation's temporary memory.

    Args:
        config: the run's configuration.
        remat: whether activations are recomputed for the gradient; by default as the run will decide.
        seeds: number of runs trained at once; the result is for one of them.

    Returns:
        `parameters`, `gradients`, `optimizers`, `replay`, `environments` and `activations`.
    """
    state = _state_memory(config)
    if remat is None:
        remat = _resolve_remat(config, state, seeds)
    return {**state, "activations": _activation_memory(config, remat)}


def parameter_counts(config: TeacherConfig) -> dict[str, int]:
    """Returns the number of parameters of each network, without allocating them."""
    shapes = teacher_networks(config).shapes
    return {name: count_parameters(tree) for name, tree in shapes.items()}


def decide_remat(config: TeacherConfig, seeds: int = 1) -> bool:
    """Returns whether a run recomputes activations for the gradient; `auto` is resolved for this device."""
    return _resolve_remat(config, _state_memory(config), seeds)


def require_memory(needed: int, remedy: str) -> None:
    """Raises an error if the default device has too little memory.

    Args:
        needed: lower bound of the bytes that are needed.
        remedy: what the user can lower.

    Raises:
        InputError: the device has less than `needed` bytes.
    """
    available = device_memory()
    if needed > available:
        raise InputError(
            f"this needs at least {needed / GIB:,.1f} GiB of memory and the device has "
            f"{available / GIB:,.1f} GiB; lower {remedy}"
        )


def device_memory() -> int:
    """Returns the bytes of memory of a device; for a CPU device, its share of the machine's memory."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(statistics.get("bytes_limit", machine // jax.local_device_count()))


def total_bytes(tree: Any) -> int:
    """Returns the bytes of a pytree of arrays or `jax.ShapeDtypeStruct`; random keys are not counted."""
    return sum(_leaf_bytes(leaf) for leaf in jax.tree.leaves(tree))


def changed_models_memory(task: Task, rollouts: Any) -> int:
    """Returns the bytes of the models of the environments, where disturbances make them differ and MuJoCo C simulates.

    Args:
        task: what is simulated.
        rollouts: settings of the rollouts, with `disturbances`, `physics` and `environments`.
    """
    if not rollouts.disturbances.changes_model or choose_engine(rollouts.physics) != "c":
        return 0
    return int(rollouts.environments) * int(mujoco.mj_sizeModel(task.model))


def _state_memory(config: TeacherConfig) -> dict[str, int]:
    """Returns the bytes of what a run holds on each device from its start to its end, by part."""
    networks, learning = teacher_networks(config), config.learning
    task = networks.task
    key = jax.eval_shape(lambda: jax.random.key(0))
    learner = jax.eval_shape(lambda key: init_learner(networks, learning, key), key)
    parameters, environments = total_bytes(learner.params), config.rollout.environments
    devices = mesh().size
    replay = jax.eval_shape(
        lambda: empty_replay(
            config.replay_slots,
            environments,
            task.observation_size,
            task.action_size,
            task.goal_size if config.commanded_critic else None,
        )
    )
    # An environment's numbers of 4 bytes, and a flag of 1 byte: see `teachers.tasks.declaration.State`.
    physics = task.model.nq + 2 * task.model.nv + internal_size(task.model) + 7 * task.model.nmocap
    numbers = physics + task.observation_size + task.goal_size + 1
    return {
        "parameters": parameters,
        "gradients": parameters,
        "optimizers": total_bytes(learner.optimizers),
        "replay": total_bytes(replay) // devices,
        "environments": (
            (4 * numbers + 1) * environments + changed_models_memory(task, config.rollout)
        )
        // devices,
    }


def _resolve_remat(config: TeacherConfig, state: dict[str, int], seeds: int) -> bool:
    if config.learning.remat != "auto":
        return config.learning.remat == "on"
    needed = sum(state.values()) + _activation_memory(config, remat=False)
    return seeds * needed > COMFORTABLE_SHARE * device_memory()


def _activation_memory(config: TeacherConfig, remat: bool) -> int:
    """Returns the bytes of what the backward pass reads; see `ResidualMLP`."""
    itemsize = jnp.dtype(residual_dtype(config.learning.precision)).itemsize

    def saved_per_row(network: NetworkConfig) -> int:
        """Returns the bytes saved for each row of the batch: each block's input, and each layer's product."""
        inputs = 4 * network.depth // LAYERS_PER_BLOCK
        return network.width * (inputs + (0 if remat else itemsize * network.depth))

    # The critic's gradient comes first, then the actor's, which goes through phi. The logits and their gradient remain.
    phi, psi, actor = (saved_per_row(network) for network in (config.phi, config.psi, config.actor))
    batch, devices = config.learning.batch, mesh().size
    return (batch * max(phi + psi, actor + phi) + 8 * batch**2) // devices


def _leaf_bytes(leaf: Any) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return 0
    return int(leaf.size) * int(leaf.dtype.itemsize)
