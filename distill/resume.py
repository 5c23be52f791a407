"""Checkpoints of a distillation that is not finished, and resuming it from them.

They lie in the folder `unfinished` of the run, which is removed once the student is saved.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
from etils import epath

from distill.config import DistillConfig
from distill.programs import DistillPrograms
from distill.state import DistillState
from teachers.agent import Teacher, describe_teacher
from teachers.crl.memory import total_bytes
from teachers.runs.checkpoint_choice import read_newest_sound
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.checkpoint_writer import CheckpointWriter
from teachers.runs.checkpoints import (
    read_items,
    read_metadata,
    require_kind,
    warn_on_main_process,
)
from teachers.runs.configuration import stored_config, without_engine
from teachers.runs.errors import InputError
from teachers.runs.layout import UNFINISHED
from teachers.runs.metadata import FORMAT_VERSION, Metadata, library_versions
from teachers.runs.outputs import free_bytes, remove_progress
from teachers.runs.resume import find_resume_point, prepare_folders
from teachers.tasks.engines import warn_of_other_engine
from teachers.tasks.registry import require_same_task_file

ITEM = "distillation"


@dataclass
class Position:
    """How far a distillation has come.

    Attributes:
        state: after the rounds.
        rounds: number of rounds done, in all phases of learning together.
        figures: the newest value of each figure.
        seconds: that the distillation has taken, by stage.
        total_seconds: that it has taken in all.
    """

    state: DistillState
    rounds: int
    figures: dict[str, Any]
    seconds: dict[str, float]
    total_seconds: float


class PositionWriter:
    """Saves checkpoints from which a distillation can be resumed. Use it as a context manager."""

    def __init__(self, run: epath.Path, config: DistillConfig, teacher: Teacher) -> None:
        """Opens a run's folder for writing.

        Args:
            run: the folder.
            config: of the distillation.
            teacher: its teacher.

        Raises:
            SaveError: the folder cannot be written.
        """
        self._writer = CheckpointWriter(run / UNFINISHED)
        self._run, self._config, self._teacher = run, config, teacher

    def save(self, position: Position) -> bool:
        """Starts writing a checkpoint; the arrays of the state may be donated once this returns.

        Where the disk has no room for it beside the one before, it is left out with a warning.

        Returns:
            Whether the disk has room.

        Raises:
            SaveError: this checkpoint, or the one before it, cannot be written.
        """
        free = free_bytes(self._run)
        # The checkpoint before may still be being written, and then its bytes are not yet taken.
        checkpoints = 2 if self._writer.is_saving() else 1
        if free is not None and checkpoints * total_bytes(position.state) > free:
            saved = checkpoint_steps(self._run / UNFINISHED)
            then = f"goes on from round {saved[-1]:,}" if saved else "begins again"
            warn_on_main_process(
                f"{self._run} has too little room for a checkpoint: if it is interrupted, the distillation {then}"
            )
            return False
        metadata = Metadata(
            kind="student",
            task=self._teacher.metadata.task,
            task_source=self._teacher.metadata.task_source,
            task_digest=self._teacher.metadata.task_digest,
            sizes=self._teacher.task.sizes,
            networks={},
            config=self._config.with_engine().model_dump(exclude_none=True),
            metrics={
                "figures": position.figures,
                "seconds": position.seconds,
                "total_seconds": position.total_seconds,
            },
            lineage={"teacher": self._teacher_description},
            versions=library_versions(),
        )
        self._writer.save(position.rounds, metadata, {ITEM: _to_items(position.state)})
        return True

    @cached_property
    def _teacher_description(self) -> dict[str, Any]:
        return describe_teacher(self._teacher)  # reads all parameters

    def __enter__(self) -> "PositionWriter":
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)


def resume_distillation(
    run: epath.Path, config: DistillConfig, teacher: Teacher, programs: DistillPrograms
) -> Position | None:
    """Reads the newest sound checkpoint of an unfinished distillation, and prepares its folder.

    Args:
        run: the run's folder.
        config: of the distillation.
        teacher: its teacher.
        programs: its compiled stages.

    Returns:
        None if there is no checkpoint, because the distillation ended before its first.

    Raises:
        InputError: the run is finished, a teacher's, or of another configuration or teacher; or all checkpoints are damaged.
    """
    if checkpoint_steps(run):
        read_newest_sound(run, lambda step: require_kind(run, "student", step), "newest")
        remove_progress(run)  # of a call that was killed at its end
        raise InputError(f"{run} is finished: load its student, or choose another --out")
    folder = run / UNFINISHED
    point = find_resume_point({folder: partial(_read, run, config, teacher, programs)})
    if point is None:
        return None
    prepare_folders([folder], point)
    return point.contents[0]


def is_resumable(run: epath.Path) -> bool:
    """Returns whether a folder holds a checkpoint of an unfinished distillation."""
    return bool(checkpoint_steps(run / UNFINISHED))


def _read(
    run: epath.Path,
    config: DistillConfig,
    teacher: Teacher,
    programs: DistillPrograms,
    rounds: int,
) -> Position:
    folder = run / UNFINISHED
    metadata = read_metadata(folder, rounds)
    if metadata.format_version < FORMAT_VERSION:
        raise InputError(
            f"{run} was begun by an older crl-distill, and cannot be resumed; choose another --out"
        )
    require_same_task_file(metadata, teacher.task, run)
    saved = stored_config(DistillConfig, metadata.config, str(run))
    settings = {name: getattr(config, name) for name in ("checkpoint_every", "episodes")}
    wanted = saved.model_copy(update=settings)
    if without_engine(wanted.model_dump()) != without_engine(config.model_dump()):
        raise InputError(
            f"{run} was distilled with another configuration; repeat its options (see {run / 'config.toml'}) or "
            "choose another --out"
        )
    if metadata.lineage["teacher"]["digest"] != describe_teacher(teacher)["digest"]:
        raise InputError(f"{run} was distilled from another teacher; choose another --out")
    like = programs.sharded_state
    warn_of_other_engine(run, saved.collect.physics, config.collect.physics)
    items = read_items(folder, rounds, {ITEM: _to_items(like)}, metadata)[ITEM]
    leaves = [items[name] for name in sorted(items)]
    figures = metadata.metrics
    return Position(
        state=jax.tree.unflatten(jax.tree.structure(like), leaves),
        rounds=rounds,
        figures=figures["figures"],
        seconds=figures["seconds"],
        total_seconds=figures["total_seconds"],
    )


def _to_items(state: DistillState) -> dict[str, Any]:
    """Returns the arrays of a state by number, because Orbax saves no empty fields."""
    return {f"{number:05}": leaf for number, leaf in enumerate(jax.tree.leaves(state))}
