"""Writes the files for a robot, once they have been shown to compute what JAX does."""

import time
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from etils import epath

from export.calibration import fit_reachability, observed_ranges
from export.closed_loop import MIN_EPISODES
from export.contract import Contract, Parity, Precision, Units
from export.contract_writer import attach_contract, make_contract
from export.convert import OPSET, convert
from export.onnx_card import render_onnx_card
from export.parity import (
    MAX_ROWS,
    TOLERANCE,
    ParityRows,
    collect_parity_rows,
    compare_sequences,
    compute_agent_values,
    compute_graph_values,
    graph_inputs,
    measure_closed_loop,
    measure_parity,
    record_episodes,
)
from export.policies import AgentPolicy, GraphPolicy
from export.precision import reduce_precision
from export.session import GraphFunction, open_session
from export.signature import Role, agent_signature
from teachers.agent import Agent
from teachers.measures import format_interval, spearman
from teachers.process import in_32_bits
from teachers.runs.errors import InputError
from teachers.runs.outputs import require_unused, write_atomically
from teachers.runs.paths import create_folder
from teachers.runs.progress import Progress, ignore_progress

CARD = "README.md"
TIMED_CALLS = 20


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
        """Returns the roles of the files."""
        return ("combined",) if self.combined else ("policy", "critic")


def parse_precision(dtype: str, quantize: str | None) -> Precision:
    """Returns the precision that a user asks for with `--dtype` and `--quantize`.

    Raises:
        InputError: there is no such precision.
    """
    if quantize is None and dtype in ("float32", "float16"):
        return "float32" if dtype == "float32" else "float16"
    if quantize == "int8" and dtype == "float32":
        return "int8"
    raise InputError(
        f"dtype {dtype!r} with quantize {quantize!r} cannot be written; give --dtype float32 or float16, or "
        "--quantize int8"
    )


@in_32_bits
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

    The files are compared with JAX on the observations of episodes that the student plays in MuJoCo C, and then play the
    same episodes themselves. In float16 or int8 the policy must keep its time at goal, and the critic the order of its
    values.

    Args:
        student: a student, such as `load_student` or `distill_teacher` returns, or a teacher.
        out: a new folder.
        form: how the files are written.
        min_retention: in float16 and int8, the lower limit of the file's time at goal over JAX's, which the whole interval
            must reach, and of the rank correlation of its values with JAX's.
        seed: seed of the episodes.
        progress: called as the episodes advance.

    Returns:
        The paths of the files by role, and that of the model card, `card`; `parity`, the largest absolute difference
        from JAX over 4,096 steps, and for a policy that remembers over whole episodes, by role, with actions in [-1, 1],
        and the largest of these, `parity_max_abs`;
        what the file did in MuJoCo C (see `teachers.measures.summary`), its time at goal over JAX's on the same episodes,
        `retention`, and the rank correlation of its values with JAX's, `critic_spearman`.

    Raises:
        InputError: `out` holds something already, the opset cannot be written, the file keeps less than `min_retention`, a
            teacher is to be written in another precision than float32, or is privileged. Nothing is left in `out`.
        ParityError: a float32 file differs from JAX by more than 1e-4. Nothing is left in `out`.
    """
    form, out, task = form or Form(), epath.Path(out), student.task
    is_teacher = student.metadata.kind == "teacher"
    if is_teacher and form.precision != "float32":
        raise InputError(
            f"a teacher is not written in {form.precision}; distill it, and export the student"
        )
    if task.knows_disturbances and is_teacher:
        raise InputError(
            "a privileged teacher observes what no robot measures; distill it, and export the student"
        )
    require_unused(out)
    float32_models = {
        role: convert(student, role, units=form.units, opset=form.opset) for role in form.roles
    }
    create_folder(out)
    episodes = max(MIN_EPISODES, -(-MAX_ROWS // task.episode_steps))
    trajectory = record_episodes(student, episodes, seed, progress)
    rows = collect_parity_rows(student, trajectory, seed)
    signature = agent_signature(student.networks)
    models = {
        role: reduce_precision(
            model, form.precision, graph_inputs(task, signature, rows, role, form.units)
        )
        for role, model in float32_models.items()
    }
    functions = {role: open_session(model) for role, model in models.items()}
    actor_role, critic_role = form.roles[0], form.roles[-1]
    if is_teacher:
        _warn_about_latency(student, functions[actor_role], rows, form)
    policy = GraphPolicy(functions[actor_role], signature, task, form.units)
    parity = {
        role: measure_parity(task, signature, function, rows, role, form.units)
        for role, function in functions.items()
    }
    if signature.memory_size:
        difference = compare_sequences(trajectory, policy, AgentPolicy(student))
        parity[actor_role] = max(parity[actor_role], difference)
    largest_difference = float(np.max(list(parity.values())))
    # A NaN fails this comparison too.
    if not largest_difference <= (TOLERANCE if form.precision == "float32" else np.inf):
        raise ParityError(
            f"the exported files differ from JAX by {largest_difference:.2g}, more than {TOLERANCE:g}; nothing was "
            "written"
        )
    figures = measure_closed_loop(task, policy, trajectory, seed, progress)
    values = compute_graph_values(
        student, functions[critic_role], critic_role, form.units, trajectory
    )
    figures["critic_spearman"] = spearman(
        values.ravel(), compute_agent_values(student, trajectory).ravel()
    )
    if form.precision != "float32":
        _require_retention(figures, form.precision, min_retention)
    ranges, range_source = observed_ranges(student.metadata, trajectory, signature.reads)
    reachability = fit_reachability(task, trajectory, values)
    contracts: dict[Role, Contract] = {
        role: make_contract(
            student,
            role,
            model,
            units=form.units,
            observed_ranges=ranges,
            range_source=range_source,
            parity=Parity(max_abs=parity[role], inputs=len(rows.value), seed=seed),
            reachability=None if role == "policy" else reachability,
            metrics={f"exported_{name}": value for name, value in figures.items()},
        )
        for role, model in models.items()
    }
    return {
        **_write_files(out, models, contracts),
        "parity": parity,
        "parity_max_abs": largest_difference,
        **figures,
    }


def _write_files(
    out: epath.Path, models: Mapping[Role, onnx.ModelProto], contracts: Mapping[Role, Contract]
) -> dict[str, str]:
    """Writes each model with its contract, and the model card; returns the paths."""
    paths: dict[str, str] = {}
    for role, model in models.items():
        attach_contract(model, contracts[role])
        paths[role] = str(out / f"{role}.onnx")
        write_atomically(paths[role], model.SerializeToString())
    paths["card"] = str(out / CARD)
    write_atomically(paths["card"], render_onnx_card(contracts))
    return paths


def _warn_about_latency(
    teacher: Agent, function: GraphFunction, rows: ParityRows, form: Form
) -> None:
    """Warns how long an action of a teacher takes on this machine, and how long its control period is."""
    first_row = ParityRows(*(array[:1] for array in rows))
    signature = agent_signature(teacher.networks)
    inputs = graph_inputs(teacher.task, signature, first_row, form.roles[0], form.units)
    seconds = []
    for _ in range(TIMED_CALLS):
        start = time.perf_counter()
        function(inputs)
        seconds.append(time.perf_counter() - start)
    warnings.warn(
        f"a teacher: an action takes {1000 * float(np.median(seconds)):.3g} ms here, and the control period is "
        f"{1000 * teacher.task.control_period:g} ms; distill it for a robot",
        stacklevel=3,
    )


def _require_retention(figures: Mapping[str, Any], precision: Precision, lower: float) -> None:
    """Raises an error if the file's time at goal or the order of its values falls below a limit; 0 is no limit."""
    ratio, correlation = figures["retention"], figures["critic_spearman"]
    remedy = "export in float32, or accept less (nothing was written)"
    if lower == 0:
        return
    if ratio is None:
        raise InputError(
            f"the student never reaches a goal, so that its retention in {precision} cannot be measured; export in "
            "float32, or with --min-retention 0"
        )
    interval = figures["retention_ci95"]
    if interval[0] < lower:
        raise InputError(
            f"in {precision} the policy keeps {ratio:.3f} {format_interval(interval)} of its time at goal, "
            f"{'less than' if ratio < lower else 'which may be less than'} --min-retention {lower:g}; {remedy}"
        )
    if correlation is None or correlation < lower:
        raise InputError(
            f"in {precision} the critic's values have a rank correlation of {correlation or 0:.3f} with JAX's, less "
            f"than --min-retention {lower:g}; {remedy}"
        )
