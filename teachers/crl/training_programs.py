"""The compiled functions of training runs."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import jax
from jaxtyping import UInt

from teachers.config import LoggingConfig, TeacherConfig
from teachers.crl.diagnosis import make_diagnosis
from teachers.crl.evaluator import Evaluator
from teachers.crl.iteration import (
    TrainingState,
    configure_physics,
    init_training,
    make_iteration,
    state_shardings,
)
from teachers.crl.learner import Metrics
from teachers.crl.memory import decide_remat
from teachers.crl.networks import Networks, teacher_networks
from teachers.runs.devices import replicated
from teachers.tasks.engines import choose_engine


class TrainingPrograms:
    """The compiled functions of training runs that differ in seed, length and logging alone.

    Runs with `learning.entropy_fall` or `learning.rate_fall` have the same length, because their gradient steps depend on it.

    Each is compiled at its first use. Tracing and compiling physics takes many seconds, so that runs which can share one
    object should: see `train_teacher`.

    Attributes:
        networks: the networks that are trained, in the form in which the trained agents use them.
        seeds: number of runs that are trained at once, batched by `jax.vmap`.
        evaluator: evaluates the policy of one run, deterministic and as it explores, with the physics of its training.
    """

    def __init__(
        self,
        config: TeacherConfig,
        networks: Networks,
        training_networks: Networks | None = None,
        seeds: int = 1,
    ) -> None:
        """Prepares the functions; nothing is compiled yet.

        Args:
            config: the configuration of the runs.
            networks: the networks to train.
            training_networks: the same networks with the precision and recomputation of training, if they differ.
            seeds: number of runs that are trained at once.

        Raises:
            InputError: the configured physics cannot be computed here, or environments or batch cannot be divided evenly
                among the devices.
        """
        self.networks = networks
        self.seeds = seeds
        task = configure_physics(networks.task, config)
        # By default, the trained agents can use the programs of the training's evaluations.
        best_of = config.rollout.best_of
        is_default = task.engine == choose_engine("auto") and best_of == 1
        self.evaluator = (
            networks.evaluator
            if is_default
            else Evaluator(task, partial(networks.explore, best_of=best_of))
        )
        self._config = _compiled_settings(config)
        self._training_networks = training_networks or networks

    def can_train(self, config: TeacherConfig, seeds: int) -> bool:
        """Returns whether these functions are those of `seeds` runs of another configuration."""
        return seeds == self.seeds and _compiled_settings(config) == self._config

    @cached_property
    def state_shapes(self) -> TrainingState:
        """The state of one run, of `jax.ShapeDtypeStruct` in place of arrays."""
        return jax.eval_shape(partial(init_training, self._config, self.networks))

    @cached_property
    def state_shardings(self) -> Any:
        """Where the arrays of the state lie; see `teachers.crl.iteration.state_shardings`."""
        return state_shardings(self.state_shapes, self.seeds)

    @cached_property
    def init(self) -> Callable[[UInt[Any, "*seeds"]], TrainingState]:
        """Returns the initial state for a seed, or for several seeds that are trained at once."""
        init = partial(init_training, self._config, self.networks)
        return jax.jit(self._batch_over_seeds(init), out_shardings=self.state_shardings)

    @cached_property
    def iterate(self) -> Callable[[TrainingState], tuple[TrainingState, Metrics]]:
        """Runs one iteration of training; the state that it is given is donated."""
        iteration = make_iteration(self._config, self._training_networks, self.seeds)
        return jax.jit(
            self._batch_over_seeds(iteration),
            donate_argnums=0,
            out_shardings=(self.state_shardings, replicated()),
        )

    @cached_property
    def diagnose(self) -> Callable[[TrainingState], Metrics]:
        """Measures the use of depth, see `make_diagnosis`; returns no metrics for networks without residual blocks."""
        if not self.networks.has_residual_blocks:
            return lambda state: {}
        diagnosis = make_diagnosis(self._config, self._training_networks)
        return jax.jit(self._batch_over_seeds(diagnosis), out_shardings=replicated())

    def _batch_over_seeds(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.vmap(function) if self.seeds > 1 else function


def teacher_programs(config: TeacherConfig, seeds: int = 1) -> TrainingPrograms:
    """Returns the functions that train teachers, to be shared by several calls of `train_teacher`.

    Args:
        config: the configuration of the runs, which may differ as `TrainingPrograms` says.
        seeds: number of teachers that are trained at once.

    Raises:
        InputError: see `TrainingPrograms`.
    """
    remat = decide_remat(config, seeds)
    training_networks = teacher_networks(config, training=True, remat=remat)
    return TrainingPrograms(config, teacher_networks(config), training_networks, seeds)


def _compiled_settings(config: TeacherConfig) -> TeacherConfig:
    """Returns the configuration with defaults in place of all that the compiled functions do not depend on."""
    logging = LoggingConfig(episodes=config.logging.episodes)
    learning = config.learning.model_copy(update={"max_skipped": 0})
    steps = config.steps if learning.entropy_fall or learning.rate_fall else 1
    return config.model_copy(
        update={"seed": 0, "steps": steps, "logging": logging, "learning": learning}
    )
