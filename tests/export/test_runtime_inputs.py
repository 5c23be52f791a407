"""The guard of the robot's runtime against random Python objects and arrays."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import hostile
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.runtime import FaultError, Policy

POLICY = Path(__file__).parents[1] / "fixtures" / "contract-1" / "policy.onnx"
OBSERVATION, GOAL = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.1, 0.1]), np.array([0.05, 0.1])
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


def allowed_range(policy: Policy, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the smallest and the largest numbers that an input may have with the default margin."""
    low, high = [], []
    for field in policy.metadata["inputs"][name]:
        for lower, upper in zip(field["seen_low"], field["seen_high"], strict=True):
            tolerance = 0.5 * max(upper - lower, 0.1 * field["scale"])
            low.append(lower - tolerance)
            high.append(upper + tolerance)
    return np.float32(low), np.float32(high)


RANGES = {name: allowed_range(Policy(POLICY), name) for name in ("observation", "goal")}

FLOATS = st.sampled_from([np.float16, np.float32, np.float64, np.longdouble])
# One number past, at and within each limit, and those that float32 can only just hold or no longer.
EDGES = sorted(
    {
        float(number)
        for low, high in RANGES.values()
        for limit in (*low, *high)
        for number in (limit, np.nextafter(limit, -LARGEST), np.nextafter(limit, LARGEST))
    }
    | {sign * x for x in (LARGEST, SMALLEST, SMALLEST / 2, 5e-324, 1e300, np.inf) for sign in (1, -1)}
)  # fmt: skip
NUMBERS = st.one_of(st.floats(), st.sampled_from(EDGES))


@st.composite
def arrays_in_range(draw: Any, name: str, rows: int | None) -> np.ndarray:
    """Draws an array of floating-point numbers within their limits, of which one may then be any number."""
    low, high = RANGES[name]
    shape = low.shape if rows is None else (rows, len(low))
    # From one number, because to draw each share takes most of the test's time.
    shares = np.random.default_rng(draw(st.integers(0, 2**32))).random(shape)
    with np.errstate(all="ignore"):
        array = (low + shares * (high - low)).astype(draw(FLOATS))
        if array.size and draw(st.integers(0, 3)) == 0:
            array.flat[draw(st.integers(0, array.size - 1))] = draw(NUMBERS)
    return array


def any_arrays(size: int) -> st.SearchStrategy[np.ndarray]:
    """Arrays of all types and of shapes that are right or not."""
    shapes = st.one_of(
        st.just((size,)),
        st.tuples(st.integers(0, 3), st.just(size)),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
    )
    types = st.one_of(FLOATS, hnp.scalar_dtypes(), hnp.array_dtypes())
    return hnp.arrays(types, shapes)


def hostile_objects(size: int) -> st.SearchStrategy[partial[Any]]:
    """Functions that make what `hostile` does, because Hypothesis looks at what it draws; sound kinds hold any numbers."""
    faults = st.sampled_from([*hostile.FAULTS.values(), *hostile.BATCH_FAULTS.values()])
    kinds = st.sampled_from(list(hostile.SOUND.values()))
    numbers = st.lists(st.floats(-60000.0, 60000.0), min_size=size, max_size=size)
    return st.one_of(
        faults.map(lambda make: partial(make, size)),
        st.tuples(kinds, numbers).map(lambda pair: partial(*pair)),
    )


def nested_objects(size: int) -> st.SearchStrategy[Any]:
    """Python's own objects, in lists, tuples, sets and dictionaries that are in one another."""
    leaves = st.one_of(
        *(st.none(), st.booleans(), st.integers(), NUMBERS, st.complex_numbers()),
        *(st.text(max_size=3), st.binary(max_size=3), st.decimals(), st.fractions()),
        *(st.datetimes(), st.timedeltas(), st.just(object()), st.just(np.ma.masked)),
        st.builds(np.float32, st.floats(width=32)),
        st.builds(hostile.RaisingNumber),
        st.builds(hostile.ReturningArray, st.floats(allow_nan=False).map(np.array)),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=9),
            st.lists(inner, min_size=size, max_size=size),
            st.lists(NUMBERS, min_size=size, max_size=size),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(st.text(max_size=1), inner, max_size=2),
        ),
        max_leaves=12,
    )


def any_inputs(name: str) -> st.SearchStrategy[Any]:
    """Whatever somebody may give for the observation or the goal."""
    size = len(RANGES[name][0])
    return st.one_of(any_arrays(size), hostile_objects(size), nested_objects(size))


def observations_and_goals() -> st.SearchStrategy[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Some observations and some goals: an array in range or nearly so, anything, and either."""

    def draw_some(name: str, rows: int | None) -> st.SearchStrategy[tuple[Any, ...]]:
        in_range, anything = arrays_in_range(name, rows), any_inputs(name)
        return st.tuples(in_range, anything, st.one_of(in_range, anything))

    return st.one_of(
        *(st.tuples(*(draw_some(name, rows) for name in RANGES)) for rows in (None, None, 0, 1, 3))
    )


@contextmanager
def numpy_reports(errors: Any) -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all=errors):
        warnings.simplefilter("ignore" if errors == "ignore" else "error")
        yield


def sound_rows(value: Any, name: str) -> tuple[int, ...] | None:
    """Returns `()` for a single sound input, `(batch,)` for a batch, and None for one that is at fault."""
    low, high = RANGES[name]
    try:
        with numpy_reports("ignore"):
            array = np.array(value, subok=False)
            numbers = array.astype(np.float32)
    except Exception:
        return None
    if not np.issubdtype(array.dtype, np.floating) or array.shape[-1:] != low.shape:
        return None
    if array.ndim > 2 or not ((low <= numbers) & (numbers <= high)).all():
        return None
    parts = value if isinstance(value, list | tuple) else [value]
    return None if any(np.ma.is_masked(part) for part in parts) else array.shape[:-1]


def call(policy: Policy, *inputs: Any) -> np.ndarray | None:
    """Returns the action, or None where the policy raises FaultError."""
    try:
        return policy(*inputs)
    except FaultError as error:
        message = str(error)
    assert message.isprintable()
    return None


def is_batch(value: Any) -> bool:
    try:
        return np.ndim(value) > 1
    except Exception:
        return False


def check_inputs(raising: Policy, holding: Policy, observation: Any, goal: Any) -> bool:
    """Requires that two policies do what they promise for an observation and a goal, and returns whether they acted."""
    rows = sound_rows(observation, "observation")
    is_sound = rows is not None and rows == sound_rows(goal, "goal")
    action = call(raising, observation, goal)
    assert (action is not None) == is_sound
    safe, held = holding(OBSERVATION, GOAL), holding.held
    response = call(holding, observation, goal)
    if action is not None:
        low, high = raising.action_limits
        assert action.dtype == np.float32
        assert action.shape == (*rows, len(low))
        assert ((low <= action) & (action <= high)).all()  # NaN is neither
        np.testing.assert_array_equal(response, action)
        assert holding.held == held
    elif response is not None:
        assert not is_batch(observation)
        assert not is_batch(goal)
        np.testing.assert_array_equal(response, safe)
        assert holding.held == held + 1
        assert holding.fault
    else:
        assert is_batch(observation) or is_batch(goal)  # a batch has no safe action
        assert holding.held == held
    return is_sound


@pytest.mark.parametrize(
    "count", [300, pytest.param(100_000, marks=pytest.mark.slow)], ids="{} inputs".format
)
def test_policy_acts_holds_or_raises_fault_error_whatever_it_is_given(count) -> None:
    raising, holding = Policy(POLICY), Policy(POLICY, on_fault="hold")
    acted = []

    @settings(
        max_examples=count // 9 + 1,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn=observations_and_goals(), errors=st.sampled_from(["raise", "warn", "ignore"]))
    def check(drawn: tuple[tuple[Any, ...], tuple[Any, ...]], errors: str) -> None:
        with numpy_reports("ignore"):
            observations, goals = (
                [each() if isinstance(each, partial) else each for each in some] for some in drawn
            )
        with numpy_reports(errors):
            for observation, goal in product(observations, goals):
                acted.append(check_inputs(raising, holding, observation, goal))

    check()
    print(f"{len(acted)} pairs of inputs, {sum(acted)} of them sound")
    assert len(acted) >= count
    assert 0.05 * len(acted) < sum(acted) < 0.95 * len(acted)
