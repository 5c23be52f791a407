"""Retention: the student's time at goal as a share of its teacher's, over the same episodes."""

from typing import Any

from teachers.agent import Agent
from teachers.evaluate import evaluate_agent
from teachers.measures import Outcomes, retention, summary


def measure_retention(student: Agent, reference: Outcomes, seed: int) -> dict[str, Any]:
    """Returns the student's figures over as many episodes as its teacher played, and its retention.

    Args:
        student: the student to measure.
        reference: outcomes of its teacher's episodes.
        seed: of these episodes.
    """
    outcomes = evaluate_agent(student, len(reference.time_at_goal), seed)
    value, interval = retention(outcomes.time_at_goal, reference.time_at_goal)
    return {**summary(outcomes), "retention": value, "retention_ci95": interval}
