"""Resumes training from the newest sound checkpoint, and checks that it is one of the same training."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from etils import epath

from teachers.config import TeacherConfig
from teachers.crl.iteration import TrainingState
from teachers.crl.state_checkpoint import restore_state
from teachers.crl.training_programs import TrainingPrograms
from teachers.crl.training_run import RunRecord, TrainingRun, record_at_checkpoint
from teachers.runs.checkpoint_choice import read_newest_sound
from teachers.runs.checkpoint_files import checkpoint_steps, has_item
from teachers.runs.checkpoints import read_metadata, require_kind
from teachers.runs.configuration import stored_config
from teachers.runs.errors import InputError
from teachers.runs.metadata import FORMAT_VERSION
from teachers.runs.paths import require_reachable
from teachers.runs.resume import find_resume_point, prepare_folders
from teachers.tasks.engines import warn_of_other_engine
from teachers.tasks.registry import get_task, open_task, require_same_task_file


def resume_training(
    runs: Sequence[TrainingRun], programs: TrainingPrograms
) -> tuple[TrainingState, list[RunRecord]] | None:
    """Reads the state at the newest step of which all runs have a sound checkpoint, and prepares their folders.

    Args:
        runs: the runs that are trained at once.
        programs: their compiled functions.

    Returns:
        The state, in which the arrays of several runs have a leading axis of runs, and the record of each run; None if a
        run has no checkpoint, because it ended before its first.

    Raises:
        InputError: a run is of another configuration or finished, or all of its checkpoints are damaged.
    """
    for run in runs:
        require_reachable(run.folder)
        if checkpoint_steps(run.folder):
            run.require_resumable()
    point = find_resume_point({run.folder: partial(_read, run, programs) for run in runs})
    if point is None:
        return None
    for run in runs:
        if point.step >= run.config.steps:
            raise InputError(
                f"{run.folder} already has {point.step} steps; ask for more with --steps"
            )
    prepare_folders([run.folder for run in runs], point)
    states, records = zip(*point.contents, strict=True)
    state = jax.device_put(_stack(states), programs.state_shardings)
    return state, list(records)


def _read(
    run: TrainingRun, programs: TrainingPrograms, step: int
) -> tuple[TrainingState, RunRecord]:
    metadata = read_metadata(run.folder, step)
    keeps_best = run.result == "best"
    state, params = restore_state(programs, run.folder, step, metadata, keeps_best=keeps_best)
    return state, record_at_checkpoint(run, params, metadata.metrics)


def _stack(states: Sequence[TrainingState]) -> TrainingState:
    if len(states) == 1:
        return states[0]
    return jax.tree.map(lambda *each: jnp.stack(each), *states)


def require_same_teacher(config: TeacherConfig, run: epath.Path) -> None:
    """Raises an error if training with `config` cannot be resumed from the checkpoints of a run.

    Raises:
        InputError: they belong to another configuration, another file of the task or an older format, or hold no state to resume from.
    """
    metadata = read_newest_sound(run, lambda step: require_kind(run, "teacher", step), "newest")
    if metadata.format_version < FORMAT_VERSION:
        raise InputError(
            f"{run} was made by an older crl-distill: it can be used, but not resumed; choose another --out"
        )
    task = get_task(config.task)
    open_task(metadata, task, str(run))
    require_same_task_file(metadata, task, run)
    saved = stored_config(TeacherConfig, metadata.config, str(run))
    if _with_changeable_settings(saved, config) != config:
        raise InputError(
            f"{run} was trained with another configuration; repeat its options (see {run / 'config.toml'}) "
            "or choose another --out"
        )
    warn_of_other_engine(run, saved.rollout.physics, config.rollout.physics)
    if not any(has_item(run, step, "training") for step in checkpoint_steps(run)):
        raise InputError(
            f"{run} holds no state to resume from: it was shared without it, or belongs to a finished experiment; "
            "choose another --out"
        )


def _with_changeable_settings(saved: TeacherConfig, config: TeacherConfig) -> TeacherConfig:
    """Returns the saved configuration with those settings of `config` that a resumed run may change.

    These are the length, the logging, the physics engine, the use of memory and the place of the task's file. None of them
    changes what is trained, but for the length where `learning.entropy_fall` or `learning.rate_fall` is not 0.
    """
    rollout = saved.rollout.model_copy(update={"physics": config.rollout.physics})
    learning = saved.learning.model_copy(
        update={name: getattr(config.learning, name) for name in ("remat", "max_skipped")}
    )
    return saved.model_copy(
        update={
            "steps": config.steps,
            "logging": config.logging,
            "task": config.task,
            "rollout": rollout,
            "learning": learning,
        }
    )
