import numpy as np
import pytest

from export.closed_loop import (
    MIN_EPISODES,
    judge_retention,
    judge_with_contract,
    judge_with_reference,
    needed_episodes,
)


@pytest.mark.parametrize(
    ("ratio", "interval", "episodes", "ok", "text"),
    [
        (0.98, (0.95, 1.01), 256, True, "keeps 0.980 [0.950, 1.010] of its time at goal"),
        (0.98, (0.949, 1.01), 256, False, "not enough episodes: 256 show 0.980 [0.949, 1.010]"),
        (0.93, (0.90, 0.949), 256, False, "keeps 0.930 [0.900, 0.949]  .. less than 0.95"),
        (0.93, (0.88, 0.96), 256, False, "not enough episodes .. give --episodes 704"),
        (0.97, (0.969, None), 256, True, "keeps 0.970 [at least 0.969]"),
        (0.97, (0.90, None), 256, False, "show 0.970 [at least 0.900] .. give --episodes"),
        (0.9501, (0.93, 0.97), 256, False, "too near 0.95 for more episodes to tell"),
        (1.0, (1.0, 1.0), 8, False, "not enough episodes: 8 show  .. give --episodes 64"),
        (0.5, (0.4, 0.6), 8, False, "keeps 0.500 .. less than 0.95"),
    ],
)
def test_judge_retention_needs_the_whole_interval(ratio, interval, episodes, ok, text) -> None:
    verdict = judge_retention(ratio, interval, episodes)
    assert verdict.ok == ok
    assert all(part in verdict.text for part in text.split(" .. ")), verdict.text


def test_needed_episodes_are_enough() -> None:
    random, noise, true = np.random.default_rng(0), 0.3, 0.98
    reference = np.full(100_000, 0.5)
    values = np.clip(true * reference + noise * random.standard_normal(100_000), 0, None)

    def judge(episodes):
        none = np.zeros((1, episodes))
        return judge_with_reference(values[:episodes], reference[:episodes], none, none)

    first = judge(256)
    assert not first.ok
    needed = int(first.text.rpartition(" ")[2])
    assert 256 < needed < 20_000
    assert judge(4 * needed).ok
    assert needed_episodes(0.98, (0.95, 1.01), 100) == 128


def test_judge_with_reference_compares_the_same_episodes() -> None:
    random = np.random.default_rng(0)
    reference = random.uniform(0, 1, MIN_EPISODES)
    none = np.zeros((1, MIN_EPISODES))
    assert judge_with_reference(0.96 * reference, reference, none, none).ok
    assert not judge_with_reference(0.94 * reference, reference, none, none).ok
    assert not judge_with_reference(0 * reference, reference, none, none).ok


@pytest.mark.parametrize(
    ("factor", "ok"), [(1.0, True), (1.04, True), (1.07, False), (np.inf, False)]
)
def test_judge_with_reference_compares_distances_where_goals_are_hardly_reached(factor, ok) -> None:
    distance = np.random.default_rng(0).uniform(0.5, 1.0, (10, 256))
    reference = np.zeros(256)
    reference[:3] = 0.3
    verdict = judge_with_reference(np.zeros(256), reference, factor * distance, distance)
    assert verdict.ok == ok
    assert (
        "reaches its goal in 1.2% of episodes, so that time at goal tells nothing in MJX"
        in verdict.text
    )
    assert "nearness to the goals" in verdict.text
    assert "inf" not in verdict.text


STATED = {"time_at_goal": 0.004, "success_any": 0.02}


def test_judge_with_contract_takes_the_stated_time_at_goal() -> None:
    random = np.random.default_rng(0)
    played, distance = random.uniform(0.6, 0.8, 256), np.ones((5, 256))
    good, bad = ({"time_at_goal": stated, "success_any": 1.0} for stated in (0.7, 0.8))
    assert judge_with_contract(played, distance, good).ok
    verdict = judge_with_contract(played, distance, bad)
    assert not verdict.ok
    assert "of the time at goal of 0.800 that the file states, less than 0.95" in verdict.text
    wide = random.uniform(0, 1, 64)
    unclear = judge_with_contract(wide, distance[:, :64], {"time_at_goal": wide.mean()})
    assert not unclear.ok
    assert unclear.text.endswith("or compare the same episodes: --against")
    assert "--against" in judge_with_contract(played, distance, {}).text


NEARNESS = {"exported_closest_distance": 0.55, "exported_closest_distance_ci95": [0.54, 0.56]}


@pytest.mark.parametrize(
    ("distance", "ok", "text"),
    [
        (0.5, True, "keeps 1.100 [1.080, 1.120] of its nearness to the goals .. at export, 0.55 /"),
        (0.568, True, "keeps 0.968 [0.951, 0.986]"),
        (0.575, False, "not enough episodes: 256 show 0.957 [0.939, 0.974]"),
        (0.6, False, "keeps 0.917 [0.900, 0.933] .. less than 0.95"),
        (np.inf, False, "keeps 0.000 [0.000, 0.000] .. less than 0.95"),
        (0.0, True, "it comes to its goals exactly"),
    ],
)
def test_judge_with_contract_compares_distances_where_goals_are_hardly_reached(
    distance, ok, text
) -> None:
    distances = np.full((5, 256), distance)
    verdict = judge_with_contract(np.zeros(256), distances, STATED)
    assert verdict.ok
    assert (
        "tells nothing, as the file states; compare distances with its run: --against"
        in verdict.text
    )
    verdict = judge_with_contract(np.zeros(256), distances, STATED | NEARNESS)
    assert verdict.ok == ok
    assert all(part in verdict.text for part in text.split(" .. ")), verdict.text


@pytest.mark.parametrize(
    ("closest", "text"),
    [
        ([0.5, 9, 0.3], "not enough episodes: 3 show 0.107"),  # a wide interval is no better one
        ([0.5, 9, 0.3] * 100, "keeps 0.107 .. less than 0.95"),
        ([0.3] * 63, "not enough episodes: 63 show 1.167 [1.000, 1.333] .. give --episodes 64"),
        ([0.02, 0.6] * 32, "not enough episodes: 64 show"),
    ],
)
def test_judge_with_contract_needs_the_lower_end_of_the_nearness(closest, text) -> None:
    stated = {"exported_closest_distance": 0.35, "exported_closest_distance_ci95": [0.3, 0.4]}
    distances = np.array([closest])
    verdict = judge_with_contract(np.zeros(len(closest)), distances, STATED | stated)
    assert not verdict.ok
    assert all(part in verdict.text for part in text.split(" .. ")), verdict.text
