"""Judges what a policy's file does in MuJoCo C by what it did in JAX, or by what its contract states."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from teachers.measures import Interval, format_interval, mean_interval, ratio_of_means
from teachers.runs.metadata import as_interval, as_number

MIN_RETENTION = (
    0.95  # the share of its time at goal that a policy has to keep: the interval's lower end
)
# However small the interval is: a fault in a twentieth of all episodes is missed by so many with a probability of 4%.
MIN_EPISODES = 64
MAX_EPISODES = 100_000
HARDLY_EVER = (
    0.05  # share of episodes in which the goal is reached, below which time at goal tells nothing
)
TELLS_NOTHING = "time at goal tells nothing"
MORE_EPISODES = 1.2  # of what an interval needs to become as small as it has to be


class Verdict(NamedTuple):
    """Whether the closed loop is as it should be, and why, in one sentence."""

    ok: bool
    text: str


class Figure(NamedTuple):
    """A mean over episodes, and the ends of its 95% interval."""

    value: float
    low: float
    high: float


def judge_retention(
    ratio: float,
    interval: Interval,
    episodes: int,
    what: str = "its time at goal",
    limit: Interval | None = None,
) -> Verdict:
    """Returns whether a policy keeps `MIN_RETENTION` of what it had, as far as the interval can tell.

    Args:
        ratio: the share that it keeps.
        interval: of this share; its upper end is None where it is not bounded.
        episodes: number of episodes that were played.
        what: what it keeps a share of, for the text.
        limit: the interval that any number of episodes would leave, where it keeps a share of a stated figure; None where
            the same episodes are compared.
    """
    low, high = interval
    kept = f"{ratio:.3f} {format_interval(interval)} of {what}"
    if high is not None and high < MIN_RETENTION:
        return Verdict(False, f"keeps {kept}, less than {MIN_RETENTION:g}")
    if low >= MIN_RETENTION and episodes >= MIN_EPISODES:
        return Verdict(True, f"keeps {kept}")
    needed = needed_episodes(ratio, interval, episodes, limit)
    if needed is None and episodes < MIN_EPISODES:  # so few do not tell how near the ratio is
        needed = MIN_EPISODES
    if needed:
        or_else = ", or compare the same episodes: --against" if limit else ""
        return Verdict(
            False,
            f"not enough episodes: {episodes} show {kept}; give --episodes {needed}{or_else}",
        )
    reason = (
        "more would not tell, because the stated figure is uncertain itself; only --against CHECKPOINT can"
        if limit
        else f"it is too near {MIN_RETENTION:g} for more to tell"
    )
    return Verdict(False, f"{episodes} episodes show {kept}; {reason}")


def needed_episodes(
    ratio: float, interval: Interval, episodes: int, limit: Interval | None = None
) -> int | None:
    """Returns how many episodes would tell on which side of `MIN_RETENTION` a ratio is; None if hardly any number would.

    The length of an interval falls with the square root of the number of episodes, down to that of `limit`, whose square
    is a part of its square.

    Args:
        ratio: what `episodes` episodes gave.
        interval: of the ratio; its upper end is None where it is not bounded.
        episodes: their number.
        limit: the interval that any number of episodes would leave, which is none by default.
    """
    is_above = ratio >= MIN_RETENTION
    if not is_above and interval[1] is None and limit:  # the stated figure may be 0
        return None

    def length_towards(ends: Interval) -> float:
        low, high = ends
        return ratio - low if is_above or high is None else high - ratio

    length, shortest = length_towards(interval), length_towards(limit or (ratio, ratio))
    distance, factor = abs(ratio - MIN_RETENTION), math.inf
    if distance > shortest:  # the differences of the squares, which could overflow
        factor = (length - shortest) / (distance - shortest) * (length + shortest)
        factor /= distance + shortest
    # Where there is no upper end, that many show too little of the reference for a length.
    factor = max(factor, 2.0) if not is_above and interval[1] is None else factor
    needed = max(MIN_EPISODES, MORE_EPISODES * episodes * factor)
    if not episodes < needed <= MAX_EPISODES:
        return None
    return math.ceil(needed / MIN_EPISODES) * MIN_EPISODES


def judge_with_reference(
    time_at_goal: Float[np.ndarray, "episodes"],
    reference: Float[np.ndarray, "episodes"],
    distance: Float[np.ndarray, "time episodes"],
    reference_distance: Float[np.ndarray, "time episodes"],
) -> Verdict:
    """Returns whether the policy of a file does what it did in JAX, in the same episodes.

    Args:
        time_at_goal: with the file, in MuJoCo C.
        reference: the time at goal in JAX.
        distance: to the goal after each step with the file; infinite from a termination on.
        reference_distance: the same in JAX.
    """
    episodes, share = len(reference), float((reference > 0).mean())
    if share >= HARDLY_EVER:
        ratio, interval = ratio_of_means(time_at_goal, reference)
        assert ratio is not None
        assert interval is not None
        return judge_retention(ratio, interval, episodes)
    here, there = (closest_distance(each) for each in (distance, reference_distance))
    finite = np.isfinite(there)
    ratio, interval = ratio_of_means(there[finite], here[finite]) if finite.any() else (None, None)
    said = f"in JAX it reaches its goal in {share:.1%} of episodes; {TELLS_NOTHING}"
    if ratio is None or interval is None:
        return Verdict(True, f"{said}; there are no distances to compare")
    what = "its nearness to the goals (its smallest distance in JAX / with the file)"
    ok, text = judge_retention(ratio, interval, episodes, what)
    return Verdict(ok, f"{said}; {text}")


def judge_with_contract(
    time_at_goal: Float[np.ndarray, "episodes"],
    distance: Float[np.ndarray, "time episodes"],
    metrics: Mapping[str, Any],
) -> Verdict:
    """Returns whether a policy does in MuJoCo C what its contract states of other episodes.

    What the contract states is a mean over episodes too: its interval widens that of the ratio.

    Args:
        time_at_goal: in MuJoCo C.
        distance: to the goal after each step; infinite from a termination on.
        metrics: those of the contract.
    """
    stated = _read_figure(metrics, "time_at_goal")
    if stated is None:
        return Verdict(True, "the file states no time at goal; compare it with its run: --against")
    success = _read_figure(metrics, "success_any")
    rarity = None
    if success and success.value < HARDLY_EVER:
        rarity = f"it reaches its goal in {success.value:.1%} of episodes"
    elif not stated.value or (not success and stated.value < HARDLY_EVER):
        rarity = f"it is at its goal for {stated.value:.1%} of the time"
    if rarity:
        said = f"the file states that {rarity}; {TELLS_NOTHING}"
        return _judge_distance(closest_distance(distance), metrics, said)
    found = Figure(float(time_at_goal.mean()), *mean_interval(time_at_goal))
    ratio, interval = _divide(found, stated)
    _, limit = _divide(_without_error(found), stated)
    what = f"the time at goal of {stated.value:.3f} that the file states"
    return judge_retention(ratio, interval, len(time_at_goal), what, limit)


def _judge_distance(
    closest: Float[np.ndarray, "episodes"], metrics: Mapping[str, Any], said: str
) -> Verdict:
    """Returns whether a policy comes as near to its goals as at export, as far as the two intervals can tell."""
    stated = _read_figure(metrics, "exported_closest_distance")
    if stated is None:
        return Verdict(True, f"{said}; compare distances with its run: --against")
    found = Figure(float(closest.mean()), *mean_interval(closest))
    if not found.value:
        return Verdict(True, f"{said}; it comes to its goals exactly")
    ratio, interval = _divide(stated, found)
    _, limit = _divide(stated, _without_error(found))
    what = f"its nearness to the goals (its smallest distance at export, {stated.value:.3g} / here)"
    ok, text = judge_retention(ratio, interval, len(closest), what, limit)
    return Verdict(ok, f"{said}; {text}")


def _read_figure(metrics: Mapping[str, Any], name: str) -> Figure | None:
    """Returns a figure of a contract, taken as exact where its interval is missing; None if it is missing itself.

    What is no number of at least 0, or no interval around it, is missing.
    """
    value, ends = as_number(metrics.get(name)), as_interval(metrics.get(f"{name}_ci95"))
    if value is None or value < 0:
        return None
    low, high = ends or (value, value)
    high = math.inf if high is None else high
    return Figure(value, low, high) if 0 <= low <= value <= high else Figure(value, value, value)


def _without_error(figure: Figure) -> Figure:
    """Returns the figure as infinitely many episodes would give it."""
    return Figure(figure.value, figure.value, figure.value)


def _divide(one: Figure, other: Figure) -> tuple[float, Interval]:
    """Returns the ratio of two means of different episodes, and its 95% interval.

    The logarithms of the means are independent, so that the variances of their errors add up, and so do the squares of
    their intervals' lengths on the side in question.

    Args:
        one: at least 0.
        other: more than 0; infinite where an episode ended before there was a distance.

    Returns:
        The interval's upper end is None where it is not bounded.
    """
    ratio = one.value / other.value
    if not ratio:
        high = one.high / other.low if other.low else math.inf
        return 0.0, (0.0, high if math.isfinite(high) else None)
    below = math.hypot(_log_ratio(one.value, one.low), _log_ratio(other.high, other.value))
    above = math.hypot(_log_ratio(one.high, one.value), _log_ratio(other.value, other.low))
    shrinking = math.exp(-below)
    low = ratio * shrinking if shrinking else 0.0  # a ratio that overflows times 0 is no number
    with np.errstate(over="ignore"):
        high = float(ratio * np.exp(above))
    return ratio, (low, high if math.isfinite(high) else None)


def _log_ratio(larger: float, smaller: float) -> float:
    return math.log(larger) - math.log(smaller) if smaller else math.inf


def closest_distance(
    distance: Float[np.ndarray, "time episodes"],
) -> Float[np.ndarray, "episodes"]:
    """Returns the smallest distance to the goal in each episode."""
    return distance.min(axis=0)
