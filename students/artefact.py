"""Saves and loads students: checkpoints like a teacher's, which name the teacher they were distilled from."""

from etils import epath

from students.config import SavedStudentConfig
from students.networks import student_networks
from teachers.agent import Agent
from teachers.process import in_32_bits
from teachers.runs.checkpoint_choice import CheckpointChoice, read_newest_sound
from teachers.runs.checkpoint_files import (
    checkpoint_steps,
    has_item,
    remove_unfinished_checkpoints,
)
from teachers.runs.checkpoint_writer import CheckpointWriter
from teachers.runs.checkpoints import read_metadata, read_params, require_kind
from teachers.runs.configuration import (
    Config,
    resolve_config,
    stored_config,
    without_engine,
)
from teachers.runs.errors import InputError
from teachers.runs.layout import CONFIG, UNFINISHED
from teachers.runs.lock import lock_folder
from teachers.runs.outputs import remove_progress, remove_unfinished_run
from teachers.runs.paths import translate_storage_errors
from teachers.tasks import Task
from teachers.tasks.registry import open_task, require_same_task_file

Student = Agent[SavedStudentConfig]


@in_32_bits
def save_student(student: Student, run: epath.PathLike) -> None:
    """Writes a student's checkpoint into the folder of its run.

    Args:
        student: the student.
        run: the run's folder.

    Raises:
        SaveError: the checkpoint cannot be written.
    """
    with CheckpointWriter(run) as checkpoints:
        step = student.metadata.metrics["steps"]
        checkpoints.save(step, student.metadata, {"params": student.params})


@in_32_bits
def load_student(
    run: epath.PathLike, task: Task | None = None, checkpoint: CheckpointChoice = "newest"
) -> Student:
    """Returns the student in the folder of a run; nothing else is needed.

    Args:
        run: the run's folder.
        task: the task to use in place of the one that the checkpoint names.
        checkpoint: see `load_teacher`.

    Raises:
        InputError: `run` holds no such student, or its task cannot be opened.
    """

    def read(step: int) -> Student:
        metadata = require_kind(run, "student", step)
        stored = {
            **metadata.config.get("student", {}),
            "embedding": metadata.config.get("embedding"),
            "commanded_critic": metadata.config.get("commanded_critic", False),
        }
        config = stored_config(SavedStudentConfig, stored, str(run))
        opened_task, metadata = open_task(metadata, task, str(run))
        networks = student_networks(opened_task, config, config.embedding, config.commanded_critic)
        params = read_params(run, step, networks.shapes, metadata)
        return Agent(networks, params, config, metadata)

    return read_newest_sound(run, read, checkpoint)


@in_32_bits
def load_finished_student(
    run: epath.Path, config: Config, task: Task | None = None
) -> Student | None:
    """Returns the student that an earlier call finished in `run`.

    What an interrupted call left there without a checkpoint is removed. A state to resume from stays.

    Args:
        run: the run's folder, which need not exist.
        config: the configuration that the student must have been trained with.
        task: see `load_student`.

    Returns:
        None if there is no student, or one whose training is not finished.

    Raises:
        InputError: the student there was trained with another configuration or another file of the task, or another process writes the run.
    """

    def read(step: int) -> tuple[Student, bool]:
        if task is not None:
            require_same_task_file(read_metadata(run, step), task, run)
        # Only unfinished training leaves a state to resume from.
        return load_student(run, task, step), not has_item(run, step, "training")

    if not run.exists():
        return None
    with translate_storage_errors(run):
        if not checkpoint_steps(run) or (run / UNFINISHED).exists():
            with lock_folder(run):
                _remove_leftovers(run)
        if not checkpoint_steps(run):
            return None
    _require_same_config(run, config)
    student, is_finished = read_newest_sound(run, read, "newest")
    return student if is_finished else None


def _remove_leftovers(run: epath.Path) -> None:
    """Removes what an interrupted call left there, but not a state to resume from."""
    for folder in (run, run / UNFINISHED):
        remove_unfinished_checkpoints(folder)
    if checkpoint_steps(run):
        remove_progress(run)
    elif not checkpoint_steps(run / UNFINISHED):
        remove_unfinished_run(run)


def _require_same_config(run: epath.Path, config: Config) -> None:
    error = InputError(f"{run} was made with other settings; choose another --out, or remove it")
    try:
        saved = resolve_config(type(config), {}, run / CONFIG, None)
    except InputError as cause:
        raise error from cause
    # As they are written: a task's file may lie elsewhere now.
    if without_engine(saved.model_dump()) != without_engine(config.model_dump()):
        raise error
