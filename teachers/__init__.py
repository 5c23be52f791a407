"""Deep contrastive-RL teachers: `from teachers import train_teacher, load_teacher, evaluate_agent`."""

from teachers.agent import Agent
from teachers.checkpoint import load_teacher
from teachers.config import TeacherConfig, teacher_config
from teachers.evaluate import Episodes, evaluate_agent, retention, summary
from teachers.tasks import InputError, Task, get_task
from teachers.train import train_teacher

__all__ = [
    "Agent",
    "Episodes",
    "InputError",
    "Task",
    "TeacherConfig",
    "evaluate_agent",
    "get_task",
    "load_teacher",
    "retention",
    "summary",
    "teacher_config",
    "train_teacher",
]
