"""Success and time at goal, deterministically, with bootstrap confidence intervals."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key
from scipy import stats

from teachers.agent import Agent, Networks
from teachers.devices import spread_or_whole, whole
from teachers.networks import Params
from teachers.progress import Progress, silent
from teachers.rollout import reset, rollout
from teachers.tasks import Disturbances, Disturbed, State, Task

RESAMPLES = 2000
SEGMENT_STEPS = 50
EVALUATION, NOISE = 1, 2  # tell evaluation's random numbers from others of the same seed


class Episodes(NamedTuple):
    """Outcome of each episode."""

    success_at_end: Float[np.ndarray, "episodes"]  # 1 if within the radius at the last step
    success_any: Float[np.ndarray, "episodes"]  # 1 if within the radius at any step
    time_at_goal: Float[np.ndarray, "episodes"]  # fraction of the steps within the radius
    # 1 if within the task's hard radius at the last step; None where it has none
    success_hard: Float[np.ndarray, "episodes"] | None


def evaluation_starts(
    task: Task, episodes: int, seed: int, disturbances: Disturbances | None = None
) -> State:
    """The initial states and goals of an evaluation: the same for every policy, either engine and all disturbances."""
    # Cut along the environments, or whole on each device.
    place = spread_or_whole(episodes)
    starts = jax.jit(reset, static_argnums=(0, 2, 3), out_shardings=place)
    # Training splits the bare key of its seed.
    key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
    states = starts(task, key, episodes, task.evaluation_goals)
    if disturbances is None:
        return states
    disturbed = jax.jit(_disturbed, static_argnums=(0, 3), out_shardings=place)
    return states._replace(disturbed=disturbed(task, disturbances.model_dump(), key, episodes))


def _disturbed(
    task: Task, ranges: Mapping[str, Any], key: Key[Array, ""], episodes: int
) -> Disturbed:
    """As `reset` of a disturbed task would draw it with this key."""
    keys = jax.random.split(key, episodes)
    return jax.vmap(lambda k: task.disturb(ranges, k))(keys)


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
        `(params, starts, seed=0) -> segments of the episodes`, which `outcomes` takes one behind the other: each the
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
        going = alive & (jnp.cumsum(trajectory.terminated, axis=0) == 0)
        return states, going[-1], jnp.where(going, trajectory.distance, jnp.inf)

    # The distances whole, so that every machine can read all of them.
    compiled = jax.jit(play, out_shardings=(None, None, whole()))

    def run(params: Params, starts: State, seed: int = 0) -> Iterator[Float[Array, "time env"]]:
        states, alive = starts, np.ones(starts.steps.shape, bool)
        noise = jax.random.fold_in(jax.random.key(seed), NOISE)
        for part in range(task.episode_steps // segment):
            key = jax.random.fold_in(noise, part)
            states, alive, distance = compiled(params, states, alive, key)
            yield distance

    return run


def outcomes(task: Task, distance: Float[np.ndarray, "time env"]) -> Episodes:
    """Outcomes of episodes from the distance to the goal after each step, infinite from a termination on."""
    within, hard = distance < task.success_radius, task.hard_radius
    return Episodes(
        success_at_end=within[-1].astype(float),
        success_any=within.any(axis=0).astype(float),
        time_at_goal=within.mean(axis=0),
        success_hard=None if hard is None else (distance[-1] < hard).astype(float),
    )


def evaluate_agent(
    agent: Agent,
    episodes: int = 256,
    seed: int = 0,
    progress: Progress = silent,
    disturbances: Disturbances | None = None,
) -> Episodes:
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
    return outcomes(agent.task, np.concatenate(segments))


def summary(episodes: Episodes) -> dict[str, Any]:
    """The mean of each outcome and its 95% interval, under `NAME` and `NAME_ci95`."""
    figures: dict[str, Any] = {}
    for name, values in episodes._asdict().items():
        if values is None:
            continue
        figures[name] = float(values.mean())
        figures[f"{name}_ci95"] = mean_interval(values)
    return figures


def mean_interval(values: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Percentile bootstrap 95% interval of the mean."""
    return bootstrap_interval(values, np.mean)


def bootstrap_interval(
    values: Float[np.ndarray, "n"], statistic: Callable[..., Any]
) -> tuple[float, float]:
    """Percentile bootstrap 95% interval of a statistic that takes `axis`."""
    return _bootstrap((values,), statistic)


def retention(
    student: Float[np.ndarray, "episodes"], teacher: Float[np.ndarray, "episodes"]
) -> tuple[float, tuple[float, float]] | tuple[None, None]:
    """Student's time at goal / teacher's over the same episodes, with its paired bootstrap 95% interval.

    Both are None where the teacher is never at its goal. The interval has no upper end where it so rarely is
    that resamples miss it.
    """
    if not teacher.any():
        return None, None

    def ratio(s: np.ndarray, t: np.ndarray, axis: int = -1) -> Any:
        reference = t.mean(axis=axis)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(reference > 0, s.mean(axis=axis) / reference, np.inf)

    return float(ratio(student, teacher)), _bootstrap((student, teacher), ratio)


def _bootstrap(
    samples: tuple[np.ndarray, ...], statistic: Callable[..., Any]
) -> tuple[float, float]:
    if len(samples[0]) < 2:
        value = float(statistic(*samples))
        return (value, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # about resamples that are infinite
        resamples = stats.bootstrap(
            samples,
            statistic,
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=RESAMPLES,
            batch=100,
            rng=np.random.default_rng(0),
        ).bootstrap_distribution
    # Of the resamples themselves: interpolating between infinite ratios would give NaN.
    low = np.quantile(resamples, 0.025, method="lower")
    high = np.quantile(resamples, 0.975, method="higher")
    return float(low), float(high)
