"""The running of experiments: what is not trained yet is trained, and the results are drawn."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import jax
import numpy as np
from etils import epath

from teachers.config import TeacherConfig
from teachers.crl.memory import COMFORTABLE, device_memory, parameter_counts, training_memory
from teachers.measures import summarise_seeds
from teachers.runs.checkpoint_files import checkpoint_steps, remove_training_state
from teachers.runs.configuration import resolve_config
from teachers.runs.errors import InputError
from teachers.runs.metadata import replace_non_finite
from teachers.runs.outputs import create_marked_folder, read_marker, write_atomically
from teachers.runs.progress import Progress, ignore_progress
from teachers.runs.run_log import read_metrics
from teachers.sweeps.figures import plot_sweep
from teachers.sweeps.specification import Cell, SweepSpec, cells
from teachers.train import DivergedError, require_fitting, train_seeds

RESULTS = "results.json"
SPECIFICATION = "sweep.json"  # marks a folder as an experiment's
LAST = 5  # evaluations whose mean is a run's score, as in Wang et al. (arXiv 2503.14858)


def run_sweep(
    spec: SweepSpec, out: epath.PathLike, *, progress: Progress = ignore_progress
) -> list[dict[str, Any]]:
    """Trains what is not trained yet of an experiment, and leaves results in `out`.

    Every seed of every cell becomes an ordinary run in `out/CELL/seed-N`, without the state to resume it from once it
    is done. Called again, it goes on where it stopped; a specification may have been extended since.

    Args:
        spec: as `read_spec` gives it.
        out: the experiment's folder: new, or one of an experiment.
        progress: called after each iteration, with the steps of all runs.

    Returns:
        A row for each cell, as `results.json` holds them; see `summarise`.

    Raises:
        InputError: a setting is bad, a run does not fit in memory, or `out` holds something else.
    """
    out, planned = epath.Path(out), cells(spec)
    read_marker(out, SPECIFICATION, "a sweep")  # raises an error if `out` holds anything else
    for cell in planned:
        require_fitting(cell.config, 1)
        _require_same(cell, out, spec.seeds)
    create_marked_folder(out, SPECIFICATION, spec.model_dump_json(indent=1) + "\n")
    total, done = spec.seeds * sum(_steps(cell.config) for cell in planned), 0
    rows: list[dict[str, Any]] = []
    for cell in planned:
        left = [seed for seed in range(spec.seeds) if not _finished(_folder(cell, out, seed), cell)]
        done += (spec.seeds - len(left)) * _steps(cell.config)
        for group in _groups(spec, cell, out, left):
            _train_group(cell, out, group, done, total, progress)
            done += len(group) * _steps(cell.config)
        rows.append(summarise(cell, [_folder(cell, out, seed) for seed in range(spec.seeds)]))
        write_atomically(out / RESULTS, json.dumps(replace_non_finite(rows), indent=1) + "\n")
    for figure in spec.figures:
        plot_sweep(rows, figure, out / f"{figure}.png")
    return rows


def summarise(cell: Cell, runs: Sequence[epath.Path]) -> dict[str, Any]:
    """What came out of a cell, of which `runs` are the folders, one for each seed.

    A run's score is the mean over its last evaluations: `time_at_goal`, and for `success` `success_at_end`.

    Returns:
        A row with `cell`, `varied`, `task`, `actor_depth`, `critic_depth`, `actor_width`, `critic_width` (phi's), `batch`,
        `parameters` (of all networks), `steps`, `seconds` (mean of a run; of seeds trained at once, of all of them),
        `diverged` (runs that did), `time_at_goal` and `success` (interquartile means over seeds), each with `_ci95` (its
        bootstrap interval) and `_by_seed`, and `curve`: `step`, and `success` by seed.

    Raises:
        InputError: a run's metrics are missing.
    """
    config = cell.config
    logs = [_metrics(run) for run in runs]
    if not all(logs):
        missing = runs[[bool(log) for log in logs].index(False)]
        raise InputError(f"{missing} has no metrics; remove that folder to train it again")
    evaluated = [[row for row in log if "success_at_end" in row] for log in logs]
    row: dict[str, Any] = {
        "cell": cell.name,
        "varied": cell.varied,
        "task": config.task,
        "actor_depth": config.actor.depth,
        "critic_depth": config.phi.depth,
        "actor_width": config.actor.width,
        "critic_width": config.phi.width,
        "batch": config.learning.batch,
        "parameters": sum(parameter_counts(config).values()),
        "steps": _steps(config),
        "seconds": float(np.mean([log[-1]["seconds"] for log in logs])),
        "diverged": sum(_diverged(log, config) for log in logs),
    }
    for name, metric in (("time_at_goal", "time_at_goal"), ("success", "success_at_end")):
        # A run that diverged before its first evaluation reached nothing.
        scores = [
            float(np.mean([each[metric] for each in log[-LAST:]])) if log else 0.0
            for log in evaluated
        ]
        row |= summarise_seeds(name, scores)
    row["curve"] = {
        "step": [each["step"] for each in max(evaluated, key=len)],
        "success": [[each["success_at_end"] for each in log] for log in evaluated],
    }
    return row


def _train_group(
    cell: Cell, out: epath.Path, group: Sequence[int], done: int, total: int, progress: Progress
) -> None:
    """Trains these seeds of a cell at once, all from the start or all from a checkpoint of the same step."""
    runs = {seed: _folder(cell, out, seed) for seed in group}

    def report(steps: int, _: int, figures: Mapping[str, Any]) -> None:
        progress(done + steps * len(runs), total, figures)

    with suppress(DivergedError):  # is a result, too: the runs' metrics say so
        train_seeds(cell.config, runs, resume=True, progress=report)
    for run in runs.values():
        remove_training_state(run)


def _groups(spec: SweepSpec, cell: Cell, out: epath.Path, left: Sequence[int]) -> list[list[int]]:
    """Which of the seeds that are left are trained at once."""
    if spec.at_once == "all":
        most = spec.seeds
    elif spec.at_once == "one" or jax.default_backend() == "cpu":
        most = 1  # on a CPU a batch of seeds takes longer than one after the other: benchmarks/notes/training-cost.md
    else:
        each = sum(training_memory(cell.config).values())
        most = max(1, int(COMFORTABLE * device_memory() / each) - 1)  # one is copied to be saved
    begun: dict[tuple[int, ...], list[int]] = {}
    for seed in left:  # those together that stopped together
        begun.setdefault(tuple(checkpoint_steps(_folder(cell, out, seed))[-1:]), []).append(seed)
    return [
        seeds[first : first + most]
        for seeds in begun.values()
        for first in range(0, len(seeds), most)
    ]


def _finished(run: epath.Path, cell: Cell) -> bool:
    """Whether a run has reached its steps, or diverged, and is saved."""
    log = _metrics(run)
    if not log or log[-1]["step"] not in checkpoint_steps(run):
        return False
    return bool(log[-1]["step"] >= cell.config.steps or _diverged(log, cell.config))


def _diverged(log: Sequence[Mapping[str, Any]], config: TeacherConfig) -> bool:
    return bool(log[-1]["skipped_updates"] > config.learning.max_skipped)


def _metrics(run: epath.Path) -> list[dict[str, Any]]:
    try:
        return read_metrics(run)
    except FileNotFoundError:
        return []


def _require_same(cell: Cell, out: epath.Path, seeds: int) -> None:
    for seed in range(seeds):
        file = _folder(cell, out, seed) / "config.toml"
        if not file.exists():
            continue
        try:
            there = resolve_config(TeacherConfig, {}, file, None)
        except InputError as error:
            raise InputError(f"{file}: {error}; remove {file.parent} to train it again") from None
        if there != cell.config.model_copy(update={"seed": seed}):
            raise InputError(
                f"{file.parent} was trained with other settings; choose another --out, or remove it"
            )


def _steps(config: TeacherConfig) -> int:
    return config.iterations * config.steps_per_iteration


def _folder(cell: Cell, out: epath.Path, seed: int) -> epath.Path:
    return out / cell.name / f"seed-{seed}"
