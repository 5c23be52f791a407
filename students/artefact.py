"""Students on disk: a checkpoint like a teacher's, that names its teacher."""

from pathlib import Path

import jax

from students.config import SavedStudentConfig
from students.networks import student_networks
from teachers.agent import Agent
from teachers.checkpoint import CheckpointWriter, read_params, require_kind
from teachers.config import stored_config
from teachers.metadata import open_task
from teachers.tasks import Task


def save_student(student: Agent, run: Path) -> None:
    """Writes a student's checkpoint into its run's folder."""
    with CheckpointWriter(run) as checkpoints:
        checkpoints.save(student.metadata.metrics["steps"], student.metadata, student.params)


def load_student(run: Path, task: Task | None = None) -> Agent:
    """Opens a student; nothing but the folder is needed.

    Args:
        run: the run's folder.
        task: the student's task, to use in place of the one that the checkpoint names.

    Raises:
        InputError: `run` holds no student, or its task cannot be opened.
    """
    metadata = require_kind(run, "student")
    raw = {**metadata.config.get("student", {}), "embedding": metadata.config.get("embedding")}
    config = stored_config(SavedStudentConfig, raw, str(run))
    task, metadata = open_task(metadata, task, str(run))
    networks = student_networks(task, config, config.embedding)
    like = jax.eval_shape(networks.init, jax.random.key(0))
    return Agent(networks, read_params(run, like), metadata)
