"""Measures of played episodes, with bootstrap confidence intervals."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from teachers.tasks import Task

RESAMPLES = 2000


class Episodes(NamedTuple):
    """Outcome of each episode."""

    success_at_end: Float[np.ndarray, "episodes"]  # 1 if within the radius at the last step
    success_any: Float[np.ndarray, "episodes"]  # 1 if within the radius at any step
    time_at_goal: Float[np.ndarray, "episodes"]  # fraction of the steps within the radius
    # 1 if within the task's hard radius at the last step; None where it has none
    success_hard: Float[np.ndarray, "episodes"] | None


def outcomes(task: Task, distance: Float[np.ndarray, "time env"]) -> Episodes:
    """Outcomes of episodes from the distance to the goal after each step, infinite from a termination on."""
    within, hard = distance < task.success_radius, task.hard_radius
    return Episodes(
        success_at_end=within[-1].astype(float),
        success_any=within.any(axis=0).astype(float),
        time_at_goal=within.mean(axis=0),
        success_hard=None if hard is None else (distance[-1] < hard).astype(float),
    )


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


def interquartile_mean(scores: Float[np.ndarray, "*n"], axis: int = -1) -> Any:
    """The mean of the middle half; of fewer than four scores, of all. Agarwal et al. (arXiv 2108.13264)."""
    return stats.trim_mean(scores, 0.25, axis=axis)


class Played(NamedTuple):
    """Whole episodes of a policy."""

    observation: Float[np.ndarray, "time env obs"]  # before the step
    action: Float[np.ndarray, "time env act"]
    goal: Float[np.ndarray, "env goal"]
    start: Bool[np.ndarray, "env"]  # at the goal to begin with
    within: Bool[np.ndarray, "time env"]  # at the goal after the step
    length: Int[np.ndarray, "env"]  # steps until the episode ended early; else all


def reached_within(
    played: Played, horizon: int
) -> tuple[Bool[np.ndarray, "time env"], Bool[np.ndarray, "time env"]]:
    """In which states the goal is reached within so many steps, and in which one can tell.

    One cannot where the goal is reached already, nor where the recording ends before that many steps without it.
    """
    steps, at = len(played.within), np.arange(len(played.within))[:, None]
    # The number of steps at the goal before each one.
    count = np.concatenate([np.zeros_like(played.length)[None], played.within.cumsum(axis=0)])
    later = np.minimum(np.arange(steps) + horizon, steps)
    reached = count[later] > count[:-1]
    before = np.concatenate([played.start[None], played.within[:-1]])
    whole = (at + horizon <= steps) | (played.length < steps)  # an episode that ended early is over
    return reached, ~before & (at < played.length) & (reached | whole)


def auroc(scores: Float[np.ndarray, "rows"], outcomes: Bool[np.ndarray, "rows"]) -> float | None:
    """The area under the receiver operating characteristic: how often a positive scores higher than a negative.

    By the statistic of Mann and Whitney; None where there are not both.
    """
    positives, negatives = scores[outcomes], scores[~outcomes]
    if not len(positives) or not len(negatives):
        return None
    larger = stats.mannwhitneyu(positives, negatives, method="asymptotic").statistic
    return float(larger / (len(positives) * len(negatives)))


def spearman(one: np.ndarray, other: np.ndarray) -> float | None:
    """The rank correlation of two arrays of one shape; None where one of them is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.spearmanr(one, other).statistic)
