"""Distillation: a shallow student learns a deep teacher's policy and critic on rollouts made on the device."""

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from etils import epath

from distill.config import DistillConfig
from distill.loop import Clock, DistillationLoop
from distill.programs import DistillPrograms
from distill.resume import Position, resume_distillation
from distill.retention import measure_retention
from distill.ring import LabelledStates
from distill.state import DistillState
from students.artefact import Student, save_student
from students.config import saved_student_config
from students.networks import describe_networks, parameters_used_by
from teachers.agent import Agent, Teacher, describe_teacher
from teachers.crl.memory import changed_models_memory, require_memory, total_bytes
from teachers.crl.parameters import Params, count_parameters
from teachers.evaluate import evaluate_agent
from teachers.measures import Outcomes
from teachers.process import in_32_bits
from teachers.runs.checkpoint_files import remove_unfinished_checkpoints
from teachers.runs.checkpoints import warn_on_main_process
from teachers.runs.devices import require_divisible
from teachers.runs.errors import InputError
from teachers.runs.layout import UNFINISHED
from teachers.runs.lock import lock_folder
from teachers.runs.metadata import Metadata, as_number, library_versions, replace_non_finite
from teachers.runs.outputs import (
    new_run_folder,
    remove_progress,
    remove_unfinished_run,
    require_unused,
)
from teachers.runs.progress import Progress, ignore_progress
from teachers.runs.run_log import RunLog
from teachers.tasks import Task

MIN_TEACHER_SUCCESS = 0.05  # share of episodes in which a teacher must reach its goal


@in_32_bits
def distill_teacher(
    teacher: Teacher,
    config: DistillConfig,
    out: epath.PathLike,
    *,
    resume: bool = False,
    force: bool = False,
    reference: Outcomes | None = None,
    programs: DistillPrograms | None = None,
    progress: Progress = ignore_progress,
) -> Student:
    """Distills a teacher into a student, and writes the student's checkpoint, metrics and events to `out`.

    Args:
        teacher: as `load_teacher` or `train_teacher` returns it.
        config: the student's shape and how it is taught; see `distill_config`.
        out: the run's folder: a new one, or with `resume` one that holds an unfinished distillation of this configuration.
        resume: whether to go on from the newest sound checkpoint; a run without checkpoints begins anew.
        force: distill the teacher even if it hardly ever reaches its goal.
        reference: outcomes of the teacher's episodes, `config.episodes` of seed `config.seed`; by default they are played.
        programs: the compiled stages of another distillation that differs in seed and number of episodes alone, to save
            the time to compile them again.
        progress: called after each round.

    Returns:
        The student. Among its metrics: its retention of the teacher; `steps_share` and `seconds_share` of the teacher's
        training that the distillation took; and its `seconds` by stage, without the final evaluation: `seconds_compile`,
        `seconds_rollout` (in which the teacher acts too), `seconds_label` (the teacher's labels),
        `seconds_learn`, and `label_share` of all but compilation.

    Raises:
        InputError: `out` is taken or cannot be resumed, the teacher does not reach its goal, or the distillation does not
            fit in memory or cannot be divided over the devices.
        StoppedError: SIGTERM was received; the state is saved.
        SaveError: a checkpoint could not be written.
        ValueError: `programs` are those of another distillation.
    """
    out = epath.Path(out)
    if not force:
        require_successful_teacher(teacher)
    require_divisible(collect__environments=config.collect.environments)
    config = config.for_teacher(teacher.metadata.metrics["steps"])
    clock = Clock()
    if not resume:
        require_unused(out)
    if programs is None:
        programs = DistillPrograms(config, teacher)
    elif not programs.can_distill(config, teacher):
        raise ValueError("the programs were made for another configuration or other networks")
    _require_memory(config, programs.state_shapes, teacher.task)
    with ExitStack() as stack:
        stack.enter_context(lock_folder(out))
        position = resume_distillation(out, config, teacher, programs) if resume else None
        if position is None:
            if resume:
                _remove_run_without_checkpoint(out)
                warn_on_main_process(f"{out} holds no checkpoint: the run begins")
            stack.enter_context(new_run_folder(out))
        log = stack.enter_context(RunLog(out, config, _resume_step(config, position)))
        warn_if_larger(programs.state_shapes.params, teacher)
        loop = DistillationLoop(config, teacher, programs, clock, log, progress)
        state, figures = loop.run(out, position)
        total = config.rounds * config.states_per_round
        figures |= {"steps": total}
        figures |= distillation_cost(teacher, total, clock.total(), clock.seconds)
        metadata = student_metadata(config, state, teacher, figures)
        saved = saved_student_config(config.student, teacher.config)
        student = Agent(programs.networks, state.params, saved, metadata)
        if reference is None:
            reference = evaluate_agent(teacher, config.episodes, config.seed)
        measured = measure_retention(student, reference, config.seed)
        log.write(total, figures | measured)
        metrics = metadata.metrics | replace_non_finite(measured)
        student = replace(student, metadata=metadata.model_copy(update={"metrics": metrics}))
        save_student(student, out)
        remove_progress(out)
    return student


def _remove_run_without_checkpoint(out: epath.Path) -> None:
    """Removes what a distillation wrote that ended before its first checkpoint."""
    for folder in (out / UNFINISHED, out):
        remove_unfinished_checkpoints(folder)
    remove_unfinished_run(out)


def _resume_step(config: DistillConfig, position: Position | None) -> int | None:
    """Returns the control step of the last row of metrics that a resumed distillation keeps; None if it is a new one."""
    if position is None:
        return None
    # The row of the last round is written at the end, with the evaluation.
    return min(position.rounds, config.rounds - 1) * config.states_per_round


def require_successful_teacher(teacher: Agent) -> None:
    """Raises an error if a teacher hardly ever reaches its goal, according to the metrics of its training.

    Raises:
        InputError: its success is below `MIN_TEACHER_SUCCESS`.
    """
    success = as_number(teacher.metadata.metrics.get("success_any"))
    if success is not None and success < MIN_TEACHER_SUCCESS:
        raise InputError(
            f"the teacher reaches its goal in {success:.1%} of episodes: there is nothing to distill; train it "
            "longer, or go on with --force"
        )


def warn_if_larger(student: Params, teacher: Agent) -> None:
    """Warns of each of a student's networks that has more parameters than its teacher's.

    Args:
        student: parameters of the student, or their shapes.
        teacher: its teacher.
    """
    for name, teacher_params in teacher.params.items():
        count = count_parameters(parameters_used_by(name, student))
        teacher_count = count_parameters(teacher_params)
        if count > teacher_count:
            warnings.warn(
                f"the student's {name} has {count:,} parameters, more than its teacher's {teacher_count:,}; a smaller "
                "one is faster on a robot",
                stacklevel=3,
            )


def distillation_cost(
    teacher: Agent, steps: int, total: float, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Returns what a distillation took, in seconds by stage and as a share of its teacher's training.

    Args:
        teacher: its metrics have the steps and seconds of its training.
        steps: control steps of the distillation.
        total: seconds of the distillation.
        seconds: of these, by stage.

    Returns:
        See `distill_teacher`; shares are None where the teacher's metrics do not have the number.
    """
    training = teacher.metadata.metrics

    def share(value: float, name: str) -> float | None:
        return value / training[name] if training.get(name) else None

    running = sum(taken for stage, taken in seconds.items() if stage != "compile")
    return {
        "seconds": total,
        **{f"seconds_{stage}": taken for stage, taken in seconds.items()},
        "label_share": seconds["label"] / running,
        "steps_share": share(steps, "steps"),
        "seconds_share": share(total, "seconds"),
    }


def student_metadata(
    config: DistillConfig, state: DistillState, teacher: Teacher, metrics: dict[str, Any]
) -> Metadata:
    """Returns the metadata of a student.

    Args:
        config: of the distillation.
        state: at its end.
        teacher: the student's teacher.
        metrics: of the distillation.
    """
    return Metadata(
        kind="student",
        task=teacher.metadata.task,
        task_source=teacher.metadata.task_source,
        task_digest=teacher.metadata.task_digest,
        sizes=teacher.task.sizes,
        networks=describe_networks(config.student, state.params),
        config={
            **config.with_engine().model_dump(exclude_none=True),
            "embedding": config.student.embedding or teacher.config.embedding,
            "commanded_critic": teacher.config.commanded_critic,
        },
        metrics=metrics,
        lineage={
            "teacher": describe_teacher(teacher),
            "seen": _observed_ranges(state.ring.rows, teacher.task.sizes["observation"]),
        },
        versions=library_versions(),
    )


def _observed_ranges(rows: LabelledStates, declared_size: int) -> dict[str, dict[str, list[float]]]:
    """Returns the lowest and highest value of every number that the student was taught on.

    Args:
        rows: of the ring, which is full at the end of a distillation.
        declared_size: numbers in the observation that a student may read; a privileged teacher's has more.
    """
    observation, goal = rows.observation[..., :declared_size], rows.goal
    if rows.readings:
        observation, goal = rows.readings.read, rows.readings.goal
    arrays = {"observation": observation, "goal": goal}
    axes = tuple(range(observation.ndim - 1))
    return {
        name: {"low": x.min(axes).tolist(), "high": x.max(axes).tolist()}
        for name, x in arrays.items()
    }


def _require_memory(config: DistillConfig, state: DistillState, task: Task) -> None:
    shapes = (config.student.policy, config.student.critic, config.student.critic)
    batch = config.learning.batch
    activations = 2 * batch * sum(shape.layers * shape.width for shape in shapes)
    logits = 0 if config.critic.loss == "embedding" else 4 * batch**2
    models = changed_models_memory(task, config.collect)
    require_memory(
        # The parameters count twice because of their gradients.
        total_bytes((state, state.params)) + 4 * (activations + logits) + models,
        "collect.environments, collect.capacity, learning.batch, layers or width",
    )
