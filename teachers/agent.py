"""A policy and a critic with their parameters: what evaluation, distillation and export work on."""

from dataclasses import dataclass
from typing import Any

from etils import epath

from teachers.config import TeacherConfig
from teachers.crl.networks import Networks, teacher_networks
from teachers.crl.parameters import Params
from teachers.runs.checkpoint_choice import CheckpointChoice, read_newest_sound
from teachers.runs.checkpoints import read_params, require_kind
from teachers.runs.configuration import stored_config
from teachers.runs.metadata import Metadata, parameter_digest
from teachers.tasks import Task
from teachers.tasks.registry import open_task


@dataclass(frozen=True)
class Agent:
    """A teacher or a student: its networks, their parameters, and what its artefact says of it."""

    networks: Networks
    params: Params
    metadata: Metadata

    @property
    def task(self) -> Task:
        """The task it acts on."""
        return self.networks.task


def load_teacher(
    run: epath.PathLike, task: Task | None = None, checkpoint: CheckpointChoice = "newest"
) -> Agent:
    """Opens a checkpoint of a teacher's run; nothing but the folder is needed.

    Args:
        run: the run's folder.
        task: the teacher's task, to use in place of the one that the checkpoint names.
        checkpoint: `newest`, `best` or its control step. A damaged newest one is passed over with a warning.

    Raises:
        InputError: `run` holds no such teacher, or its task cannot be opened.
    """

    def read(step: int) -> Agent:
        metadata = require_kind(run, "teacher", step)
        config = stored_config(TeacherConfig, metadata.config, str(run))
        opened, metadata = open_task(metadata, task, str(run))
        networks = teacher_networks(config, opened)
        return Agent(networks, read_params(run, step, networks.shapes, metadata), metadata)

    return read_newest_sound(run, read, checkpoint)


def describe_teacher(teacher: Agent) -> dict[str, Any]:
    """What a student remembers of its teacher."""
    metadata = teacher.metadata
    figures = ("steps", "success_at_end", "time_at_goal")
    return {
        "task": metadata.task,
        "networks": metadata.networks,
        "seed": metadata.config["seed"],
        **{name: metadata.metrics[name] for name in figures if name in metadata.metrics},
        "digest": parameter_digest(teacher.params),
        "versions": metadata.versions,
    }
