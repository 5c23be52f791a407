"""The files that a robot gets: written, and proved to compute what JAX does."""

import time
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from export.calibration import fit_reachability, ranges
from export.contract import (
    INPUTS,
    OUTPUTS,
    Contract,
    Parity,
    Precision,
    Role,
    Units,
    attach,
    contract,
)
from export.convert import OPSET, convert
from export.onnx_card import onnx_card
from export.precision import reduced
from export.session import Function, open_session
from teachers.agent import Agent
from teachers.measures import measure_outcomes, retention, spearman, summary
from teachers.runs.errors import InputError
from teachers.runs.outputs import create_folder, require_unused, write_atomically
from teachers.runs.progress import Progress, ignore_progress
from teachers.simulation.play import play_in_c
from teachers.simulation.trajectory import Trajectory, distance_until_termination
from teachers.tasks import Task

OBSERVATIONS = 4096  # on which parity is measured
LEAST_EPISODES = 64  # that reachability is fitted to
TOLERANCE = 1e-4  # of float32 files: in actions in [-1, 1], and in values
CARD = "README.md"


class ParityError(RuntimeError):
    """An exported file does not compute what JAX does."""


class Form(NamedTuple):
    """How an agent is written to files."""

    combined: bool = False  # one file with both heads
    units: Units = "task"  # of actions
    opset: int = OPSET
    precision: Precision = "float32"

    @property
    def roles(self) -> tuple[Role, ...]:
        """Of the files."""
        return ("combined",) if self.combined else ("policy", "critic")


def chosen_precision(dtype: str, quantize: str | None) -> Precision:
    """The precision that a user asks for.

    Raises:
        InputError: there is none such.
    """
    if quantize is None and dtype in ("float32", "float16"):
        return "float32" if dtype == "float32" else "float16"
    if quantize == "int8" and dtype == "float32":
        return "int8"
    raise InputError(
        f"dtype {dtype!r} with quantize {quantize!r} cannot be written; give --dtype float32 or float16, or "
        "--quantize int8"
    )


class Rows(NamedTuple):
    """States that a policy met, with what JAX computes there."""

    observation: Float[np.ndarray, "rows obs"]
    goal: Float[np.ndarray, "rows goal"]
    action: Float[np.ndarray, "rows act"]  # in [-1, 1]
    value: Float[np.ndarray, "rows"]


def export_student(
    student: Agent,
    out: epath.PathLike,
    form: Form | None = None,
    *,
    min_retention: float = 0.95,
    seed: int = 0,
    progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Writes `policy.onnx` and `critic.onnx`, or `combined.onnx`, and a model card beside them.

    They are compared with JAX on the observations of episodes that the student plays in MuJoCo C, and play the same
    episodes themselves. In a precision other than float32 the policy has to keep its time at goal, and the critic the
    order of its values.

    Args:
        student: as `load_student` or `distill_teacher` gives it, or a teacher.
        out: a new folder.
        form: of the files.
        min_retention: of another precision: the least time at goal over JAX's, and the least rank correlation of values.
        seed: of the episodes.
        progress: called as they advance.

    Returns:
        The files' paths by role, and `card`, that of the model card; `parity`, the largest absolute difference from JAX
        over 4,096 observations, by role, actions in [-1, 1], and `parity_max_abs`, the largest of these; what the
        file did in MuJoCo C (see `teachers.evaluate.summary`), its `retention` of what JAX did on the same episodes, and
        `critic_spearman`, the rank correlation of its values with JAX's.

    Raises:
        InputError: `out` is taken, the opset cannot be written, retention is too low, or a teacher is wanted in another
            precision; nothing is left in `out`.
        ParityError: a float32 file differs from JAX by more than 1e-4; nothing is left in `out`.
    """
    form, out, task = form or Form(), epath.Path(out), student.task
    is_teacher = student.metadata.kind == "teacher"
    if is_teacher and form.precision != "float32":
        raise InputError(
            f"a teacher is not written in {form.precision}; distill it, and export the student"
        )
    require_unused(out)
    models = {
        role: convert(student, role, units=form.units, opset=form.opset) for role in form.roles
    }
    create_folder(out)
    episodes = max(LEAST_EPISODES, -(-OBSERVATIONS // task.episode_steps))
    recording = record(student, episodes, seed, progress)
    rows = rows_of(student, recording, seed)
    models = {
        role: reduced(model, form.precision, inputs(task, rows, role, form.units))
        for role, model in models.items()
    }
    functions = {role: open_session(model) for role, model in models.items()}
    if is_teacher:
        one = Rows(*(array[:1] for array in rows))
        took = _milliseconds(functions[form.roles[0]], inputs(task, one, form.roles[0], form.units))
        warnings.warn(
            f"a teacher: an action takes {took:.3g} ms here, and {1000 * task.control_period:g} ms lie between two; "
            "distill it for a robot",
            stacklevel=2,
        )
    parity = {
        role: measure_parity(task, function, rows, role, form.units)
        for role, function in functions.items()
    }
    worst = float(np.max(list(parity.values())))
    if not worst <= (TOLERANCE if form.precision == "float32" else np.inf):  # also of NaN
        raise ParityError(
            f"the exported files differ from JAX by {worst:.2g}, more than {TOLERANCE:g}; nothing was written"
        )
    figures = _played(task, functions, recording, form, seed, progress)
    values = _values(task, functions, recording, form)
    figures["critic_spearman"] = spearman(
        values.ravel(), _values_in_jax(student, recording).ravel()
    )
    _require_kept(figures, form, min_retention)
    seen, seen_in = ranges(student.metadata, recording)
    fitted = fit_reachability(task, recording, values)
    described: dict[Role, Contract] = {
        role: contract(
            student,
            role,
            model,
            units=form.units,
            seen=seen,
            seen_in=seen_in,
            parity=Parity(max_abs=parity[role], inputs=len(rows.value), seed=seed),
            reachability=None if role == "policy" else fitted,
            metrics={f"exported_{name}": value for name, value in figures.items()},
        )
        for role, model in models.items()
    }
    for role, model in models.items():
        attach(model, described[role])
        write_atomically(out / f"{role}.onnx", model.SerializeToString())
    write_atomically(out / CARD, onnx_card(described))
    return {
        **{role: str(out / f"{role}.onnx") for role in models},
        "card": str(out / CARD),
        "parity": parity,
        "parity_max_abs": worst,
        **figures,
    }


def _milliseconds(function: Function, given: Mapping[str, np.ndarray], calls: int = 20) -> float:
    took = []
    for _ in range(calls):
        begun = time.perf_counter()
        function(given)
        took.append(time.perf_counter() - begun)
    return 1000 * float(np.median(took))


def record(
    agent: Agent, episodes: int, seed: int, progress: Progress = ignore_progress
) -> Trajectory:
    """Episodes that an agent's policy plays in MuJoCo C, computed by JAX; arguments as of `play_in_c`."""
    act = jax.jit(agent.networks.policy)

    def policy(observation: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.asarray(act(agent.params, observation, goal))

    return play_in_c(agent.task, policy, episodes, seed, progress)


def rows_of(agent: Agent, recording: Trajectory, seed: int) -> Rows:
    """Up to 4,096 of the states of a recording, with what JAX computes there.

    Args:
        agent: whose policy and critic are asked.
        recording: of its episodes.
        seed: of the choice.
    """
    steps, episodes = recording.observation.shape[:2]
    chosen = np.random.default_rng(seed).permutation(steps * episodes)[:OBSERVATIONS]
    at = np.unravel_index(chosen, (steps, episodes))
    observation, goal = recording.observation[at], recording.goal[at]
    action = np.asarray(jax.jit(agent.networks.policy)(agent.params, observation, goal))
    value = jax.jit(agent.networks.critic)(agent.params, observation, goal, action)
    return Rows(observation, goal, action, np.asarray(value))


def measure_parity(task: Task, function: Function, rows: Rows, role: Role, units: Units) -> float:
    """The largest absolute difference of a file's outputs from JAX's, with actions in [-1, 1].

    Args:
        task: the agent's.
        function: what the file computes.
        rows: where it is compared.
        role: of the file.
        units: of its actions.
    """
    found = function(inputs(task, rows, role, units))
    if units == "task" and "action" in found:
        found["action"] = task.from_actuator_units(found["action"])
    worst = [np.abs(found[name] - getattr(rows, name)).max() for name in OUTPUTS[role]]
    return float(np.max(worst))  # NaN, if any is


def inputs(task: Task, rows: Rows, role: Role, units: Units) -> Mapping[str, np.ndarray]:
    """What a file of this role is given in these states, by name."""
    action = task.to_actuator_units(rows.action) if units == "task" else rows.action
    given = {"observation": rows.observation, "goal": rows.goal, "action": action}
    return {name: given[name] for name in INPUTS[role]}


def _values_in_jax(agent: Agent, recording: Trajectory) -> Float[np.ndarray, "time env"]:
    """f(s, a, g) of every step."""
    critic = jax.jit(agent.networks.critic)
    steps = recording.observation, recording.goal, recording.action
    return np.asarray(critic(agent.params, *steps))


def _values(
    task: Task, functions: Mapping[Role, Function], recording: Trajectory, form: Form
) -> Float[np.ndarray, "time env"]:
    """What the files say of every step."""
    role = form.roles[-1]
    observation, goal, action = (
        array.reshape(-1, array.shape[-1])
        for array in (recording.observation, recording.goal, recording.action)
    )
    rows = Rows(observation, goal, action, np.zeros(len(goal), np.float32))
    found = functions[role](inputs(task, rows, role, form.units))["value"]
    return found.reshape(recording.distance.shape)


def _played(
    task: Task,
    functions: Mapping[Role, Function],
    reference: Trajectory,
    form: Form,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """What the file does on the episodes of the reference, which JAX played."""
    function = functions[form.roles[0]]

    def act(observation: np.ndarray, goal: np.ndarray) -> np.ndarray:
        action = function({"observation": observation, "goal": goal})["action"]
        return task.from_actuator_units(action) if form.units == "task" else action

    episodes = reference.goal.shape[1]
    recording = play_in_c(task, act, episodes, seed, progress)
    played, expected = (
        measure_outcomes(task, distance_until_termination(each)) for each in (recording, reference)
    )
    kept, interval = retention(played.time_at_goal, expected.time_at_goal)
    return {**summary(played), "retention": kept, "retention_ci95": interval}


def _require_kept(figures: Mapping[str, Any], form: Form, least: float) -> None:
    kept, rank = figures["retention"], figures["critic_spearman"]
    remedy = "export in float32, or accept less (nothing was written)"
    if form.precision == "float32" or least == 0:
        return
    if kept is None:
        raise InputError(
            "the student never reaches a goal, so that it cannot be said what it keeps in "
            f"{form.precision}; export in float32, or with --min-retention 0"
        )
    if kept < least:
        raise InputError(
            f"in {form.precision} the policy keeps {kept:.3f} of its time at goal, less than --min-retention {least:g}; "
            f"{remedy}"
        )
    if rank is None or rank < least:
        raise InputError(
            f"in {form.precision} the critic's values have a rank correlation of {rank or 0:.3f} with JAX's, less than "
            f"--min-retention {least:g}; {remedy}"
        )
