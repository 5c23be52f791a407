"""Deep contrastive-RL teachers: `from teachers import train_teacher, load_teacher, evaluate_agent`."""

from teachers.agent import Agent, load_teacher
from teachers.config import TeacherConfig, teacher_config
from teachers.evaluate import evaluate_agent
from teachers.measures import Outcomes, retention, summary
from teachers.runs.errors import InputError
from teachers.simulation.check import check_task
from teachers.tasks import Task
from teachers.tasks.registry import get_task
from teachers.train import train_teacher

Episodes = Outcomes  # the earlier name of Outcomes

__all__ = [
    "Agent",
    "Episodes",
    "InputError",
    "Outcomes",
    "Task",
    "TeacherConfig",
    "check_task",
    "evaluate_agent",
    "get_task",
    "load_teacher",
    "retention",
    "summary",
    "teacher_config",
    "train_teacher",
]
