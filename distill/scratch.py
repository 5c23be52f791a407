"""A student's own networks trained as a teacher is, by contrastive RL: what distillation has to beat."""

import time
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from students.artefact import Student, save_student
from students.config import StudentConfig, saved_student_config
from students.networks import describe_networks, student_networks
from teachers.agent import Agent
from teachers.config import TeacherConfig
from teachers.crl.iteration import init_training, make_iteration, placement
from teachers.evaluate import player
from teachers.measures import measure_outcomes, summary
from teachers.runs.configuration import Config
from teachers.runs.devices import replicated
from teachers.runs.metadata import Metadata, library_versions
from teachers.runs.outputs import new_run_folder
from teachers.runs.progress import Progress, ignore_progress
from teachers.runs.run_log import RunLog
from teachers.simulation.rollout import evaluation_starts
from teachers.tasks import Task

SELECTION = 1_000_000  # added to the seed of evaluations by which the best is chosen


class ScratchConfig(Config):
    """Everything that determines such a run: of the teacher's settings all but its networks."""

    teacher: TeacherConfig
    student: StudentConfig


def train_from_scratch(
    task: Task, config: ScratchConfig, out: epath.PathLike, *, progress: Progress = ignore_progress
) -> Student:
    """Trains a student's networks by contrastive RL, with a teacher's settings and steps, and leaves a run in `out`.

    Args:
        task: the teacher's.
        config: of the run.
        out: a new folder.
        progress: called after each iteration.

    Returns:
        The student as it was when it did best: it is evaluated as often as the teacher was, over as many episodes, which
        are none of those on which results are measured. Its metrics are those of then: its `steps`, and the
        `trained_steps` and `seconds` of the whole run.

    Raises:
        InputError: `out` is taken, or the run cannot be dealt out to the devices.
    """
    out, settings = epath.Path(out), config.teacher
    begun = time.monotonic()
    networks, init, iterate, play = _programs(
        task, config.student, settings.model_copy(update={"seed": 0, "steps": 1})
    )
    total = settings.iterations * settings.steps_per_iteration
    starts = evaluation_starts(task, settings.logging.episodes, SELECTION + settings.seed)
    best: dict[str, Any] = {}
    with new_run_folder(out), RunLog(out, config) as log:
        state = init(jnp.uint32(settings.seed))
        for i in range(1, settings.iterations + 1):
            state, metrics = iterate(state)
            step = i * settings.steps_per_iteration
            row = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if i == settings.iterations or i % settings.logging.evaluate_every == 0:
                distance = np.concatenate(list(play(state.learner.params, starts)))
                row |= summary(measure_outcomes(task, distance))
                if not best or row["time_at_goal"] >= best["time_at_goal"]:
                    best, params = row | {"steps": step}, jax.device_get(state.learner.params)
            row["seconds"] = time.monotonic() - begun
            log.write(step, row)
            progress(step, total, row)
        metadata = Metadata(
            kind="student",
            task=task.name,
            task_source=task.source,
            sizes=task.sizes,
            networks=describe_networks(config.student, params),
            config={
                **settings.model_dump(),
                "student": config.student.model_dump(exclude_none=True),
                "embedding": config.student.embedding or settings.embedding,
            },
            metrics={**best, "trained_steps": total, "seconds": row["seconds"]},
            lineage={},
            versions=library_versions(),
        )
        saved = saved_student_config(config.student, settings.embedding)
        student = Agent(networks, params, saved, metadata)
        save_student(student, out)
    return student


@lru_cache(maxsize=1)
def _programs(task: Task, student: StudentConfig, config: TeacherConfig) -> Any:
    """Kept between runs that differ in seed and length alone."""
    networks = student_networks(task, student, config.embedding)
    init = partial(init_training, config, networks=networks)
    place = placement(jax.eval_shape(init))
    return (
        networks,
        jax.jit(init, out_shardings=place),
        jax.jit(
            make_iteration(config, networks=networks),
            donate_argnums=0,
            out_shardings=(place, replicated()),
        ),
        player(networks),
    )
