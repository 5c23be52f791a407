"""Collects the problems that the checks of a task find."""

from collections.abc import Callable
from typing import Any

import jax

from teachers.tasks.base import Task
from teachers.tasks.load import describe_error, error_location, find_task_file


class ProblemReport:
    """The problems of one task.

    Attributes:
        task: the task that is checked.
        problems: each one line that names what is wrong, its value and a remedy.
        blocked: whether a problem makes further checks impossible.
    """

    def __init__(self, task: Task) -> None:
        """Starts an empty report on `task`."""
        self.task = task
        self.problems: list[str] = []
        self.blocked = False

    def add(self, what: str, value: str, remedy: str) -> None:
        """Adds a problem."""
        self.problems.append(" ".join(f"{what}: {value}; {remedy}".split()))

    def block(self, what: str, value: str, remedy: str) -> None:
        """Adds a problem that makes further checks impossible."""
        self.add(what, value, remedy)
        self.blocked = True

    def attempt(
        self, what: str, function: Callable[[], Any], remedy: str = "correct it there"
    ) -> Any:
        """Returns what a function of the task returns, or None and adds a blocking problem if it raises an error."""
        file = find_task_file(self.task)
        try:
            return function()
        except (
            jax.errors.ConcretizationTypeError,
            jax.errors.TracerArrayConversionError,
            jax.errors.UnexpectedTracerError,
        ) as error:
            location = error_location(error, file)
            value = f"JAX cannot trace it: {type(error).__name__} ({location})"
            remedy = "use `jax.numpy`, and `jnp.where` in place of `if`"
        except Exception as error:
            value = f"raises {describe_error(error, file)}"
        self.block(what, value, remedy)
        return None
