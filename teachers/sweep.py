"""Experiments: a grid of teachers, several seeds each, from one TOML file."""

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from pydantic import Field, field_validator
from scipy import stats

from teachers.checkpoint import checkpoint_steps
from teachers.config import Config, TeacherConfig, resolve, teacher_config
from teachers.evaluate import bootstrap_interval
from teachers.memory import parameter_counts
from teachers.metadata import finite
from teachers.plot import SweepFigure, plot_sweep
from teachers.progress import Progress, silent
from teachers.runlog import make_folder, read_metrics
from teachers.tasks import InputError
from teachers.train import DivergedError, train_seeds

SHIPPED = Path(__file__).parent / "sweeps"
RESULTS = "results.json"
DIVERGED = "diverged.txt"  # in the folder of a run that ended so
LAST = 5  # evaluations whose mean is a run's score, as in Wang et al. (arXiv 2503.14858)

# Names in a specification for several fields at once.
_GROUPS = {
    "": ("actor", "phi", "psi"),
    "critic.": ("phi", "psi"),
}
SHORT: Mapping[str, tuple[str, ...]] = {
    f"{prefix}{field}": tuple(f"{network}.{field}" for network in networks)
    for prefix, networks in _GROUPS.items()
    for field in ("depth", "width", "residual")
}

Value = str | int | float | bool


class SweepSpec(Config):
    """An experiment, as its TOML file describes it.

    `grid` and `cells` use the configuration's dotted keys, and for several networks at once `depth`, `width`,
    `residual`, `critic.depth`, `critic.width`, `critic.residual` (phi and psi) and `task`.
    """

    about: str = Field("", description="what it is to show")
    task: str = Field(description="a name or FILE.py:Class, unless the grid varies it")
    preset: str | None = None
    seeds: int = Field(3, ge=1, le=1000, description="runs of each cell, with seeds 0, 1, ...")
    at_once: Literal["auto", "all", "one"] = Field(
        "auto",
        description="seeds trained at once by vmap; auto: all on an accelerator, one on a CPU",
    )
    settings: dict[str, Any] = Field(
        {}, description="of all cells: any fields of the configuration"
    )
    grid: dict[str, list[Value]] = Field(
        {}, description="values by key: a cell for each combination"
    )
    cells: list[dict[str, Value]] = Field(
        [], description="further cells, each with its own settings"
    )
    figures: list[SweepFigure] = Field(["depth", "curves"], description="see `plot_sweep`")

    @field_validator("grid", mode="before")
    @classmethod
    def _flat_grid(cls, grid: Any) -> Any:
        return _flat(grid)

    @field_validator("cells", mode="before")
    @classmethod
    def _flat_cells(cls, cells: Any) -> Any:
        return [_flat(cell) for cell in cells] if isinstance(cells, list) else cells


class Cell(NamedTuple):
    """One combination of settings."""

    name: str  # such as `depth=16,width=64`
    varied: dict[str, Value]
    config: TeacherConfig  # with seed 0


def read_spec(spec: str) -> tuple[str, SweepSpec]:
    """An experiment's name and specification.

    Args:
        spec: a TOML file, or the name of one that is shipped, such as `cpu/depth`.

    Raises:
        InputError: there is no such file, or it is not a specification.
    """
    file = Path(spec)
    if not file.is_file():
        file = SHIPPED / f"{spec}.toml"
    if not file.is_file():
        raise InputError(
            f"there is no specification {spec!r}; give a TOML file or one of {', '.join(shipped())}"
        )
    return file.stem, resolve(SweepSpec, {}, file, None)


def shipped() -> list[str]:
    """The names of the specifications that come with the package."""
    files = sorted(SHIPPED.glob("*/*.toml"))
    return [str(file.relative_to(SHIPPED).with_suffix("")) for file in files]


def cells(spec: SweepSpec) -> list[Cell]:
    """All cells of an experiment, the grid's first.

    Raises:
        InputError: a setting is unknown or out of its range, or two cells are the same.
    """
    combinations = [
        dict(zip(spec.grid, values, strict=True))
        for values in itertools.product(*spec.grid.values())
    ]
    found: dict[str, Cell] = {}
    for varied in ([] if spec.cells and not spec.grid else combinations) + spec.cells:
        name = ",".join(f"{key}={value}" for key, value in varied.items()) or "only"
        name = name.replace("/", "_")
        if name in found:
            raise InputError(f"two cells are {name!r}; leave one out")
        task = str(varied.get("task", spec.task))
        fields = {
            field: value
            for key, value in varied.items()
            if key != "task"
            for field in SHORT.get(key, (key,))
        }
        config = teacher_config(task, None, _flat(spec.settings) | fields, spec.preset, "the sweep")
        found[name] = Cell(name, varied, config)
    return list(found.values())


def run_sweep(spec: SweepSpec, out: Path, *, progress: Progress = silent) -> list[dict[str, Any]]:
    """Trains what is not trained yet of an experiment, and leaves results in `out`.

    Every seed of every cell becomes an ordinary run in `out/CELL/seed-N`. Called again, it goes on where it stopped;
    a specification may have been extended since.

    Args:
        spec: as `read_spec` gives it.
        out: the experiment's folder.
        progress: called after each iteration, with the steps of all runs.

    Returns:
        A row for each cell, as `results.json` holds them; see `summarise`.

    Raises:
        InputError: a setting is bad, or `out` holds runs of another configuration.
    """
    out, planned = Path(out), cells(spec)
    for cell in planned:
        _require_same(cell, out, spec.seeds)
    make_folder(out)
    total = sum(cell.config.iterations * cell.config.steps_per_iteration for cell in planned)
    total, done = total * spec.seeds, 0
    for cell in planned:
        whole = cell.config.iterations * cell.config.steps_per_iteration
        for group in _groups(spec):
            report = partial(_report, progress, done, len(group), total)
            _train_group(cell, out, group, report)
            done += whole * len(group)
    rows = summarise(planned, out, spec.seeds)
    (out / RESULTS).write_text(json.dumps(finite(rows), indent=1) + "\n")
    for figure in spec.figures:
        plot_sweep(rows, figure, out / f"{figure}.png")
    return rows


def summarise(planned: Sequence[Cell], out: Path, seeds: int) -> list[dict[str, Any]]:
    """What came out: a row for each cell.

    A run's score is the mean over its last evaluations: `time_at_goal`, and for `success` `success_at_end`.

    Returns:
        Rows with `cell`, `varied`, `task`, `actor_depth`, `critic_depth`, `actor_width`, `critic_width` (phi's), `batch`,
        `parameters` (of all networks), `steps`, `seconds` (mean of a run), `diverged` (runs that ended so), `time_at_goal`
        and `success` (interquartile means over seeds), each with `_ci95` (its bootstrap interval) and `_by_seed`, and
        `curve`: `step`, and `success` by seed.
    """
    return [_summary(cell, [_folder(cell, out, seed) for seed in range(seeds)]) for cell in planned]


def _summary(cell: Cell, runs: Sequence[Path]) -> dict[str, Any]:
    config = cell.config
    logs = [read_metrics(run) for run in runs]
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
        "steps": config.iterations * config.steps_per_iteration,
        "seconds": float(np.mean([log[-1]["seconds"] for log in logs])),
        "diverged": sum((run / DIVERGED).exists() for run in runs),
    }
    for name, metric in (("time_at_goal", "time_at_goal"), ("success", "success_at_end")):
        # A run that diverged before its first evaluation reached nothing.
        scores = np.array(
            [np.mean([each[metric] for each in log[-LAST:]]) if log else 0.0 for log in evaluated]
        )
        row[name] = float(interquartile_mean(scores))
        row[f"{name}_ci95"] = bootstrap_interval(scores, interquartile_mean)
        row[f"{name}_by_seed"] = [float(score) for score in scores]
    longest = max(evaluated, key=len)
    row["curve"] = {
        "step": [each["step"] for each in longest],
        "success": [[each["success_at_end"] for each in log] for log in evaluated],
    }
    return row


def _report(
    progress: Progress,
    before: int,
    seeds: int,
    total: int,
    steps: int,
    _: int,
    figures: Mapping[str, Any],
) -> None:
    progress(before + steps * seeds, total, figures)


def _train_group(cell: Cell, out: Path, group: Sequence[int], progress: Progress) -> None:
    """Trains these seeds of a cell at once, as far as they are not done."""
    left = {seed: _folder(cell, out, seed) for seed in group}
    left = {seed: run for seed, run in left.items() if not _finished(run, cell.config)}
    begun = {seed: run for seed, run in left.items() if checkpoint_steps(run)}
    fresh = {seed: run for seed, run in left.items() if seed not in begun}
    for run in fresh.values():  # without a checkpoint there is nothing to go on from
        shutil.rmtree(run, ignore_errors=True)
    for runs, resume in ((begun, True), (fresh, False)):
        if not runs:
            continue
        try:
            train_seeds(cell.config, runs, resume=resume, progress=progress)
        except DivergedError as error:  # is a result, too
            for run in runs.values():
                (run / DIVERGED).write_text(f"{error}\n")


def _finished(run: Path, config: TeacherConfig) -> bool:
    steps = checkpoint_steps(run)
    return (run / DIVERGED).exists() or bool(steps and steps[-1] >= config.steps)


def _groups(spec: SweepSpec) -> list[range]:
    """Which seeds are trained at once."""
    # On a CPU a batch of seeds takes longer than one seed after the other: benchmarks/RESULTS.md.
    together = spec.at_once == "all" or (spec.at_once == "auto" and jax.default_backend() != "cpu")
    return (
        [range(spec.seeds)] if together else [range(seed, seed + 1) for seed in range(spec.seeds)]
    )


def _require_same(cell: Cell, out: Path, seeds: int) -> None:
    for seed in range(seeds):
        file = _folder(cell, out, seed) / "config.toml"
        if not file.exists():
            continue
        there = resolve(TeacherConfig, {}, file, None)
        if there != cell.config.model_copy(update={"seed": seed}):
            raise InputError(
                f"{file.parent} was trained with other settings; choose another --out, or remove it"
            )


def _folder(cell: Cell, out: Path, seed: int) -> Path:
    return out / cell.name / f"seed-{seed}"


def _flat(tree: Any, prefix: str = "") -> Any:
    """Nested tables as one, by dotted key."""
    if not isinstance(tree, Mapping):
        return tree
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def interquartile_mean(scores: Float[np.ndarray, "*n"], axis: int = -1) -> Any:
    """The mean of the middle half; of fewer than four scores, of all. Agarwal et al. (arXiv 2108.13264)."""
    return stats.trim_mean(scores, 0.25, axis=axis)
