"""The compiled programs of a distillation."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import jax

from distill.config import DistillConfig
from distill.iteration import Stages, make_stages
from distill.state import DistillState, state_shardings
from students.networks import student_networks
from teachers.agent import Teacher
from teachers.runs.devices import replicated, sharded

Tree = TypeVar("Tree")


class DistillPrograms:
    """The compiled stages of distillations that differ in seed, number of episodes and checkpoints alone.

    They are compiled at their first use. Tracing and compiling physics takes many seconds, so that distillations which can
    share one object should: see `distill_teacher`.

    Attributes:
        networks: the student's networks.
    """

    def __init__(self, config: DistillConfig, teacher: Teacher) -> None:
        """Prepares the stages; nothing is compiled yet.

        Args:
            config: the configuration of the distillations.
            teacher: their teacher, or one with the same networks and task.

        Raises:
            InputError: the engine cannot simulate the task or what disturbs it.
        """
        self.networks = student_networks(
            teacher.task,
            config.student,
            teacher.config.embedding,
            teacher.config.commanded_critic,
        )
        self._config = _without_seed(config, teacher)
        self._teacher_networks = teacher.networks
        self._teacher_settings = _network_settings(teacher)
        self._stages = make_stages(self._config, teacher.networks, self.networks)
        self._init = jax.jit(self._stages.init)

    def can_distill(self, config: DistillConfig, teacher: Teacher) -> bool:
        """Returns whether these stages are those of another distillation.

        Args:
            config: the configuration of the distillation.
            teacher: its teacher.
        """
        return (
            _without_seed(config, teacher) == self._config
            and teacher.task is self._teacher_networks.task
            and _network_settings(teacher) == self._teacher_settings
        )

    @cached_property
    def state_shapes(self) -> DistillState:
        """The shapes of a distillation's state."""
        return jax.eval_shape(self._init, jax.random.key(0))

    @cached_property
    def sharded_state(self) -> DistillState:
        """The shapes of a distillation's state, each with its sharding over the devices."""
        return _with_shardings(self.state_shapes, state_shardings(self.state_shapes))

    @cached_property
    def compiled(self) -> Stages:
        """The compiled stages. Each is compiled while the next one is traced, which takes seconds for physics."""
        stages, shardings = self._stages, state_shardings(self.state_shapes)
        state = self.sharded_state
        shapes = self._teacher_networks.shapes
        params = _with_shardings(shapes, jax.tree.map(lambda _: replicated(), shapes))
        init = jax.jit(self._init, out_shardings=shardings, compiler_options=_optimisation_level(0))
        collect = jax.jit(
            stages.collect,
            donate_argnums=0,
            out_shardings=(shardings, sharded(), replicated()),
            compiler_options=_optimisation_level(1),
        )
        label = jax.jit(
            stages.label,
            donate_argnums=0,
            out_shardings=shardings,
            compiler_options=_optimisation_level(1),
        )
        learns = [
            jax.jit(
                learn,
                donate_argnums=0,
                out_shardings=(shardings, replicated()),
                compiler_options=_optimisation_level(1),
            )
            for learn in stages.learn
        ]
        with ThreadPoolExecutor() as threads:

            def compile_stage(function: Any, *arguments: Any) -> Future[Callable[..., Any]]:
                return threads.submit(function.lower(*arguments).compile)

            # The rollout comes first because it takes longest.
            compiled_collect = compile_stage(collect, state, params)
            compiled_learns = [compile_stage(learn, state, params) for learn in learns]
            _, visited, _ = jax.eval_shape(collect, state, params)
            visited = _with_shardings(visited, jax.tree.map(lambda _: sharded(), visited))
            compiled_label = compile_stage(label, state, params, visited)
            compiled_init = compile_stage(init, jax.random.key(0))
            return Stages(
                init=compiled_init.result(),
                collect=compiled_collect.result(),
                label=compiled_label.result(),
                learn=tuple(learn.result() for learn in compiled_learns),
            )


def _without_seed(config: DistillConfig, teacher: Teacher) -> DistillConfig:
    """Returns the configuration with steps filled in, and with fixed values of all that the stages do not depend on."""
    resolved = config.for_teacher(teacher.metadata.metrics["steps"])
    fixed = {"seed": 0, "episodes": 1, "checkpoint_every": 1}
    return resolved.model_copy(update=fixed)


def _network_settings(teacher: Teacher) -> tuple[Any, ...]:
    config = teacher.config
    return config.actor, config.phi, config.psi, config.embedding, config.commanded_critic


def _with_shardings(shapes: Tree, shardings: Tree) -> Tree:
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def _optimisation_level(level: int) -> dict[str, int] | None:
    """Returns compiler options that set how much LLVM optimises on a CPU.

    At level 1 physics compiles in half the time that the default level needs, and does not run slower.
    """
    on_cpu = jax.default_backend() == "cpu"
    return {"xla_backend_optimization_level": level} if on_cpu else None
