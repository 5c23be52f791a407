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
    """The networks and the compiled stages of distillations of one teacher that differ in their seed alone.

    Attributes:
        config: of the distillations, with steps filled in; see `DistillConfig.for_teacher`.
        networks: the student's.
    """

    def __init__(self, config: DistillConfig, teacher: Teacher) -> None:
        """Makes the networks and the stages; they are compiled when they are first used.

        Args:
            config: of the distillations, of which the seed and the number of episodes do not matter.
            teacher: the teacher, or another one with the same networks object.

        Raises:
            InputError: the engine cannot simulate the task or what disturbs it.
        """
        self.config = _without_seed(config.for_teacher(teacher.metadata.metrics["steps"]))
        self.networks = student_networks(teacher.task, config.student, teacher.config.embedding)
        self._teacher = teacher.networks
        self._stages = make_stages(self.config, teacher.networks, self.networks)
        self._init = jax.jit(self._stages.init)

    def require_match(self, config: DistillConfig, teacher: Teacher) -> None:
        """Raises an error if a distillation needs other programs.

        Args:
            config: of the distillation, with steps filled in.
            teacher: its teacher.

        Raises:
            ValueError: the configuration differs in more than the seed and the episodes, or the teacher has other networks.
        """
        if _without_seed(config) != self.config or teacher.networks is not self._teacher:
            raise ValueError(
                "these programs were compiled for other settings or for another teacher; make new DistillPrograms"
            )

    @cached_property
    def state_shapes(self) -> DistillState:
        """The shapes of a distillation's state."""
        return jax.eval_shape(self._init, jax.random.key(0))

    @cached_property
    def compiled(self) -> Stages:
        """The compiled stages. Each is compiled while the next one is traced, which takes seconds for physics."""
        stages, shardings = self._stages, state_shardings(self.state_shapes)
        state = _with_shardings(self.state_shapes, shardings)
        shapes = self._teacher.shapes
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


def _without_seed(config: DistillConfig) -> DistillConfig:
    """Returns the configuration with fixed values of what does not change the programs."""
    return config.model_copy(update={"seed": 0, "episodes": 1})


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
