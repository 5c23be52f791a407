"""The checkpoints in a run's folder as files: listing, renaming and removing them, without reading what they hold.

A checkpoint is the folder `checkpoints/STEP/` with the items `metadata` and `checksums` (JSON), `params` (the networks)
and, for runs that can be resumed, `training` (the rest of the training state) and `replay`.
"""

import jax
import orbax.checkpoint as ocp
from etils import epath

from teachers.runs.errors import InputError
from teachers.runs.layout import checkpoints_folder
from teachers.runs.paths import list_folder, require_reachable, translate_storage_errors

TEMPORARY = ".orbax-checkpoint-tmp"  # in the names of checkpoints that Orbax is still writing
# On gs://, where Orbax finds no atomic rename, a finished checkpoint holds this file instead.
FINISHED_MARK = "commit_success.txt"


def checkpoint_steps(run: epath.PathLike) -> list[int]:
    """Returns the control steps of a run's finished checkpoints, oldest first; an empty list if it has none."""
    named = [entry for entry in list_folder(checkpoints_folder(run)) if entry.name.isdecimal()]
    return sorted(int(entry.name) for entry in named if ocp.utils.is_checkpoint_finalized(entry))


def require_checkpoints(run: epath.PathLike) -> list[int]:
    """Returns `checkpoint_steps` of a run that must have some.

    Raises:
        InputError: `run` does not exist or holds no checkpoint.
    """
    require_reachable(run)
    with translate_storage_errors(run):
        if not epath.Path(run).exists():
            raise InputError(
                f"{run} does not exist; give the folder of a teacher's or student's run"
            )
        steps = checkpoint_steps(run)
        if not steps and (unmarked := _unmarked_checkpoints(run)):
            raise InputError(
                f"{run} holds no finished checkpoint: {unmarked[-1]} was interrupted, or copied there from another "
                "kind of storage; `crl-distill share pack` and `unpack` copy runs correctly"
            )
    if not steps:
        raise InputError(
            f"{run} holds no checkpoint; give the folder of a teacher's or student's run"
        )
    return steps


def has_item(run: epath.PathLike, step: int, item: str) -> bool:
    """Returns whether a run's checkpoint of control step `step` holds an item."""
    folder = checkpoints_folder(run) / str(step)
    return any(entry.name == item for entry in list_folder(folder))


def set_damaged_aside(run: epath.PathLike, step: int) -> None:
    """Renames a damaged checkpoint to `STEP.damaged`, so that a new one can be written in its place."""
    checkpoint = checkpoints_folder(run) / str(step)
    aside = checkpoint.with_name(f"{step}.damaged")
    if aside.exists():
        aside.rmtree()
    checkpoint.rename(aside)


def remove_later_checkpoints(run: epath.PathLike, step: int) -> None:
    """Removes the checkpoints of a run that were made after control step `step`."""
    for later in checkpoint_steps(run):
        if later > step:
            (checkpoints_folder(run) / str(later)).rmtree()


def remove_earlier_checkpoints(run: epath.PathLike, step: int) -> None:
    """Removes the checkpoints of a run that were made before control step `step`."""
    for earlier in checkpoint_steps(run):
        if earlier < step:
            (checkpoints_folder(run) / str(earlier)).rmtree()


def remove_unfinished_checkpoints(run: epath.PathLike) -> list[str]:
    """Removes what a killed or failed save left half-written, and returns the names of the removed folders."""
    if jax.process_index():
        return []
    entries = list_folder(checkpoints_folder(run))
    temporary = [entry for entry in entries if TEMPORARY in entry.name]
    unfinished = [*temporary, *_unmarked_checkpoints(run)]
    for checkpoint in unfinished:
        checkpoint.rmtree(missing_ok=True)
    return sorted(checkpoint.name for checkpoint in unfinished)


def remove_training_state(run: epath.PathLike) -> None:
    """Removes the state to resume from, which is most of a checkpoint, from all of a run's; the networks stay."""
    for step in checkpoint_steps(run):
        for item in ("training", "replay"):
            (checkpoints_folder(run) / str(step) / item).rmtree(missing_ok=True)


def mark_checkpoints_finished(run: epath.PathLike) -> None:
    """Marks all checkpoints of a run as finished, if the run was copied from storage that needs no such mark."""
    for checkpoint in _unmarked_checkpoints(run):
        (checkpoint / FINISHED_MARK).write_bytes(b"")


def _unmarked_checkpoints(run: epath.PathLike) -> list[epath.Path]:
    """Returns the checkpoints without the mark of being finished; none on storage that needs no mark."""
    folder = checkpoints_folder(run)
    if not ocp.utils.is_gcs_path(folder):
        return []
    named = [entry for entry in list_folder(folder) if entry.name.isdecimal()]
    return sorted(entry for entry in named if not (entry / FINISHED_MARK).exists())
