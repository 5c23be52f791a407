"""The names of the arrays that go in and out of exported files."""

from typing import Literal, NamedTuple

from teachers.crl.networks import Networks
from teachers.tasks import Field, Sensor, Task

Role = Literal["policy", "critic", "combined"]
Reads = Literal["observation", "sensors"]


class Signature(NamedTuple):
    """What an agent reads and carries from step to step, which tells the arrays of its files.

    Files of agents that remember take the memory as `state` and return it as `next_state`, because an ONNX graph has each name
    once.
    """

    reads: Reads = "observation"
    memory_size: int = 0

    def inputs(self, role: Role) -> tuple[str, ...]:
        """Returns the names of the inputs of a file, in order."""
        state = ("state",) if self.memory_size else ()
        action = ("action",) if role == "critic" else ()
        return (self.reads, "goal", *state, *action)

    def outputs(self, role: Role) -> tuple[str, ...]:
        """Returns the names of the outputs of a file, in order."""
        action = () if role == "critic" else ("action",)
        value = () if role == "policy" else ("value",)
        state = ("next_state",) if self.memory_size and role != "critic" else ()
        return (*action, *value, *state)

    @property
    def contract_version(self) -> int:
        """The oldest version of the contract that knows these arrays."""
        return 1 if self == Signature() else 2

    def view(self, task: Task) -> Task:
        """Returns a task as the agent reads it: with its sensors, or as it is."""
        return task.with_sensors() if self.reads == "sensors" else task


def agent_signature(networks: Networks) -> Signature:
    """Returns the signature of the files of an agent with these networks."""
    return Signature("sensors" if networks.task.senses else "observation", networks.memory_size)


def task_fields(task: Task, name: str) -> tuple[Field | Sensor, ...]:
    """Returns the fields of an array that a task declares: `observation` or `sensors`, `goal` or `action`."""
    fields = {
        "observation": task.read_fields,
        "sensors": task.read_fields,
        "goal": task.read_goal_fields,
        "action": task.action,
    }
    return fields[name]
