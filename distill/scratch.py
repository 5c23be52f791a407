"""Trains a student's networks as a teacher is trained, by contrastive RL: the baseline that distillation has to beat."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from etils import epath

from students.artefact import Student, load_finished_student
from students.config import StudentConfig, saved_student_config
from students.networks import describe_networks, student_networks
from teachers.agent import Agent
from teachers.config import TeacherConfig
from teachers.crl.parameters import Params
from teachers.crl.training_programs import TrainingPrograms
from teachers.crl.training_run import TrainingRun
from teachers.process import in_32_bits
from teachers.runs.checkpoint_files import remove_earlier_checkpoints
from teachers.runs.configuration import Config
from teachers.runs.devices import on_main_process
from teachers.runs.errors import InputError
from teachers.runs.metadata import Metadata, library_versions
from teachers.runs.progress import Progress, ignore_progress
from teachers.tasks import Task
from teachers.tasks.load import describe_origin
from teachers.train import require_learning, train_runs

UNLIMITED = 2**31 - 1  # gradient steps


class ScratchConfig(Config):
    """Everything that determines such a run: all of a teacher's settings but its networks, and a student's networks."""

    teacher: TeacherConfig
    student: StudentConfig


@in_32_bits
def train_from_scratch(
    task: Task,
    config: ScratchConfig,
    out: epath.PathLike,
    *,
    resume: bool = False,
    progress: Progress = ignore_progress,
    programs: TrainingPrograms | None = None,
) -> Student:
    """Trains a student's networks by contrastive RL, with the settings and steps of a teacher, and writes a run in `out`.

    The result are the parameters that did best. They are evaluated as often as the teacher was and over as many episodes,
    which differ from those on which results are measured.

    Args:
        task: the teacher's task.
        config: the run's configuration.
        out: the run's folder: a new one, or with `resume` one that holds an unfinished run of this configuration.
        resume: whether to go on from the newest sound checkpoint.
        progress: called after each iteration.
        programs: the compiled functions of another run that differs in seed, length and logging alone; see
            `scratch_programs`.

    Returns:
        The student. Among its metrics are the `steps` after which it did best, and the `trained_steps` and `seconds` of the
        whole run.

    Raises:
        InputError: `out` is taken or cannot be resumed, or environments or batch cannot be divided evenly among the devices.
        StoppedError: SIGTERM was received; the state is saved.
        SaveError: a checkpoint could not be written.
    """
    programs = programs or scratch_programs(task, config)
    # A run that diverges goes on, and its best evaluation counts.
    learning = config.teacher.learning.model_copy(update={"max_skipped": UNLIMITED})
    loop_config = config.teacher.model_copy(update={"learning": learning})
    run = ScratchRun(epath.Path(out), loop_config, config, task)
    (result,) = train_runs([run], programs, resume=resume, progress=progress)
    steps = result.metadata.metrics["trained_steps"]
    on_main_process(lambda: remove_earlier_checkpoints(out, steps))
    saved = saved_student_config(config.student, config.teacher)
    return Agent(programs.networks, result.params, saved, result.metadata)


@in_32_bits
def scratch_programs(task: Task, config: ScratchConfig) -> TrainingPrograms:
    """Returns the compiled functions of `train_from_scratch`, to be shared by several calls.

    Raises:
        InputError: see `require_learning` and `TrainingPrograms`.
    """
    require_learning(config.teacher)
    teacher = config.teacher
    networks = student_networks(task, config.student, teacher.embedding, teacher.commanded_critic)
    return TrainingPrograms(config.teacher, networks)


@dataclass(frozen=True)
class ScratchRun(TrainingRun):
    """The run of a student that is trained from scratch."""

    scratch: ScratchConfig
    task: Task

    result: ClassVar[Literal["newest", "best"]] = "best"

    @property
    def saved_config(self) -> ScratchConfig:
        """The configuration of the student and of its training."""
        return self.scratch

    def describe(self, params: Params, metrics: dict[str, Any]) -> Metadata:
        """Returns the description of a student with these parameters and figures."""
        student, teacher = self.scratch.student, self.scratch.teacher
        return Metadata(
            kind="student",
            task=self.task.name,
            **describe_origin(self.task),
            sizes=self.task.sizes,
            networks=describe_networks(student, params),
            config={
                **teacher.with_engine().model_dump(),
                "student": student.model_dump(exclude_none=True),
                "embedding": student.embedding or teacher.embedding,
            },
            metrics=metrics,
            lineage={},
            versions=library_versions(),
        )

    def require_resumable(self) -> None:
        """Raises an error if the folder holds a run of another configuration, or a finished one.

        Raises:
            InputError: it does.
        """
        if load_finished_student(self.folder, self.scratch, self.task):
            raise InputError(
                f"{self.folder} is finished: load its student, or choose another --out"
            )
