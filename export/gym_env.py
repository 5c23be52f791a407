"""Gymnasium environments of all tasks, under the name by which users import them.

Importing this module registers `crl-distill/NAME-v0` for every task; see `teachers.simulation.gym_env`.
"""

from teachers.simulation.gym_env import TaskEnv

__all__ = ["TaskEnv"]
