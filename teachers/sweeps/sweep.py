"""Runs experiments: trains the runs that are missing, and writes and draws their results."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import jax
import numpy as np
from etils import epath

from teachers.config import TeacherConfig
from teachers.crl.memory import (
    COMFORTABLE_SHARE,
    device_memory,
    parameter_counts,
    training_memory,
)
from teachers.crl.training_programs import TrainingPrograms, teacher_programs
from teachers.measures import summarise_seeds
from teachers.process import in_32_bits
from teachers.runs.checkpoint_choice import read_newest_sound
from teachers.runs.checkpoint_files import checkpoint_steps, remove_training_state
from teachers.runs.checkpoints import read_metadata
from teachers.runs.configuration import resolve_config, without_engine
from teachers.runs.errors import DivergedError, InputError
from teachers.runs.layout import CONFIG
from teachers.runs.lock import lock_folder
from teachers.runs.metadata import replace_non_finite
from teachers.runs.outputs import create_marked_folder, read_marker, write_atomically
from teachers.runs.progress import Progress, ignore_progress
from teachers.runs.run_log import read_metrics
from teachers.sweeps.figures import plot_sweep
from teachers.sweeps.specification import Cell, SweepSpec, expand_cells
from teachers.tasks import Task
from teachers.tasks.load import portable_reference
from teachers.tasks.registry import get_task, require_same_task_file
from teachers.train import require_fitting, require_learning, train_seeds

RESULTS = "results.json"
SPECIFICATION = "sweep.json"  # marks a folder as that of an experiment
SCORED_EVALUATIONS = (
    5  # the last ones, whose mean is a run's score as in Wang et al. (arXiv 2503.14858)
)


@in_32_bits
def run_sweep(
    spec: SweepSpec, out: epath.PathLike, *, progress: Progress = ignore_progress
) -> list[dict[str, Any]]:
    """Trains those runs of an experiment that are not trained yet, and writes results and figures in `out`.

    Every seed of every cell becomes an ordinary run in `out/CELL/seed-N`. Once it is finished, the state to resume it from
    is removed. Called again, the function goes on where it stopped; the specification may have been extended since.

    Args:
        spec: the specification; see `read_spec`.
        out: the experiment's folder: a new one, or that of an experiment.
        progress: called after each iteration, with the control steps of all runs.

    Returns:
        A row for each cell, as `results.json` holds them; see `summarise`.

    Raises:
        InputError: a setting is invalid, a run does not fit in memory, or `out` holds something else.
    """
    out, cells = epath.Path(out), expand_cells(spec)
    read_marker(out, SPECIFICATION, "a sweep")  # raises an error if `out` holds anything else
    for cell in cells:
        require_learning(cell.config)
        require_fitting(cell.config, 1)
        _require_same_settings(cell, out, spec.seeds)
    with lock_folder(out):
        for cell in cells:  # another sweep may have ended meanwhile
            _require_same_settings(cell, out, spec.seeds)
        create_marked_folder(out, SPECIFICATION, spec.model_dump_json(indent=1) + "\n")
        return _train_cells(spec, cells, out, progress)


def _train_cells(
    spec: SweepSpec, cells: Sequence[Cell], out: epath.Path, progress: Progress
) -> list[dict[str, Any]]:
    """Trains what is missing of an experiment, and returns and writes its rows; see `run_sweep`."""
    total, done = spec.seeds * sum(_run_steps(cell.config) for cell in cells), 0
    rows: list[dict[str, Any]] = []
    programs: TrainingPrograms | None = None
    for cell in cells:
        unfinished = [
            seed
            for seed in range(spec.seeds)
            if not _is_finished(_run_folder(cell, out, seed), cell)
        ]
        done += (spec.seeds - len(unfinished)) * _run_steps(cell.config)
        for group in _group_seeds(spec, cell, out, unfinished):
            if programs is None or not programs.can_train(cell.config, len(group)):
                programs = teacher_programs(cell.config, len(group))
            _train_group(cell, out, group, programs, done, total, progress)
            done += len(group) * _run_steps(cell.config)
        rows.append(summarise(cell, [_run_folder(cell, out, seed) for seed in range(spec.seeds)]))
        write_atomically(out / RESULTS, json.dumps(replace_non_finite(rows), indent=1) + "\n")
    for figure in spec.figures:
        plot_sweep(rows, figure, out / f"{figure}.png")
    return rows


def summarise(cell: Cell, runs: Sequence[epath.Path]) -> dict[str, Any]:
    """Returns the results of a cell over its seeds.

    A run's score is the mean over its last five evaluations: of `time_at_goal`, and for `success` of `success_at_end`.

    Args:
        cell: the cell.
        runs: the folders of its runs, one for each seed.

    Returns:
        A row with `cell`, `varied`, `task`, `actor_depth`, `critic_depth`, `actor_width`, `critic_width` (phi's), `batch`,
        `parameters` (of all networks), `steps`, `seconds` (mean of the runs; for seeds trained at once, of all together),
        `diverged` (number of runs), `time_at_goal` and `success` (interquartile means over seeds), each with `_ci95` (its
        bootstrap interval) and `_by_seed`, and `curve`: `step`, and `success` by seed.

    Raises:
        InputError: a run's metrics are missing.
    """
    config = cell.config
    logs = [_read_log(run) for run in runs]
    if not all(logs):
        missing = runs[[bool(log) for log in logs].index(False)]
        raise InputError(f"{missing} has no metrics; remove that folder to train it again")
    evaluated = [[row for row in log if "success_at_end" in row] for log in logs]
    row: dict[str, Any] = {
        "cell": cell.name,
        "varied": cell.varied,
        "task": portable_reference(config.task),
        "actor_depth": config.actor.depth,
        "critic_depth": config.phi.depth,
        "actor_width": config.actor.width,
        "critic_width": config.phi.width,
        "batch": config.learning.batch,
        "parameters": sum(parameter_counts(config).values()),
        "steps": _run_steps(config),
        "seconds": float(np.mean([log[-1]["seconds"] for log in logs])),
        "diverged": sum(_has_diverged(log, config) for log in logs),
    }
    for name, metric in (("time_at_goal", "time_at_goal"), ("success", "success_at_end")):
        # A run that diverged before its first evaluation gets a score of 0.
        scores = [
            float(np.mean([each[metric] for each in log[-SCORED_EVALUATIONS:]])) if log else 0.0
            for log in evaluated
        ]
        row |= summarise_seeds(name, scores)
    row["curve"] = {
        "step": [each["step"] for each in max(evaluated, key=len)],
        "success": [[each["success_at_end"] for each in log] for log in evaluated],
    }
    return row


def _train_group(
    cell: Cell,
    out: epath.Path,
    group: Sequence[int],
    programs: TrainingPrograms,
    done: int,
    total: int,
    progress: Progress,
) -> None:
    """Trains seeds of a cell at once, all from the start or all from a checkpoint of the same step."""
    runs = {seed: _run_folder(cell, out, seed) for seed in group}

    def report(steps: int, _: int, figures: Mapping[str, Any]) -> None:
        progress(done + steps * len(runs), total, figures)

    with suppress(DivergedError):  # Divergence is a result, which the metrics of the runs record.
        train_seeds(cell.config, runs, resume=True, progress=report, programs=programs)
    for run in runs.values():
        remove_training_state(run)


def _group_seeds(
    spec: SweepSpec, cell: Cell, out: epath.Path, unfinished: Sequence[int]
) -> list[list[int]]:
    """Returns the unfinished seeds in groups that are trained at once."""
    group_size = _group_size(spec, cell.config)
    # Seeds can be resumed together only from a checkpoint of the same step.
    by_newest_checkpoint: dict[tuple[int, ...], list[int]] = {}
    for seed in unfinished:
        newest = tuple(checkpoint_steps(_run_folder(cell, out, seed))[-1:])
        by_newest_checkpoint.setdefault(newest, []).append(seed)
    return [
        seeds[first : first + group_size]
        for seeds in by_newest_checkpoint.values()
        for first in range(0, len(seeds), group_size)
    ]


def _group_size(spec: SweepSpec, config: TeacherConfig) -> int:
    """Returns how many seeds are trained at once."""
    if spec.at_once == "all":
        return spec.seeds
    if spec.at_once == "one" or jax.default_backend() == "cpu":
        # On a CPU, a batch of seeds takes longer than one seed after the other: benchmarks/notes/training-cost.md.
        return 1
    run_memory = sum(training_memory(config).values())
    # One run is copied to be saved.
    return max(1, int(COMFORTABLE_SHARE * device_memory() / run_memory) - 1)


def _is_finished(run: epath.Path, cell: Cell) -> bool:
    """Returns whether a run has taken its steps, or has diverged, and was saved then."""
    log = _read_log(run)
    if not log or log[-1]["step"] not in checkpoint_steps(run):
        return False
    return bool(log[-1]["step"] >= cell.config.steps or _has_diverged(log, cell.config))


def _has_diverged(log: Sequence[Mapping[str, Any]], config: TeacherConfig) -> bool:
    newest = log[-1]
    # Runs of early versions ended by the number of all skipped steps.
    skipped = newest.get("skipped_in_a_row", newest["skipped_updates"])
    return bool(skipped > config.learning.max_skipped)


def _read_log(run: epath.Path) -> list[dict[str, Any]]:
    try:
        return read_metrics(run)
    except FileNotFoundError:
        return []


def _require_same_settings(cell: Cell, out: epath.Path, seeds: int) -> None:
    """Raises an error if a run of the cell was trained with other settings, or another file of the task, than now."""
    for seed in range(seeds):
        file = _run_folder(cell, out, seed) / CONFIG
        if not file.exists():
            continue
        try:
            saved = resolve_config(TeacherConfig, {}, file, None)
        except InputError as error:
            raise InputError(f"{file}: {error}; remove {file.parent} to train it again") from None
        expected = cell.config.model_copy(update={"seed": seed})
        # As they are written: a task's file may lie elsewhere now.
        if without_engine(saved.model_dump()) != without_engine(expected.model_dump()):
            raise InputError(
                f"{file.parent} was trained with other settings; choose another --out, or remove it"
            )
        _require_same_task_file(file.parent, get_task(cell.config.task))


def _require_same_task_file(run: epath.Path, task: Task) -> None:
    if task.source and checkpoint_steps(run):
        metadata = read_newest_sound(run, lambda step: read_metadata(run, step), "newest")
        require_same_task_file(metadata, task, run)


def _run_steps(config: TeacherConfig) -> int:
    return config.iterations * config.steps_per_iteration


def _run_folder(cell: Cell, out: epath.Path, seed: int) -> epath.Path:
    return out / cell.name / f"seed-{seed}"
