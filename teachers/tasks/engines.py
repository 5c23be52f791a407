"""The engines that compute a task's physics: MuJoCo C, MJX's implementation in JAX, and NVIDIA's Warp kernels behind MJX."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
from etils import epath
from jaxtyping import Array, Float

from teachers.process import mjx
from teachers.runs.checkpoints import warn_on_main_process
from teachers.runs.errors import InputError
from teachers.tasks.c_engine import can_simulate_with_c
from teachers.tasks.declaration import Physics
from teachers.tasks.disturbance import Disturbed, change_model
from teachers.tasks.fusion import limit_fusion
from teachers.tasks.kinematics import fill_data

Engine = Literal["c", "jax", "warp"]
EngineChoice = Literal["auto", "c", "jax", "warp"]
ENGINE_HELP = "engine that computes the physics: c (MuJoCo C, on all cores), jax or warp (MJX); auto: c on a CPU, else jax"


def choose_engine(choice: EngineChoice) -> Engine:
    """Returns the engine of a configuration; `auto` is MuJoCo C where JAX computes on a CPU, else MJX's JAX code."""
    if choice != "auto":
        return choice
    return "c" if can_simulate_with_c() else "jax"


def warn_of_other_engine(run: epath.Path, saved: EngineChoice, choice: EngineChoice) -> None:
    """Warns if a run that is resumed was simulated by another engine so far.

    Args:
        run: its folder.
        saved: the engine that it was simulated by.
        choice: of the configuration with which it is resumed.
    """
    engine = choose_engine(choice)
    if saved not in (engine, "auto"):
        warn_on_main_process(
            f"{run} was simulated with physics {saved!r} so far and is with {engine!r} from now on, with other rounding; "
            "choose with --physics"
        )


class MjxSimulation(NamedTuple):
    """A model as one of MJX's implementations integrates it, with data at rest."""

    model: mjx.Model
    data: mjx.Data

    @property
    def engine(self) -> Engine:
        """The engine's name."""
        return "jax" if self.model.impl == mjx.Impl.JAX else "warp"

    def advance(self, physics: Physics, control: Float[Array, "nu"], substeps: int) -> Physics:
        """Returns the physics of one environment after `substeps` physics steps with the same control."""

        @limit_fusion
        def integrate(physics: Physics, control: Float[Array, "nu"]) -> Physics:
            data = mjx.step(self.model, self._fill(physics, control))
            internal = physics.internal
            if internal is not None:
                internal = jnp.concatenate([data.time[None], data.act])
            sensordata = None if physics.sensordata is None else data.sensordata
            return Physics(
                data.qpos, data.qvel, data.qacc_warmstart, internal, physics.mocap, sensordata
            )

        return jax.lax.fori_loop(
            0, substeps, lambda _, physics: integrate(physics, control), physics
        )

    def apply_disturbance(
        self, disturbed: Disturbed, body: int, force: Float[Array, "2"]
    ) -> "MjxSimulation":
        """Returns this simulation with a changed model, and with a force along x and y (N) on the heaviest body."""
        forces = self.data.xfrc_applied.at[body, :2].set(force)
        return MjxSimulation(
            change_model(self.model, disturbed, body), self.data.replace(xfrc_applied=forces)
        )

    def _fill(self, physics: Physics, control: Float[Array, "nu"]) -> mjx.Data:
        data = fill_data(self.data, physics, control)
        return data.replace(qacc_warmstart=physics.warmstart)


def simulate_with_jax(model: mujoco.MjModel, task_name: str) -> MjxSimulation:
    """Returns the simulation of a model by MJX's implementation in JAX.

    Raises:
        InputError: MJX does not support a feature of the model; the message names it.
    """
    # By default MJX uses the first device of all, which may belong to another machine.
    device = jax.local_devices()[0]
    # The first use may be inside a trace.
    with _explain_unsupported(task_name), jax.ensure_compile_time_eval():
        if model.nhistory or model.npluginstate:  # which MJX would leave out without a word
            raise ValueError("delays and plugins with a state")
        return MjxSimulation(
            mjx.put_model(model, device=device), mjx.make_data(model, device=device)
        )


def require_sensors_of_mjx(simulation: Any, task_name: str) -> None:
    """Raises an error if MJX would leave some of a model's sensors at 0.

    Raises:
        InputError: it would, because it stops before accelerations and forces where nothing is constrained.
    """
    stages = simulation.model.sensor_needstage
    has_constraints = simulation.model.impl != mjx.Impl.JAX or simulation.data._impl.efc_J.size
    if (stages == mujoco.mjtStage.mjSTAGE_ACC).any() and not has_constraints:
        raise InputError(
            f"MJX does not compute the accelerometers and force sensors of task {task_name}, because its model has no contact, "
            "limit or other constraint; use physics 'c', or add a joint's range"
        )


def simulate_with_warp(
    model: mujoco.MjModel, task_name: str, *, contacts: int, constraints: int
) -> MjxSimulation:
    """Returns the simulation of a model by NVIDIA's Warp kernels.

    Args:
        model: of one environment.
        task_name: for messages.
        contacts: of all environments together, for which Warp allocates memory.
        constraints: of one environment.

    Raises:
        InputError: Warp cannot run here, or does not support the model; the message says which.
    """
    import warp
    from mujoco.mjx.third_party import mujoco_warp

    warp.config.log_level = warp.LOG_WARNING  # otherwise it reports on stdout what it loads
    try:
        with jax.ensure_compile_time_eval():
            put = mjx.put_model(model, impl="warp")
            data = mjx.make_data(model, impl="warp", naconmax=contacts, njmax=constraints)
            # Tasks choose few solver iterations on purpose, so that reaching them is no cause for a warning.
            overflow = mujoco_warp.OverflowType
            warnings = put.opt._impl.warn_overflow & ~int(
                overflow.ITERATIONS | overflow.LS_ITERATIONS
            )
            put = put.tree_replace({"opt._impl.warn_overflow": warnings})
    except (NotImplementedError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(
            f"physics 'warp' cannot simulate task {task_name} here: {error}; use physics 'jax'"
        ) from None
    return MjxSimulation(put, data)


def require_warp() -> None:
    """Raises an error if Warp is not installed.

    Raises:
        InputError: it is not.
    """
    if importlib.util.find_spec("warp") is None:
        raise InputError(
            "physics 'warp' needs the package warp-lang, which is not installed; "
            "pip install 'crl-distill[warp]', or use physics 'jax'"
        )


def require_engine_with_disturbances(engine: Engine) -> None:
    """Raises an error if an engine cannot simulate disturbances.

    Raises:
        InputError: it is Warp.
    """
    if engine == "warp":
        raise InputError(
            "physics 'warp' simulates no disturbances; use physics 'jax', or leave the disturbances out"
        )


@contextlib.contextmanager
def _explain_unsupported(task_name: str) -> Iterator[None]:
    try:
        yield
    except (NotImplementedError, ValueError) as error:
        raise InputError(
            f"MJX does not take the model of task {task_name}: {error}; use physics 'c', or build it without that feature"
        ) from error
