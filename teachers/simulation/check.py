"""Finds mistakes in a task before a training run does."""

from functools import partial

import jax
import numpy as np

from teachers.process import in_32_bits
from teachers.simulation.played_checks import (
    COMPARED_STEPS,
    RESETS,
    STEPS,
    check_samples,
    sample_task,
)
from teachers.simulation.problem_report import ProblemReport
from teachers.simulation.static_checks import (
    check_declaration,
    check_goal_function,
    check_model_support,
    check_traces,
)
from teachers.tasks.base import Task

CHECKS = (
    "fields, limits and sizes",
    "MJX's support of the model",
    "tracing by JAX",
    "goals as a function of observations",
    f"{RESETS} resets",
    f"{STEPS} steps of random actions",
    "every action by itself",
    f"MJX against MuJoCo C over {COMPARED_STEPS} steps",
)


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
    report = ProblemReport(task)
    for check in (check_declaration, check_model_support, check_traces, check_goal_function):
        check(task, report)
        if report.blocked:
            return report.problems

    sample = jax.jit(partial(sample_task, task))
    samples = report.attempt("a rollout", lambda: sample(jax.random.key(seed)))
    if samples is not None:
        check_samples(task, jax.tree.map(np.asarray, samples), report)
    return report.problems
