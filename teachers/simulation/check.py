"""Finds mistakes in a task before a training run does."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from teachers.process import in_32_bits
from teachers.simulation.engine_report import EngineTrial, give_advice, try_engines
from teachers.simulation.played_checks import (
    COMPARED_STEPS,
    RESETS,
    STEPS,
    Samples,
    check_samples,
    sample_task,
)
from teachers.simulation.problem_report import ProblemReport
from teachers.simulation.static_checks import (
    check_declaration,
    check_engine,
    check_goal_function,
    check_traces,
)
from teachers.tasks.base import Task
from teachers.tasks.contact_pairs import ContactCount, count_contacts
from teachers.tasks.engines import choose_engine

CHECKS = (
    "fields, limits and sizes",
    "the engine's support of the model",
    "tracing by JAX",
    "goals as a function of observations",
    f"{RESETS} resets",
    "goals out of reach",
    f"{STEPS} steps of random actions",
    "every action by itself",
    f"observations in JAX against MuJoCo C over {COMPARED_STEPS} steps",
)


class TaskReport(NamedTuple):
    """What was found out about a task."""

    problems: list[str]  # see `check_task`
    contacts: ContactCount
    engines: list[EngineTrial]  # empty where problems come first
    advice: list[str]  # which engine to use, a line each


@in_32_bits
def check_task(task: Task, seed: int = 0) -> list[str]:
    """Returns the mistakes of a task that would stop or spoil its training or deployment.

    Args:
        task: as `get_task` returns it.
        seed: of resets, goals and actions.

    Returns:
        The problems, each one line that names what is wrong, its value and a remedy; empty if none was found. What
        cannot be checked before others are corrected is left out.
    """
    return _check(task, seed, _be_silent)[0]


@in_32_bits
def report_task(task: Task, seed: int, say: Callable[[str], None]) -> TaskReport:
    """Returns the mistakes of a task, and what the engines make of it.

    Args:
        task: as `get_task` returns it.
        seed: of resets, goals and actions.
        say: is told what is done next.
    """
    problems, samples = _check(task, seed, say)
    contacts = count_contacts(task.model)
    if samples is None:
        return TaskReport(problems, contacts, [], [])
    trials = try_engines(task, samples, say)
    advice = give_advice(trials, contacts)
    if hidden := [sensor.name for sensor in task.sensors if sensor.privileged]:
        advice.append(f"no robot measures these sensors, which are privileged: {', '.join(hidden)}")
    return TaskReport(problems, contacts, trials, advice)


def _check(task: Task, seed: int, say: Callable[[str], None]) -> tuple[list[str], Samples | None]:
    """Returns the problems, and the samples if there are any whose numbers are finite."""
    report = ProblemReport(task)
    for check in (check_declaration, check_engine, check_traces, check_goal_function):
        check(task, report)
        if report.blocked:
            return report.problems, None

    simulated = task.simulated_by(choose_engine("auto"), RESETS)
    if task.sensors:
        simulated = simulated.with_sensors()
    say(f"compiling and playing {STEPS} steps with physics {simulated.engine}")
    sample = jax.jit(partial(sample_task, simulated))
    samples = report.attempt("a rollout", lambda: sample(jax.random.key(seed)))
    if samples is None:
        return report.problems, None
    samples = jax.tree.map(np.asarray, samples)
    is_sound = check_samples(task, samples, report)
    return report.problems, samples if is_sound else None


def _be_silent(text: str) -> None:
    """Takes a message and does nothing with it."""
