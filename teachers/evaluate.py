"""Success and time at goal, deterministically, with bootstrap confidence intervals."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from teachers.agent import Agent
from teachers.crl.networks import Networks
from teachers.crl.parameters import Params
from teachers.measures import Outcomes, measure_outcomes
from teachers.runs.devices import replicated
from teachers.runs.progress import Progress, ignore_progress
from teachers.simulation.rollout import NOISE, evaluation_starts, rollout
from teachers.simulation.trajectory import is_running
from teachers.tasks import Disturbances, State

SEGMENT_STEPS = 50


@lru_cache(maxsize=4)
def player(
    networks: Networks, disturbed: bool = False
) -> Callable[..., Iterator[Float[Array, "time env"]]]:
    """Compiles, once for many evaluations, the playing of whole episodes in MJX.

    An episode that terminates early counts as away from its goal from then on.

    Args:
        networks: whose policy plays.
        disturbed: whether episodes are; by what, their starts say.

    Returns:
        `(params, starts, seed=0) -> segments of the episodes`, which `measure_outcomes` takes one behind the other: each the
        distance to the goal after each step, still being computed when it is given. The seed is that of noise.

    Raises:
        InputError: disturbed, and Warp simulates the task.
    """
    # An episode that restarts has counted already, so that it matters little by what it is disturbed.
    task = networks.task.disturbed_by(Disturbances()) if disturbed else networks.task
    # Played in equal segments, so that long episodes can report their progress.
    segment = next(n for n in range(SEGMENT_STEPS, 0, -1) if task.episode_steps % n == 0)

    def play(
        params: Params, states: State, alive: Bool[Array, "env"], key: Key[Array, ""]
    ) -> tuple[State, Bool[Array, "env"], Float[Array, "time env"]]:
        def act(_: Key[Array, "env"], observation: Array, goal: Array) -> Array:
            return networks.policy(params, observation, goal)

        states, trajectory = rollout(task, act, states, key, segment, task.evaluation_goals)
        going = is_running(trajectory.terminated, alive)
        return states, going[-1], jnp.where(going, trajectory.distance, jnp.inf)

    # The distances whole, so that every machine can read all of them.
    compiled = jax.jit(play, out_shardings=(None, None, replicated()))

    def run(params: Params, starts: State, seed: int = 0) -> Iterator[Float[Array, "time env"]]:
        states, alive = starts, np.ones(starts.steps.shape, bool)
        noise = jax.random.fold_in(jax.random.key(seed), NOISE)
        for part in range(task.episode_steps // segment):
            key = jax.random.fold_in(noise, part)
            states, alive, distance = compiled(params, states, alive, key)
            yield distance

    return run


def evaluate_agent(
    agent: Agent,
    episodes: int = 256,
    seed: int = 0,
    progress: Progress = ignore_progress,
    disturbances: Disturbances | None = None,
) -> Outcomes:
    """Plays the agent's policy, without exploration noise, for whole episodes of its task in MJX.

    Args:
        agent: teacher or student.
        episodes: how many, simulated at once.
        seed: of initial states and goals; the same seed gives any policy the same episodes.
        progress: called as the episodes advance.
        disturbances: what the same episodes are disturbed by; all that are given share one compiled program.
    """
    starts = evaluation_starts(agent.task, episodes, seed, disturbances)
    play = player(agent.networks, disturbances is not None)
    segments: list[np.ndarray] = []
    for segment in play(agent.params, starts, seed):
        segments.append(np.asarray(segment))
        done = sum(map(len, segments))
        progress(done * episodes, agent.task.episode_steps * episodes, {})
    return measure_outcomes(agent.task, np.concatenate(segments))
