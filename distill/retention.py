"""How much of a teacher a student keeps."""

from typing import Any

from teachers.agent import Agent
from teachers.evaluate import evaluate_agent
from teachers.measures import Outcomes, retention, summary


def measure_retention(student: Agent, reference: Outcomes, seed: int) -> dict[str, Any]:
    """The student's figures over whole episodes, and its retention of the teacher over the same ones.

    Args:
        student: to be measured.
        reference: its teacher's episodes.
        seed: of these.
    """
    own = evaluate_agent(student, len(reference.time_at_goal), seed)
    kept, interval = retention(own.time_at_goal, reference.time_at_goal)
    return {**summary(own), "retention": kept, "retention_ci95": interval}
