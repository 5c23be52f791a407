"""Agents, which are what evaluation, distillation and export work on: teachers and students with their parameters."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from etils import epath

from teachers.config import TeacherConfig
from teachers.crl.networks import Networks, teacher_networks
from teachers.crl.parameters import Params
from teachers.process import in_32_bits
from teachers.runs.checkpoint_choice import CheckpointChoice, read_newest_sound
from teachers.runs.checkpoints import read_params, require_kind
from teachers.runs.configuration import Config, stored_config
from teachers.runs.metadata import Metadata, parameter_digest
from teachers.tasks import Task
from teachers.tasks.registry import open_task

AgentConfig = TypeVar("AgentConfig", bound=Config, covariant=True)


@dataclass(frozen=True)
class Agent(Generic[AgentConfig]):
    """A policy and a critic with their parameters.

    Attributes:
        networks: actor, phi and psi as functions of parameters.
        params: their parameters.
        config: the configuration of a teacher's training, or that of a student's networks.
        metadata: the description that is stored in its checkpoints.
    """

    networks: Networks
    params: Params
    config: AgentConfig
    metadata: Metadata

    @property
    def task(self) -> Task:
        """The task that the agent acts on."""
        return self.networks.task


Teacher = Agent[TeacherConfig]


@in_32_bits
def load_teacher(
    run: epath.PathLike, task: Task | None = None, checkpoint: CheckpointChoice = "newest"
) -> Teacher:
    """Loads a teacher from the folder of its run; nothing else is needed.

    Args:
        run: the run's folder.
        task: the teacher's task, to use in place of the one that the checkpoint names.
        checkpoint: `newest`, `best` or its control step. If the newest one is damaged, the one before it is opened
            with a warning.

    Returns:
        The teacher.

    Raises:
        InputError: `run` holds no such teacher, or its task cannot be opened.
    """

    def read(step: int) -> Teacher:
        metadata = require_kind(run, "teacher", step)
        config = stored_config(TeacherConfig, metadata.config, str(run))
        own_task, metadata = open_task(metadata, task, str(run))
        # The checkpoint does not say where the task's file is; and what else it may say here must not be run.
        config = config.model_copy(update={"task": own_task.source or own_task.name})
        networks = teacher_networks(config, own_task)
        params = read_params(run, step, networks.shapes, metadata)
        return Agent(networks, params, config, metadata)

    return read_newest_sound(run, read, checkpoint)


def describe_teacher(teacher: Teacher) -> dict[str, Any]:
    """Returns the description of a teacher that is stored in its students, as JSON values."""
    metadata = teacher.metadata
    figures = ("steps", "success_at_end", "time_at_goal")
    return {
        "task": metadata.task,
        "networks": metadata.networks,
        "seed": teacher.config.seed,
        **{name: metadata.metrics[name] for name in figures if name in metadata.metrics},
        "digest": parameter_digest(teacher.params),
        "versions": metadata.versions,
    }
