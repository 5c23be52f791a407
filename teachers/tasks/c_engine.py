"""The engine that computes physics in MuJoCo C: many environments at once, on all cores.

JAX programs call it through `teachers.tasks.host_call`. Its results depend on its arguments alone, and not on the number of
threads.
"""

import copy
import hashlib
import math
import os
import threading
from collections import ChainMap, deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float
from mujoco.rollout import Rollout

from teachers.process import divergence_expected
from teachers.runs.errors import InputError
from teachers.tasks.declaration import Physics
from teachers.tasks.disturbance import Disturbed, change_model_in_c
from teachers.tasks.host_call import (
    HostCallsUnsupportedError,
    call_on_host,
    register_function,
    require_host_calls,
)
from teachers.tasks.model_state import FULL_PHYSICS, pick_internal

# A position, velocity or acceleration beyond it has diverged, as in MuJoCo (mjMAXVAL).
LARGEST = 1e10
# Parts of `Physics` that a step changes.
INTEGRATED = ("qpos", "qvel", "warmstart", "internal", "sensordata")
# Each thread takes so many parts of the environments in turn: fewer leave threads idle at the end, more cost time each.
CHUNKS_PER_THREAD = 4
CONTROL = int(mujoco.mjtState.mjSTATE_CTRL)
FORCE_ON_BODIES = int(mujoco.mjtState.mjSTATE_XFRC_APPLIED)
MOCAP_POSES = int(mujoco.mjtState.mjSTATE_MOCAP_POS | mujoco.mjtState.mjSTATE_MOCAP_QUAT)

_threads = threading.Lock()  # the threads of `_rollout` serve one call at a time


def model_without_reset(model: mujoco.MjModel) -> mujoco.MjModel:
    """Returns a copy of a model with which MuJoCo does not reset a state that diverges by itself."""
    model = copy.deepcopy(model)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model


class Disturbance(NamedTuple):
    """What disturbs a control step of one environment."""

    body: int  # the heaviest one, on which the force acts
    model_change: Float[Array, "5"]  # as `change_model_in_c` takes it
    force: Float[Array, "2"]  # N, along x and y


class CSimulation(NamedTuple):
    """A model as MuJoCo C integrates it."""

    model: mujoco.MjModel
    digest: str  # identifies the model
    disturbance: Disturbance | None = None

    @property
    def engine(self) -> Literal["c"]:
        """The engine's name."""
        return "c"

    def advance(self, physics: Physics, control: Float[Array, "nu"], substeps: int) -> Physics:
        """Returns the physics of one environment after `substeps` physics steps with the same control.

        All its numbers are NaN if the state has diverged.
        """
        given = {name: part for name, part in physics._asdict().items() if part is not None}
        given["control"] = control
        body = 0
        if self.disturbance is not None:
            body, given["change"], given["force"] = self.disturbance
        names = tuple(given)
        key = f"{self.digest} {substeps} {body} {' '.join(names)}"
        register_function(key, lambda: _Batch(self.model, substeps, body, names))
        integrated = [name for name in INTEGRATED if name in given]
        shapes = [jax.ShapeDtypeStruct(given[name].shape, jnp.float32) for name in integrated]
        found = call_on_host(key, shapes, *given.values())
        return physics._replace(**dict(zip(integrated, found, strict=True)))

    def apply_disturbance(
        self, disturbed: Disturbed, body: int, force: Float[Array, "2"]
    ) -> "CSimulation":
        """Returns this simulation with a changed model, and with a force along x and y (N) on the heaviest body."""
        return self._replace(disturbance=Disturbance(body, disturbed.model_change, force))


def can_simulate_with_c() -> bool:
    """Returns whether JAX computes on a CPU and is of a version that can call MuJoCo C."""
    try:
        require_host_calls()
    except HostCallsUnsupportedError:
        return False
    return jax.default_backend() == "cpu"


def simulate_with_c(model: mujoco.MjModel, *, has_sensors: bool = False) -> CSimulation:
    """Returns the simulation of a model by MuJoCo C.

    Args:
        model: what is simulated.
        has_sensors: whether `Physics.sensordata` is computed.

    Raises:
        InputError: JAX computes on an accelerator or is of a version that cannot call MuJoCo C.
    """
    if jax.default_backend() != "cpu":
        raise InputError(
            f"physics 'c' needs JAX on the CPU, and JAX uses {jax.default_backend()}; set JAX_PLATFORMS=cpu, or use "
            "physics 'jax'"
        )
    try:
        require_host_calls()
    except HostCallsUnsupportedError as error:
        raise InputError(f"physics 'c' cannot be called from {error}; use physics 'jax'") from error
    model = model_without_reset(model)
    if not has_sensors:
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_SENSOR
    if model.ntree == 1:  # there is nothing to divide into islands, and looking for them takes time
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND
    saved = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, saved)
    return CSimulation(model, hashlib.sha256(saved.tobytes()).hexdigest())


class _Batch:
    """Advances a batch of environments by one control step."""

    def __init__(
        self, model: mujoco.MjModel, substeps: int, body: int, names: tuple[str, ...]
    ) -> None:
        """Prepares calls with arguments of these names, in this order."""
        self._model, self._substeps, self._body, self._names = model, substeps, body, names
        self._data = [mujoco.MjData(model) for _ in range(max(1, _thread_count()))]
        self._initial = np.empty(mujoco.mj_stateSize(model, FULL_PHYSICS))
        mujoco.mj_getState(model, self._data[0], self._initial, FULL_PHYSICS)
        # The models of the last call of each device, by their changes.
        self._changed = deque[dict[tuple[float, ...], mujoco.MjModel]](
            maxlen=jax.local_device_count()
        )
        self._changing = threading.Lock()

    def __call__(self, arguments: Sequence[np.ndarray], results: Sequence[np.ndarray]) -> None:
        """Computes `Physics` after the step.

        Args:
            arguments: the parts of `Physics`, the control, and where disturbed the changes of the models and the force. `[*batch, n]` each, mocap poses `[*batch, nmocap, 7]`.
            results: those of `INTEGRATED`, to be written.
        """
        model = self._model
        given = dict(zip(self._names, arguments, strict=True))
        count = math.prod(given["qpos"].shape[:-1])
        given = {
            name: array.reshape(count, *array.shape[-2 if name == "mocap" else -1 :])
            for name, array in given.items()
        }
        positions = slice(1, 1 + model.nq)  # after the time
        velocities = slice(1 + model.nq, 1 + model.nq + model.nv)
        control = given["control"]
        start = np.repeat(self._initial[None], count, axis=0)
        start[:, positions], start[:, velocities] = given["qpos"], given["qvel"]
        if "internal" in given:
            start[:, 0] = given["internal"][:, 0]
            start[:, 1 + model.nq + model.nv :] = given["internal"][:, 1:]
        # What the model is sent in a physics step, in MuJoCo's order.
        sent, specification = [control], CONTROL
        models = [model] * count
        if "change" in given:
            models = self._change_models(given["change"])
            sent.append(self._spread(given["force"]))
            specification |= FORCE_ON_BODIES
        if "mocap" in given:
            poses = given["mocap"]
            sent += [poses[:, :, :3].reshape(count, -1), poses[:, :, 3:].reshape(count, -1)]
            specification |= MOCAP_POSES
        controls = np.empty((count, self._substeps, sum(part.shape[1] for part in sent)))
        controls[:] = np.concatenate(sent, axis=1)[:, None]
        states = np.empty((count, self._substeps, len(self._initial)))
        sensed = None
        if "sensordata" in given:
            sensed = np.empty((count, self._substeps, model.nsensordata))
        with _threads, divergence_expected():
            _rollout().rollout(
                models,
                self._data,
                initial_state=start,
                control=controls,
                control_spec=specification,
                skip_checks=True,
                nstep=self._substeps,
                initial_warmstart=given["warmstart"].astype(np.float64),
                state=states,
                sensordata=sensed,
                chunk_size=max(1, count // (CHUNKS_PER_THREAD * max(1, _thread_count()))),
            )
        last = states[:, -1]
        before = states[:, -2] if self._substeps > 1 else start
        # What the next step starts its solver from: MuJoCo's own, but for implicit damping.
        acceleration = (last[:, velocities] - before[:, velocities]) / model.opt.timestep
        found = [last[:, positions], last[:, velocities], acceleration]
        if "internal" in given:
            found.append(pick_internal(model, last))
        if sensed is not None:
            found.append(sensed[:, -1])
        for result, value in zip(results, found, strict=True):
            result[...] = value.reshape(result.shape)
        # MuJoCo stops where a state diverges or its memory for contacts is full, and repeats the state in the remaining
        # physics steps, in which time stands still. A control step that was not completed is broken too.
        is_sound = (
            last[:, :1] - start[:, :1] > (self._substeps - 0.5) * model.opt.timestep,
            np.isfinite(control),
            np.abs(last[:, 1:]) < LARGEST,
            np.abs(acceleration) < LARGEST,
        )
        # By environment it takes ten times as long.
        if not all(numbers.all() for numbers in is_sound):
            is_broken = ~np.stack([numbers.all(axis=1) for numbers in is_sound]).all(axis=0)
            for result in results:
                result.reshape(count, -1)[is_broken] = np.nan

    def _change_models(self, changes: Float[np.ndarray, "env 5"]) -> list[mujoco.MjModel]:
        """Returns a model for each environment; those with the same change share one."""
        rows = [tuple(row) for row in changes.tolist()]
        with self._changing:
            known = ChainMap(*self._changed)
            models = {
                row: known.get(row) or change_model_in_c(self._model, row, self._body)
                for row in set(rows)
            }
            self._changed.append(models)
        return [models[row] for row in rows]

    def _spread(self, force: Float[np.ndarray, "env 2"]) -> Float[np.ndarray, "env forces"]:
        """Returns the forces and torques on all bodies."""
        forces = np.zeros((len(force), self._model.nbody, 6))
        forces[:, self._body, :2] = force
        return forces.reshape(len(force), -1)


@lru_cache(maxsize=1)
def _rollout() -> Rollout:
    """Returns the threads of this process that simulate."""
    return Rollout(nthread=_thread_count())


@lru_cache(maxsize=1)
def _thread_count() -> int:
    """Returns how many threads simulate: one for each core, or 0 if the calling thread does it alone."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return cores if cores > 1 else 0
