"""Plays whole episodes of a policy, deterministic or sampled, and measures their outcomes."""

from collections.abc import Callable, Iterator
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from teachers.crl.parameters import Params
from teachers.measures import Outcomes, measure_outcomes
from teachers.process import in_32_bits
from teachers.runs.devices import replicated
from teachers.runs.progress import Progress, ignore_progress
from teachers.runs.streams import Stream, stream_key
from teachers.simulation.rollout import StepInput, evaluation_starts, rollout_with_memory
from teachers.simulation.trajectory import is_running
from teachers.tasks import Disturbances, State, Task

MAX_SEGMENT_STEPS = 50

# (params, keys [env], observation [env, obs], goal [env, goal], is deterministic [env]) -> action [env, act] in [-1, 1];
# see `Networks.explore`
Policy = Callable[[Params, Array, Array, Array, Array], Array]
# (params, read [env, n], memory [env, m]) -> what the policy sees, and the memory after it; see `Networks.remember`
Remember = Callable[[Params, Array, Array], tuple[Array, Array]]


def see_what_is_read(params: Params, read: Array, memory: Array) -> tuple[Array, Array]:
    """Returns what is read and the memory, as policies without memory see them."""
    return read, memory


class Evaluator:
    """Plays whole episodes of a policy.

    It holds the compiled programs: one for undisturbed and one for disturbed episodes, each compiled at its first use
    and used again for other parameters, seeds and disturbances.

    Attributes:
        task: the task that is played, with the engine that simulates it.
    """

    def __init__(
        self,
        task: Task,
        policy: Policy,
        remember: Remember = see_what_is_read,
        memory_size: int = 0,
    ) -> None:
        """Prepares the evaluation of a policy; nothing is compiled yet.

        Args:
            task: the task that is played, with the engine that simulates it.
            policy: the policy as a function of its parameters.
            remember: what it sees, as a function of its parameters and its memory.
            memory_size: numbers in its memory.
        """
        self.task = task
        self._policy, self._remember, self._memory_size = policy, remember, memory_size
        # Episodes are played in segments of equal length, so that long ones can report their progress.
        self._segment_steps = next(
            steps for steps in range(MAX_SEGMENT_STEPS, 0, -1) if task.episode_steps % steps == 0
        )

    def evaluate(
        self,
        params: Params,
        episodes: int,
        seed: int,
        progress: Progress = ignore_progress,
        disturbances: Disturbances | None = None,
        *,
        is_sampled: bool = False,
    ) -> Outcomes:
        """Plays episodes and returns their outcomes; see `record_distances`."""
        distance = self.record_distances(
            params, episodes, seed, progress, disturbances, is_sampled=is_sampled
        )
        return measure_outcomes(self.task, distance)

    @in_32_bits
    def record_distances(
        self,
        params: Params,
        episodes: int,
        seed: int,
        progress: Progress = ignore_progress,
        disturbances: Disturbances | None = None,
        *,
        is_sampled: bool = False,
    ) -> Float[np.ndarray, "time env"]:
        """Plays episodes and returns the distance to the goal after each step, as `play` yields it.

        Args:
            params: the policy's parameters.
            episodes: number of episodes, which are simulated at once.
            seed: of initial states and goals; the same seed gives any policy the same episodes.
            progress: called after each segment of the episodes.
            disturbances: what the same episodes are disturbed by.
            is_sampled: whether actions are drawn from the policy, instead of being deterministic.

        Raises:
            InputError: the episodes are disturbed, and Warp simulates the task.
        """
        starts = evaluation_starts(self.task, episodes, seed, disturbances)
        is_deterministic = np.full(episodes, not is_sampled)
        segments: list[np.ndarray] = []
        for segment in self.play(params, starts, is_deterministic, seed):
            segments.append(np.asarray(segment))
            done = sum(map(len, segments))
            progress(done * episodes, self.task.episode_steps * episodes, {})
        return np.concatenate(segments)

    def play(
        self,
        params: Params,
        starts: State,
        is_deterministic: Bool[np.ndarray, "env"],
        seed: int = 0,
    ) -> Iterator[Float[Array, "time env"]]:
        """Plays one episode from each of the initial states.

        A terminated episode counts as away from its goal from then on.

        Args:
            params: the policy's parameters.
            starts: initial states and goals, disturbed or not; see `evaluation_starts`.
            is_deterministic: in which episodes actions are deterministic; in the others they are drawn from the policy.
            seed: of sensor noise and of drawn actions.

        Yields:
            For each segment of the episodes, the distance to the goal after each step in the goal's unit; infinite from
            a termination on. The arrays may still be being computed when they are yielded.

        Raises:
            InputError: the episodes are disturbed, and Warp simulates the task.
        """
        program = self._disturbed_program if starts.disturbed else self._program
        states = starts
        memory = jnp.zeros(self._memory_size) * starts.steps[:, None]  # placed as the states are
        # All are; placed as the states are, so that JAX does not compile the first segment and the others separately.
        alive = starts.steps >= 0
        noise_key = stream_key(jax.random.key(seed), Stream.EVALUATION_NOISE)
        for segment in range(self.task.episode_steps // self._segment_steps):
            key = jax.random.fold_in(noise_key, segment)
            states, memory, alive, distance = program(
                params, states, memory, alive, is_deterministic, key
            )
            yield distance

    @cached_property
    def _program(self) -> Callable[..., tuple[State, Array, Array, Array]]:
        return self._compile(self.task)

    @cached_property
    def _disturbed_program(self) -> Callable[..., tuple[State, Array, Array, Array]]:
        # The initial states say by what their episodes are disturbed. An episode that is restarted is not evaluated any
        # more, so that it need not be disturbed.
        return self._compile(self.task.disturbed_by(Disturbances()))

    def _compile(self, task: Task) -> Callable[..., tuple[State, Array, Array, Array]]:
        def play_segment(
            params: Params,
            states: State,
            memory: Float[Array, "env memory"],
            alive: Bool[Array, "env"],
            is_deterministic: Bool[Array, "env"],
            key: Key[Array, ""],
        ) -> tuple[State, Float[Array, "env memory"], Bool[Array, "env"], Float[Array, "time env"]]:
            def act(given: StepInput, is_deterministic: Array) -> tuple[Array, Array]:
                seen, memory = self._remember(params, given.read, given.memory)
                action = self._policy(params, given.keys, seen, given.goal, is_deterministic)
                return action, memory

            states, memory, trajectory = rollout_with_memory(
                task,
                act,
                states,
                memory,
                key,
                self._segment_steps,
                task.evaluation_goals,
                is_deterministic,
            )
            running = is_running(trajectory.terminated, alive)
            distance = jnp.where(running, trajectory.distance, jnp.inf)
            return states, memory, running[-1], distance

        # The distances are replicated, so that every process can read all of them.
        return jax.jit(play_segment, out_shardings=(None, None, None, replicated()))
