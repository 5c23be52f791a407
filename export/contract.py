"""What an exported file promises: its inputs and outputs, field by field, and where it comes from.

Every entry is JSON under `crl_distill.KEY` in the ONNX file's metadata properties.
"""

import json
from typing import Any, Literal

import onnx

from export.runtime import PREFIX
from students.networks import ENCODER
from teachers.agent import Agent
from teachers.metadata import Metadata, digest, library_versions
from teachers.tasks import Field, Task, slices

Role = Literal["policy", "critic"]

INPUTS: dict[Role, tuple[str, ...]] = {
    "policy": ("observation", "goal"),
    "critic": ("observation", "goal", "action"),
}
OUTPUT: dict[Role, str] = {"policy": "action", "critic": "value"}


def contract(agent: Agent, role: Role, metrics: dict[str, Any]) -> dict[str, Any]:
    """The metadata of an exported file.

    Args:
        agent: the student or teacher that was exported.
        role: which of its two functions the file holds.
        metrics: figures to add to the agent's own.

    Returns:
        JSON values by key: those of `teachers.metadata.Metadata`, then the contract proper.
    """
    task, own = agent.task, agent.metadata
    networks = ["actor"] if role == "policy" else ["phi", "psi"]
    if ENCODER in own.networks:  # which the head in this file reads
        networks.append(ENCODER)
    metadata = Metadata(
        kind="onnx",
        task=own.task,
        task_source=own.task_source,
        sizes=task.sizes,
        networks={name: own.networks[name] for name in networks},
        config=own.config,
        metrics=own.metrics | metrics,
        lineage={own.kind: {"digest": digest(agent.params)}, **own.lineage},
        versions=library_versions(),
    )
    return {
        **metadata.model_dump(),
        "role": role,
        "inputs": {name: field_table(getattr(task, name)) for name in INPUTS[role]},
        "outputs": {
            OUTPUT[role]: field_table(task.action)
            if role == "policy"
            else [{"name": "value", "size": 1, "unit": "1", "meaning": "-||phi(s, a) - psi(g)||"}]
        },
        "action_range": [-1.0, 1.0],  # a field's `low` and `high` are what the ends stand for
        "control_period": task.control_period,
        "episode_steps": task.episode_steps,
        "success_radius": task.success_radius,
    }


def attach(model: onnx.ModelProto, entries: dict[str, Any]) -> None:
    """Writes metadata entries into a model, in place of those it has."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model, {f"{PREFIX}{key}": json.dumps(value) for key, value in entries.items()}
    )


def field_table(fields: tuple[Field, ...]) -> list[dict[str, Any]]:
    """The fields of an array in order, each with its index range `[start, stop)`."""
    places = slices(fields)
    return [
        {**field._asdict(), "start": places[field.name].start, "stop": places[field.name].stop}
        for field in fields
    ]


def describe_task(task: Task) -> dict[str, Any]:
    """A task's declaration as JSON values."""
    return {
        "name": task.name,
        "summary": task.summary,
        "observation": field_table(task.observation),
        "goal": field_table(task.goal),
        "action": field_table(task.action),
        "control_period": task.control_period,
        "episode_steps": task.episode_steps,
        "success_radius": task.success_radius,
        "hard_radius": task.hard_radius,
        "contacts": task.contacts,
        "goal_sets": list(task.goal_sets),
        "training": dict(task.training),
    }
