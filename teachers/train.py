"""Trains teachers, or any other networks, by contrastive reinforcement learning."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from etils import epath

from teachers.agent import Agent, Teacher
from teachers.config import TeacherConfig
from teachers.crl.memory import require_memory, training_memory
from teachers.crl.parameters import Params, count_parameters
from teachers.crl.training_loop import run_training
from teachers.crl.training_programs import TrainingPrograms, teacher_programs
from teachers.crl.training_run import RunRecord, TrainingResult, TrainingRun
from teachers.process import in_32_bits
from teachers.resume import require_same_teacher, resume_training
from teachers.runs.checkpoint_files import remove_unfinished_checkpoints
from teachers.runs.checkpoints import warn_on_main_process
from teachers.runs.devices import on_main_process, require_same_settings
from teachers.runs.errors import InputError
from teachers.runs.lock import lock_folder
from teachers.runs.metadata import Metadata, library_versions
from teachers.runs.outputs import new_run_folder, remove_unfinished_run, require_unused
from teachers.runs.progress import Progress, ignore_progress
from teachers.tasks.load import describe_origin
from teachers.tasks.registry import get_task


def train_teacher(
    config: TeacherConfig,
    out: epath.PathLike,
    *,
    resume: bool = False,
    progress: Progress = ignore_progress,
    programs: TrainingPrograms | None = None,
) -> Teacher:
    """Trains a teacher and writes checkpoints, metrics and TensorBoard events into `out`.

    Args:
        config: what to train, and for how long; see `teacher_config`.
        out: the run's folder: a new one, or with `resume` one that holds a run of the same configuration.
        resume: whether to go on from the newest sound checkpoint; a run without checkpoints begins anew.
            `config.steps` may have been raised since.
        progress: called after each iteration.
        programs: the compiled functions of another training that differs in seed, length and logging alone, to save the
            time to compile them again; see `teacher_programs`.

    Returns:
        The trained teacher, as `load_teacher(out)` opens it.

    Raises:
        InputError: `out` is taken, cannot be resumed with this configuration, or the run does not fit in memory.
        DivergedError: more than `learning.max_skipped` gradient steps in a row were not finite; the networks before
            them are saved.
        StoppedError: SIGTERM was received; the state is saved.
        SaveError: a checkpoint could not be written, for example because the disk is full.
    """
    (teacher,) = train_seeds(
        config, {config.seed: out}, resume=resume, progress=progress, programs=programs
    )
    return teacher


@in_32_bits
def train_seeds(
    config: TeacherConfig,
    runs: Mapping[int, epath.PathLike],
    *,
    resume: bool = False,
    progress: Progress = ignore_progress,
    programs: TrainingPrograms | None = None,
) -> list[Teacher]:
    """Trains a teacher for each of several seeds at once, batched by `jax.vmap`.

    Args:
        config: what to train; its own seed does not matter.
        runs: the folder of the run of each seed. Each becomes an ordinary run, as `train_teacher` leaves it.
        resume: whether to go on from the newest sound checkpoint that all runs have; if one has none, all begin anew.
        progress: called after each iteration, with the steps of one run and the figures of the first.
        programs: see `train_teacher`; for as many seeds.

    Returns:
        The trained teachers, in the order of `runs`.

    Raises:
        InputError, StoppedError, SaveError: as `train_teacher`.
        DivergedError: all runs have diverged.
        ValueError: `programs` are those of another training.
    """
    if programs is None:
        programs = teacher_programs(config, len(runs))
    elif not programs.can_train(config, len(runs)):
        raise ValueError("the programs were made for another configuration or number of seeds")
    digest = get_task(config.task).source_digest  # the file may be another one on another machine
    require_same_settings(f"{config.to_toml()} {digest} {[str(out) for out in runs.values()]}")
    require_fitting(config, len(runs))
    teacher_runs = [
        TeacherRun(epath.Path(out), config.model_copy(update={"seed": seed}))
        for seed, out in runs.items()
    ]
    results = train_runs(teacher_runs, programs, resume=resume, progress=progress)
    return [
        Agent(programs.networks, result.params, run.config, result.metadata)
        for run, result in zip(teacher_runs, results, strict=True)
    ]


@in_32_bits
def train_runs(
    runs: Sequence[TrainingRun],
    programs: TrainingPrograms,
    *,
    resume: bool,
    progress: Progress,
) -> list[TrainingResult]:
    """Trains runs of any networks at once, from their start or from a checkpoint.

    Args:
        runs: the runs, whose configurations differ in the seed alone.
        programs: their compiled functions.
        resume: see `train_seeds`.
        progress: see `train_seeds`.

    Returns:
        The result of each run.

    Raises:
        InputError: a folder is taken, or holds a run that cannot be resumed, or no gradient step would be taken.
        DivergedError, StoppedError, SaveError: see `run_training`.
    """
    require_learning(runs[0].config)
    if not resume:
        for run in runs:
            on_main_process(partial(require_unused, run.folder))
    with ExitStack() as folders:
        for run in runs:
            folders.enter_context(lock_folder(run.folder))
        if resume and (resumed := resume_training(runs, programs)):
            return run_training(runs, programs, *resumed, progress)
        for run in runs:
            if resume:
                on_main_process(partial(_remove_run_without_checkpoint, run.folder))
                warn_on_main_process(f"{run.folder} holds no checkpoint: the run begins")
            folders.enter_context(new_run_folder(run.folder))
        seeds = np.array([run.config.seed for run in runs], np.uint32)
        state = programs.init(seeds if len(runs) > 1 else seeds[0])
        return run_training(runs, programs, state, [RunRecord({}) for _ in runs], progress)


def require_learning(config: TeacherConfig) -> None:
    """Raises an error if a run would end before its first gradient step.

    Raises:
        InputError: it would.
    """
    first = config.prefill_iterations * config.steps_per_iteration
    if config.iterations <= config.prefill_iterations:
        raise InputError(
            f"the run has {config.steps:,} steps, and rollout.prefill_steps = {config.rollout.prefill_steps:,} lets the first "
            f"{first:,} pass without a gradient step; raise steps, or lower rollout.prefill_steps"
        )


def require_fitting(config: TeacherConfig, seeds: int) -> None:
    """Raises an error if so many runs at once do not fit in the memory of the device.

    Raises:
        InputError: they do not fit.
    """
    # When several runs are trained at once, the state of one is copied to be saved.
    copies = seeds if seeds == 1 else seeds + 1
    remedy = "" if seeds == 1 else "the seeds trained at once, "
    require_memory(
        copies * sum(training_memory(config, seeds=seeds).values()),
        f"{remedy}rollout.environments, rollout.replay_steps, learning.batch, depth or width",
    )


@dataclass(frozen=True)
class TeacherRun(TrainingRun):
    """The run of a teacher."""

    def describe(self, params: Params, metrics: dict[str, Any]) -> Metadata:
        """Returns the description of a teacher with these parameters and figures."""
        return teacher_metadata(self.config, params, metrics)

    def require_resumable(self) -> None:
        """See `require_same_teacher`."""
        require_same_teacher(self.config, self.folder)


def teacher_metadata(config: TeacherConfig, params: Params, metrics: dict[str, Any]) -> Metadata:
    """Returns the description of a teacher that its checkpoints hold.

    Args:
        config: its configuration.
        params: its parameters.
        metrics: its figures, among them the `steps` of its training.
    """
    task = get_task(config.task)
    return Metadata(
        kind="teacher",
        task=task.name,
        **describe_origin(task),
        sizes=task.sizes,
        networks={
            name: {
                **getattr(config, name).model_dump(),
                "residual": "zero" if getattr(config, name).zero_branches else "published",
                "parameters": count_parameters(params[name]),
            }
            for name in ("actor", "phi", "psi")
        },
        config=config.with_engine().model_dump(),
        metrics=metrics,
        lineage={},
        versions=library_versions(),
    )


def _remove_run_without_checkpoint(folder: epath.Path) -> None:
    """Removes what a run wrote that ended before its first checkpoint."""
    remove_unfinished_checkpoints(folder)
    remove_unfinished_run(folder)
