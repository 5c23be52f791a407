"""Measures of played episodes, with bootstrap confidence intervals."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from teachers.simulation.trajectory import (
    Trajectory,
    episode_lengths,
    starts_within_radius,
    within_radius,
)
from teachers.tasks import Task

RESAMPLES = 2000

Interval = tuple[float, float | None]  # the upper end is None where there is no bound


class Outcomes(NamedTuple):
    """The outcome of each episode."""

    success_at_end: Float[np.ndarray, "episodes"]  # 1 if within the radius at the last step
    success_any: Float[np.ndarray, "episodes"]  # 1 if within the radius at any step
    time_at_goal: Float[np.ndarray, "episodes"]  # fraction of the steps within the radius
    # 1 if within the task's hard radius at the last step; None where it has none
    success_hard: Float[np.ndarray, "episodes"] | None
    # Distance to the goal, in its unit, after the last step that terminated no episode; NaN where the first one did
    distance_at_end: Float[np.ndarray, "episodes"]
    # Control steps until the episode was terminated, for example by a fall; all steps where it was not
    episode_length: Float[np.ndarray, "episodes"]


def measure_outcomes(task: Task, distance: Float[np.ndarray, "time env"]) -> Outcomes:
    """Returns the outcomes of episodes.

    Args:
        task: what was played.
        distance: to the goal after each step, in the goal's unit, and infinite from a termination on.
    """
    within, hard = distance < task.success_radius, task.hard_radius
    return Outcomes(
        success_at_end=within[-1].astype(float),
        success_any=within.any(axis=0).astype(float),
        time_at_goal=within.mean(axis=0),
        success_hard=None if hard is None else (distance[-1] < hard).astype(float),
        distance_at_end=_last_finite(distance),
        episode_length=np.minimum(np.isfinite(distance).sum(axis=0) + 1.0, len(distance)),
    )


def _last_finite(values: Float[np.ndarray, "time env"]) -> Float[np.ndarray, "env"]:
    """Returns the last value of each column that is finite; NaN where none is."""
    finite = np.isfinite(values)
    last = len(values) - 1 - finite[::-1].argmax(axis=0)
    return np.where(finite.any(axis=0), values[last, np.arange(values.shape[1])], np.nan)


def summary(outcomes: Outcomes) -> dict[str, Any]:
    """Returns the mean of each outcome and its 95% interval, under `NAME` and `NAME_ci95`, where it is known."""
    figures: dict[str, Any] = {}
    for name, values in outcomes._asdict().items():
        if values is not None:
            values = values[np.isfinite(values)]
        if values is None or not len(values):
            continue
        figures[name] = float(values.mean())
        figures[f"{name}_ci95"] = mean_interval(values)
    return figures


def mean_interval(values: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Returns the percentile bootstrap 95% interval of the mean."""
    return bootstrap_interval(values, np.mean)


def bootstrap_interval(
    values: Float[np.ndarray, "n"], statistic: Callable[..., Any]
) -> tuple[float, float]:
    """Returns the percentile bootstrap 95% interval of a statistic that takes `axis`."""
    return _bootstrap((values,), statistic)


def retention(
    student: Float[np.ndarray, "episodes"], teacher: Float[np.ndarray, "episodes"]
) -> tuple[float, Interval] | tuple[None, None]:
    """Returns the student's time at goal divided by the teacher's, and its paired bootstrap 95% interval.

    Args:
        student: its time at goal in each episode.
        teacher: its time at goal in the same episodes.

    Returns:
        See `ratio_of_means`; both are None if the teacher is never at its goal.
    """
    return ratio_of_means(student, teacher)


def ratio_of_means(
    values: Float[np.ndarray, "episodes"], reference: Float[np.ndarray, "episodes"]
) -> tuple[float, Interval] | tuple[None, None]:
    """Returns the mean of values divided by the mean of a reference, and its paired bootstrap 95% interval.

    Args:
        values: at least 0, one for each episode.
        reference: at least 0, in the same episodes.

    Returns:
        Both are None if the reference is 0 everywhere. The interval's upper end is None if the reference is so rarely not 0
        that some resamples have no such episode: then nothing is known of how large the ratio may be.
    """
    if not reference.any():
        return None, None

    def ratio(s: np.ndarray, t: np.ndarray, axis: int = -1) -> Any:
        mean = t.mean(axis=axis)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(mean > 0, s.mean(axis=axis) / mean, np.inf)

    low, high = _bootstrap((values, reference), ratio)
    return float(ratio(values, reference)), (low, high if np.isfinite(high) else None)


def format_interval(interval: Interval) -> str:
    """Returns an interval as text: `[0.969, 0.984]`, or `[at least 0.969]` where it has no upper end."""
    low, high = interval
    return f"[at least {low:.3f}]" if high is None else f"[{low:.3f}, {high:.3f}]"


def _bootstrap(
    samples: tuple[np.ndarray, ...], statistic: Callable[..., Any]
) -> tuple[float, float]:
    if len(samples[0]) < 2:
        value = float(statistic(*samples))
        return (value, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # SciPy warns of infinite resamples
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
    # Quantiles without interpolation, which would give NaN between infinite ratios.
    low = np.quantile(resamples, 0.025, method="lower")
    high = np.quantile(resamples, 0.975, method="higher")
    return float(low), float(high)


def interquartile_mean(scores: Float[np.ndarray, "*n"], axis: int = -1) -> Any:
    """Returns the mean of the middle half of the scores, or of all if they are fewer than four.

    Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv 2108.13264).
    """
    return stats.trim_mean(scores, 0.25, axis=axis)


def summarise_seeds(name: str, scores: Sequence[float]) -> dict[str, Any]:
    """Returns the interquartile mean over seeds, its bootstrap 95% interval and all scores.

    Args:
        name: of the score.
        scores: one for each seed.

    Returns:
        `NAME`, `NAME_ci95` and `NAME_by_seed`.
    """
    values = np.array(scores, float)
    return {
        name: float(interquartile_mean(values)),
        f"{name}_ci95": bootstrap_interval(values, interquartile_mean),
        f"{name}_by_seed": values.tolist(),
    }


def label_reached_within(
    task: Task, trajectory: Trajectory, horizon: int
) -> tuple[Bool[np.ndarray, "time env"], Bool[np.ndarray, "time env"]]:
    """Returns labels of states: whether the goal is reached within `horizon` steps from there.

    Args:
        task: what was played.
        trajectory: one episode for each environment.
        horizon: in control steps.

    Returns:
        The labels, and which of them are valid. A label is invalid where the goal is reached already, where the episode
        is over, and where the recording ends before `horizon` steps without reaching the goal.
    """
    within, lengths = within_radius(task, trajectory), episode_lengths(trajectory)
    steps, at = len(within), np.arange(len(within))[:, None]
    # Before each step, the number of earlier steps that ended at the goal.
    count = np.concatenate([np.zeros_like(lengths)[None], within.cumsum(axis=0)])
    later = np.minimum(np.arange(steps) + horizon, steps)
    reached = count[later] > count[:-1]
    before = np.concatenate([starts_within_radius(task, trajectory)[None], within[:-1]])
    # A terminated episode will not reach its goal any more.
    complete = (at + horizon <= steps) | (lengths < steps)
    return reached, ~before & (at < lengths) & (reached | complete)


def auroc(scores: Float[np.ndarray, "rows"], outcomes: Bool[np.ndarray, "rows"]) -> float | None:
    """Returns the area under the receiver operating characteristic: how often a positive scores higher than a negative.

    It follows from the statistic of Mann and Whitney. It is None without positives or without negatives.
    """
    positives, negatives = scores[outcomes], scores[~outcomes]
    if not len(positives) or not len(negatives):
        return None
    larger = stats.mannwhitneyu(positives, negatives, method="asymptotic").statistic
    return float(larger / (len(positives) * len(negatives)))


def spearman(one: np.ndarray, other: np.ndarray) -> float | None:
    """Returns the rank correlation of two arrays of the same shape, or None if one of them is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.spearmanr(one, other).statistic)
