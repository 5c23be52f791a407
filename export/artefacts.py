"""Opens whatever a path holds: a teacher, a student or an exported policy."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from export.admission import read_contract, read_model
from export.runtime import Policy, read_metadata
from students.artefact import load_student
from teachers.agent import Agent, load_teacher
from teachers.evaluate import evaluate_agent
from teachers.measures import Outcomes, measure_outcomes
from teachers.runs.checkpoint_choice import CheckpointChoice, read_newest_sound
from teachers.runs.checkpoints import read_metadata as read_run
from teachers.runs.errors import InputError
from teachers.runs.metadata import Metadata, parse_metadata
from teachers.runs.paths import local_copy
from teachers.runs.progress import Progress
from teachers.simulation.play import PolicyFunction, play_in_c
from teachers.simulation.trajectory import distance_until_termination
from teachers.tasks import Task
from teachers.tasks.registry import open_task


class OpenedPolicy(NamedTuple):
    """A policy from any artefact.

    Attributes:
        metadata: what the artefact says of itself.
        task: its task.
        act: batches of observations and goals to actions, for `play_in_c`.
        evaluate: `(episodes, seed, progress) -> outcomes` where the artefact lives: MJX for checkpoints, MuJoCo C for
            ONNX files.
    """

    metadata: Metadata
    task: Task
    act: PolicyFunction
    evaluate: Callable[[int, int, Progress], Outcomes]


def open_policy(
    path: epath.PathLike, task: Task | None = None, checkpoint: CheckpointChoice = "newest"
) -> OpenedPolicy:
    """Opens a teacher's or student's run folder, or an exported `policy.onnx`.

    Args:
        path: of the folder or file.
        task: its task, to use in place of the one that it names.
        checkpoint: of a run; see `load_teacher`.

    Raises:
        InputError: the path holds no policy of ours, or its task cannot be opened.
    """
    path = epath.Path(path)
    if path.suffix == ".onnx":
        return _open_onnx(path, task)
    agent = load_agent(path, task, checkpoint)
    act = jax.jit(agent.networks.policy)
    return OpenedPolicy(
        agent.metadata,
        agent.task,
        lambda observation, goal: np.asarray(act(agent.params, observation, goal)),
        lambda *settings: evaluate_agent(agent, *settings),
    )


def load_agent(
    run: epath.PathLike, task: Task | None = None, checkpoint: CheckpointChoice = "newest"
) -> Agent:
    """The teacher or student in a run's folder; arguments and errors as `load_teacher`."""

    def read(step: int) -> Agent:
        kind = read_run(run, step).kind
        return (load_teacher if kind == "teacher" else load_student)(run, task, step)

    return read_newest_sound(run, read, checkpoint)


def describe_artefact(path: epath.PathLike, checkpoint: CheckpointChoice = "newest") -> Metadata:
    """What a run's folder or an ONNX file says of itself, without opening its networks.

    Args:
        path: of the folder or file.
        checkpoint: of a run; see `load_teacher`.

    Raises:
        InputError: the path holds no artefact of ours.
    """
    path = epath.Path(path)
    if path.suffix != ".onnx":
        return read_newest_sound(path, lambda step: read_run(path, step), checkpoint)
    return _described(path)


def _open_onnx(path: epath.Path, task: Task | None) -> OpenedPolicy:
    described = _described(path)
    try:
        with local_copy(path) as copy:
            policy = Policy(copy, margin=None, normalized=True)  # no robot to protect
    except ValueError as error:
        raise InputError(str(error)) from None
    opened, metadata = open_task(described, task, str(path))
    return OpenedPolicy(
        metadata,
        opened,
        policy,
        lambda *settings: measure_outcomes(
            opened, distance_until_termination(play_in_c(opened, policy, *settings))
        ),
    )


def _described(path: epath.Path) -> Metadata:
    """What an ONNX file says of itself, if its graph may be run: a contract, or, of an earlier version, less.

    Raises:
        InputError: it is missing, damaged, or not ours.
    """
    model = read_model(path)
    try:
        entries = read_metadata({p.key: p.value for p in model.metadata_props}, str(path))
    except ValueError as error:
        raise InputError(str(error)) from None
    if "contract_version" in entries:
        return read_contract(model, str(path))
    known = {key: value for key, value in entries.items() if key in Metadata.model_fields}
    return parse_metadata(known, str(path))
