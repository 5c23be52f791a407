"""Distillation: a shallow student learns a deep teacher's policy and critic on rollouts made on the device."""

import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import jax
from etils import epath

from distill.config import DistillConfig
from distill.iteration import Stages, make_stages
from distill.retention import measure_retention
from distill.ring import LabelledStates
from distill.state import DistillState, Metrics, state_shardings
from students.artefact import Student, save_student
from students.config import saved_student_config
from students.networks import describe_networks, parameters_used_by, student_networks
from teachers.agent import Agent, Teacher, describe_teacher
from teachers.crl.memory import require_memory, total_bytes
from teachers.crl.networks import Networks
from teachers.crl.parameters import Params, count_parameters
from teachers.evaluate import evaluate_agent
from teachers.measures import Outcomes
from teachers.runs.devices import replicated, require_divisible, sharded
from teachers.runs.errors import InputError
from teachers.runs.metadata import Metadata, library_versions, replace_non_finite
from teachers.runs.outputs import new_run_folder
from teachers.runs.progress import Progress, ignore_progress
from teachers.runs.run_log import RunLog

Tree = TypeVar("Tree")

HOPELESS = 0.05  # share of episodes; a teacher that reaches its goal in fewer has nothing to teach
STAGES = ("compile", "rollout", "label", "learn")


def distill_teacher(
    teacher: Teacher,
    config: DistillConfig,
    out: epath.PathLike,
    *,
    force: bool = False,
    reference: Outcomes | None = None,
    progress: Progress = ignore_progress,
) -> Student:
    """Distills a teacher into a student, and leaves the student's checkpoint, metrics and events in `out`.

    Args:
        teacher: as `load_teacher` or `train_teacher` gives it.
        config: the student's shape and how it is taught; see `distill_config`.
        out: a new folder.
        force: distill also a teacher that hardly ever reaches its goal.
        reference: the teacher's episodes, `config.episodes` of seed `config.seed`; by default they are played.
        progress: called after each round.

    Returns:
        The student. Among its metrics: its retention of the teacher; `steps_share` and `seconds_share` of the teacher's
        training that it took; and where its `seconds` went, without the final evaluation: `seconds_compile`,
        `seconds_rollout` (in which the teacher acts too), `seconds_label` (the teacher's labels),
        `seconds_learn`, and `label_share` of all but compilation.

    Raises:
        InputError: `out` is taken, the teacher does not reach its goal, or the distillation does not fit in memory or
            cannot be dealt out to the devices.
    """
    out = epath.Path(out)
    if not force:
        require_able(teacher)
    require_divisible(collect__environments=config.collect.environments)
    config = config.for_teacher(teacher.metadata.metrics["steps"])
    begun = time.monotonic()
    key = _program_key(config), teacher.networks, teacher.config.embedding
    plan = _plan(*key)
    _require_memory(config, plan.shape)
    seconds = dict.fromkeys(STAGES, 0.0)

    def timed(stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        start = time.monotonic()
        result = jax.block_until_ready(function(*arguments))
        seconds[stage] += time.monotonic() - start
        return result

    with new_run_folder(out), RunLog(out, config) as log:
        warn_of_size(plan.shape.params, teacher)
        programs = _compiled(*key)
        seconds["compile"] = time.monotonic() - begun
        params = jax.device_put(teacher.params, replicated())
        state = timed("rollout", programs.init, jax.random.key(config.seed))
        total = config.rounds * config.states_per_round
        figures: dict[str, Any] = {}
        for i in range(1, config.rounds + 1):
            state, visited, seen = timed("rollout", programs.collect, state, params)
            state = timed("label", programs.label, state, params, visited)
            state, learned = timed("learn", programs.learn[0], state, params)
            figures |= _numbers(seen | learned) | {"seconds": time.monotonic() - begun}
            if i < config.rounds:
                log.write(i * config.states_per_round, figures)
            progress(i * config.states_per_round, len(programs.learn) * total, figures)
        for number, learn in enumerate(programs.learn[1:], start=1):
            for i in range(1, config.rounds + 1):
                state, learned = timed("learn", learn, state, params)
                done = number * total + i * config.states_per_round
                progress(done, len(programs.learn) * total, figures)
            figures |= _numbers(learned)
        figures |= {"steps": total} | cost(teacher, total, time.monotonic() - begun, seconds)
        metadata = describe(config, state.params, teacher, figures)
        lineage = {**metadata.lineage, "seen": _seen(state.ring.rows)}
        metadata = metadata.model_copy(update={"lineage": lineage})
        saved = saved_student_config(config.student, teacher.config.embedding)
        student = Agent(plan.networks, state.params, saved, metadata)
        if reference is None:
            reference = evaluate_agent(teacher, config.episodes, config.seed)
        measured = measure_retention(student, reference, config.seed)
        log.write(total, figures | measured)
        metadata = metadata.model_copy(
            update={"metrics": metadata.metrics | replace_non_finite(measured)}
        )
        student = replace(student, metadata=metadata)
        save_student(student, out)
    return student


class _Plan(NamedTuple):
    """A distillation, before anything is compiled."""

    networks: Networks  # the student's
    stages: Stages
    init: Callable[..., DistillState]  # that of the stages, traced
    shape: DistillState


class _Programs(NamedTuple):
    """The compiled functions of a distillation."""

    init: Callable[..., DistillState]
    collect: Callable[..., Any]
    label: Callable[..., DistillState]
    learn: tuple[Callable[..., Any], ...]


@lru_cache(maxsize=2)
def _plan(config: DistillConfig, teacher: Networks, embedding: int) -> _Plan:
    """Kept between distillations that differ in seed alone."""
    networks = student_networks(teacher.task, config.student, embedding)
    stages = make_stages(config, teacher, networks)
    init = jax.jit(stages.init)
    return _Plan(networks, stages, init, jax.eval_shape(init, jax.random.key(0)))


@lru_cache(maxsize=2)
def _compiled(config: DistillConfig, teacher: Networks, embedding: int) -> _Programs:
    """Kept like plans: tracing physics takes seconds. Each is compiled while the next ones are traced."""
    plan = _plan(config, teacher, embedding)
    stages, place = plan.stages, state_shardings(plan.shape)
    state = _placed(plan.shape, place)
    params = _placed(teacher.shapes, jax.tree.map(lambda _: replicated(), teacher.shapes))
    collect = jax.jit(
        stages.collect,
        donate_argnums=0,
        out_shardings=(place, sharded(), replicated()),
        compiler_options=_optimised(1),
    )
    init = jax.jit(plan.init, out_shardings=place, compiler_options=_optimised(0))
    label = jax.jit(
        stages.label, donate_argnums=0, out_shardings=place, compiler_options=_optimised(1)
    )
    learns = [
        jax.jit(
            learn,
            donate_argnums=0,
            out_shardings=(place, replicated()),
            compiler_options=_optimised(1),
        )
        for learn in stages.learn
    ]
    with ThreadPoolExecutor() as threads:

        def compiled(function: Any, *arguments: Any) -> Future[Callable[..., Any]]:
            return threads.submit(function.lower(*arguments).compile)

        collecting = compiled(collect, state, params)  # which takes longest
        learning = [compiled(learn, state, params) for learn in learns]
        _, visited, _ = jax.eval_shape(collect, state, params)
        visited = _placed(visited, jax.tree.map(lambda _: sharded(), visited))
        labelling = compiled(label, state, params, visited)
        beginning = compiled(init, jax.random.key(0))
        return _Programs(
            beginning.result(),
            collecting.result(),
            labelling.result(),
            tuple(program.result() for program in learning),
        )


def _placed(shapes: Tree, shardings: Tree) -> Tree:
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def _optimised(level: int) -> dict[str, int] | None:
    """How hard LLVM is to try on a CPU: at 1 physics takes half as long to compile as by default, and no longer to run."""
    on_cpu = jax.default_backend() == "cpu"
    return {"xla_backend_optimization_level": level} if on_cpu else None


def require_able(teacher: Agent) -> None:
    """Refuses a teacher that hardly ever reaches its goal, by the figures of its own training.

    Raises:
        InputError: it does not.
    """
    success = teacher.metadata.metrics.get("success_any")
    if success is not None and success < HOPELESS:
        raise InputError(
            f"the teacher reaches its goal in {success:.1%} of episodes: there is nothing to distill; train it "
            "longer, or go on with --force"
        )


def warn_of_size(student: Params, teacher: Agent) -> None:
    """Says of each network of a student with parameters of these shapes whether it is larger than its teacher's."""
    for name, theirs in teacher.params.items():
        own, most = count_parameters(parameters_used_by(name, student)), count_parameters(theirs)
        if own > most:
            warnings.warn(
                f"the student's {name} has {own:,} parameters, more than its teacher's {most:,}; a smaller one is "
                "faster on a robot",
                stacklevel=3,
            )


def cost(teacher: Agent, steps: int, total: float, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What a distillation took, in seconds by stage and as a share of its teacher's training.

    Args:
        teacher: whose metrics say what its own training took.
        steps: control steps of the distillation.
        total: seconds that it took in all.
        seconds: of these, by stage.

    Returns:
        See `distill_teacher`; shares are None where the teacher's metrics do not say.
    """
    theirs = teacher.metadata.metrics

    def share(own: float, name: str) -> float | None:
        return own / theirs[name] if theirs.get(name) else None

    running = sum(taken for stage, taken in seconds.items() if stage != "compile")
    return {
        "seconds": total,
        **{f"seconds_{stage}": taken for stage, taken in seconds.items()},
        "label_share": seconds["label"] / running,
        "steps_share": share(steps, "steps"),
        "seconds_share": share(total, "seconds"),
    }


def describe(
    config: DistillConfig, params: Params, teacher: Teacher, metrics: dict[str, Any]
) -> Metadata:
    """The metadata of a student with these parameters."""
    return Metadata(
        kind="student",
        task=teacher.metadata.task,
        task_source=teacher.metadata.task_source,
        sizes=teacher.task.sizes,
        networks=describe_networks(config.student, params),
        config={
            **config.model_dump(exclude_none=True),
            "embedding": config.student.embedding or teacher.config.embedding,
        },
        metrics=metrics,
        lineage={"teacher": describe_teacher(teacher)},
        versions=library_versions(),
    )


def _seen(rows: LabelledStates) -> dict[str, dict[str, list[float]]]:
    """The range of every number of what the student was taught on: the ring is full by the end."""
    arrays = {"observation": rows.observation, "goal": rows.goal}
    return {
        name: {"low": x.min(0).tolist(), "high": x.max(0).tolist()} for name, x in arrays.items()
    }


def _require_memory(config: DistillConfig, state: DistillState) -> None:
    shapes = (config.student.policy, config.student.critic, config.student.critic)
    batch = config.learning.batch
    activations = 2 * batch * sum(n.layers * n.width for n in shapes)
    matrices = 0 if config.critic.loss == "embedding" else 4 * batch**2  # of logits
    require_memory(
        # The parameters once more for their gradients.
        total_bytes((state, state.params)) + 4 * (activations + matrices),
        "collect.environments, collect.capacity, learning.batch, layers or width",
    )


def _numbers(metrics: Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(metrics).items()}


def _program_key(config: DistillConfig) -> DistillConfig:
    return config.model_copy(update={"seed": 0, "episodes": 1})
