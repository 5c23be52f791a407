"""Opens and describes the artefact at a path: a teacher, a student or an exported policy."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from etils import epath

from export.admission import read_contract, read_model
from export.contract import Contract
from export.policies import AgentPolicy
from export.runtime import Policy, read_metadata
from students.artefact import load_student
from teachers.agent import Agent, load_teacher
from teachers.evaluate import evaluate_agent
from teachers.measures import Outcomes, measure_outcomes
from teachers.runs import checkpoints
from teachers.runs.checkpoint_choice import CheckpointChoice, read_newest_sound
from teachers.runs.errors import InputError
from teachers.runs.metadata import Metadata, parse_metadata
from teachers.runs.paths import local_copy
from teachers.runs.progress import Progress
from teachers.simulation.play import PolicyFunction, play_in_c
from teachers.simulation.trajectory import distance_until_termination
from teachers.tasks import Task
from teachers.tasks.registry import open_task


class PolicyArtefact(NamedTuple):
    """A policy from a run's folder or an ONNX file.

    Attributes:
        metadata: the description inside the artefact.
        task: the policy's task.
        act: maps batches of what it reads and of goals to actions in [-1, 1], for `play_in_c`.
        evaluate: maps a number of episodes, a seed and a progress function to outcomes, with the engine `auto` for a
            checkpoint and in MuJoCo C for an ONNX file.
        evaluate_sampled: the same for actions that are drawn from the policy, as in its training; it takes also how many
            are drawn in each step, of which the critic chooses the best. None where no such policy was trained.
    """

    metadata: Metadata
    task: Task
    act: PolicyFunction
    evaluate: Callable[[int, int, Progress], Outcomes]
    evaluate_sampled: Callable[[int, int, Progress, int], Outcomes] | None = None


def open_policy(
    path: epath.PathLike, task: Task | None = None, checkpoint: CheckpointChoice = "newest"
) -> PolicyArtefact:
    """Opens the run's folder of a teacher or student, or an exported `policy.onnx`.

    Args:
        path: the folder or file.
        task: the task to use in place of the one that the artefact names.
        checkpoint: which checkpoint of a run; see `load_teacher`.

    Raises:
        InputError: the path holds no policy of crl-distill, or its task cannot be opened.
    """
    path = epath.Path(path)
    if path.suffix == ".onnx":
        return _open_onnx(path, task)
    agent = load_agent(path, task, checkpoint)
    return PolicyArtefact(
        agent.metadata,
        agent.task,
        AgentPolicy(agent),
        lambda *arguments: evaluate_agent(agent, *arguments),
        partial(_evaluate_sampled, agent) if agent.metadata.kind == "teacher" else None,
    )


def _evaluate_sampled(
    agent: Agent, episodes: int, seed: int, progress: Progress, best_of: int
) -> Outcomes:
    return evaluate_agent(agent, episodes, seed, progress, is_sampled=True, best_of=best_of)


def load_agent(
    run: epath.PathLike, task: Task | None = None, checkpoint: CheckpointChoice = "newest"
) -> Agent:
    """Returns the teacher or student in the folder of a run; see `load_teacher` for arguments and errors."""

    def read(step: int) -> Agent:
        kind = checkpoints.read_metadata(run, step).kind
        return (load_teacher if kind == "teacher" else load_student)(run, task, step)

    return read_newest_sound(run, read, checkpoint)


def describe_artefact(path: epath.PathLike, checkpoint: CheckpointChoice = "newest") -> Metadata:
    """Returns the description inside a run's folder or an ONNX file, without opening the networks.

    Args:
        path: the folder or file.
        checkpoint: which checkpoint of a run; see `load_teacher`.

    Raises:
        InputError: the path holds no artefact of crl-distill.
    """
    path = epath.Path(path)
    if path.suffix == ".onnx":
        return _describe_onnx(path)
    return read_newest_sound(path, lambda step: checkpoints.read_metadata(path, step), checkpoint)


def _open_onnx(path: epath.Path, task: Task | None) -> PolicyArtefact:
    description = _describe_onnx(path)
    try:
        with local_copy(path) as copy:
            # In simulation there is no robot to protect, so that inputs may have any values.
            policy = Policy(copy, margin=None, normalized=True)
    except ValueError as error:
        raise InputError(str(error)) from None
    opened_task, metadata = open_task(description, task, str(path))
    if isinstance(description, Contract):
        opened_task = description.signature.view(opened_task)
    return PolicyArtefact(
        metadata,
        opened_task,
        policy,
        lambda *arguments: measure_outcomes(
            opened_task, distance_until_termination(play_in_c(opened_task, policy, *arguments))
        ),
    )


def _describe_onnx(path: epath.Path) -> Metadata:
    """Returns the description inside an ONNX file whose graph may be run: its contract.

    Files from before the contract have the keys of `Metadata` alone.

    Raises:
        InputError: the file is missing or damaged, or crl-distill did not export it.
    """
    model = read_model(path)
    try:
        values = read_metadata({p.key: p.value for p in model.metadata_props}, str(path))
    except ValueError as error:
        raise InputError(str(error)) from None
    if "contract_version" in values:
        return read_contract(model, str(path))
    return parse_metadata(
        {key: value for key, value in values.items() if key in Metadata.model_fields}, str(path)
    )
