import numpy as np
import pytest

from export.closed_loop import (
    MIN_EPISODES,
    judge_retention,
    judge_with_contract,
    judge_with_reference,
    needed_episodes,
)
from teachers.measures import Outcomes, summary


@pytest.mark.parametrize(
    ("ratio", "interval", "episodes", "ok", "text"),
    [
        (0.98, (0.95, 1.01), 256, True, "keeps 0.980 [0.950, 1.010] of its time at goal"),
        (0.98, (0.949, 1.01), 256, False, "not enough episodes: 256 show 0.980 [0.949, 1.010]"),
        (0.93, (0.90, 0.949), 256, False, "keeps 0.930 [0.900, 0.949]  .. less than 0.95"),
        (0.93, (0.88, 0.96), 256, False, "not enough episodes .. give --episodes 704"),
        (0.97, (0.969, None), 256, True, "keeps 0.970 [at least 0.969]"),
        (0.97, (0.90, None), 256, False, "show 0.970 [at least 0.900] .. give --episodes"),
        (
            0.9501,
            (0.93, 0.97),
            256,
            False,
            "256 episodes show 0.950 [0.930, 0.970]  .. it is too near 0.95 for more to tell",
        ),
        (1.0, (1.0, 1.0), 8, False, "not enough episodes: 8 show  .. give --episodes 64"),
        (0.5, (0.4, 0.6), 8, False, "keeps 0.500 .. less than 0.95"),
        (
            0.95,
            (0.95, 0.95),
            20,
            False,
            "not enough episodes: 20 show 0.950 [0.950, 0.950] .. give --episodes 64",
        ),
        (0.95, (0.93, 0.97), 63, False, "not enough episodes: 63 show .. give --episodes 64"),
        (0.95, (0.95, 0.95), 64, True, "keeps 0.950 [0.950, 0.950]"),
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
    assert verdict.text.startswith(
        "in JAX it reaches its goal in 1.2% of episodes; time at goal tells nothing; "
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
    unclear = judge_with_contract(wide, distance[:, :64], {"time_at_goal": wide.mean() / 1.05})
    assert not unclear.ok
    assert unclear.text.endswith("give --episodes 192, or compare the same episodes: --against")
    assert "--against" in judge_with_contract(played, distance, {}).text


def state(time_at_goal) -> dict:
    """Returns the metrics of a contract whose figures come from these episodes."""
    return summary(
        Outcomes(time_at_goal, time_at_goal, time_at_goal, None, 1 - time_at_goal, time_at_goal)
    )


@pytest.mark.parametrize(
    ("ends", "ok", "text"),
    [
        ([0.70, 0.70], False, "keeps 0.930 [ .. less than 0.95"),
        ([0.69, 0.71], False, "not enough episodes: 1024 show 0.930 [ .. give --episodes "),
        ([0.66, 0.74], False, "1024 episodes show 0.930 [ .. uncertain itself; only --against CHECKPOINT can"),
        ([0.0, 1.0], False, "[at least 0.651] .. only --against CHECKPOINT can"),
    ],
)  # fmt: skip
def test_judge_with_contract_takes_the_stated_figure_as_uncertain(ends, ok, text) -> None:
    played = np.random.default_rng(0).beta(3, 1.6, 1024)
    played += 0.651 - played.mean()
    metrics = {"time_at_goal": 0.7, "time_at_goal_ci95": ends, "success_any": 1.0}
    verdict = judge_with_contract(played, np.ones((1, 1024)), metrics)
    assert verdict.ok == ok
    assert all(part in verdict.text for part in text.split(" .. ")), verdict.text


def test_judge_with_contract_fails_hardly_any_sound_policy_outright() -> None:
    # Stated from 256 episodes, which are fewer than are played, and therefore more of the uncertainty.
    random, distance = np.random.default_rng(0), np.ones((1, 1024))
    stated, played = random.beta(0.8, 0.8, (100, 256)), random.beta(0.8, 0.8, (100, 1024))
    # The policies that kept the least of what was stated: all others are farther from failing.
    least = np.argsort(played.mean(axis=1) / stated.mean(axis=1))[:8]
    verdicts = [judge_with_contract(played[i], distance, state(stated[i])) for i in least]
    assert sum("less than" in verdict.text for verdict in verdicts) <= 1
    assert sum("only --against" in verdict.text for verdict in verdicts) >= 4
    assert not any(verdict.ok for verdict in verdicts)


def test_needed_episodes_are_enough_against_a_stated_figure() -> None:
    random = np.random.default_rng(0)
    values, distance = random.uniform(0.2, 1.0, 50_000), np.ones((1, 50_000))
    metrics = {"time_at_goal": 0.6, "time_at_goal_ci95": [0.58, 0.62], "success_any": 1.0}

    def judge(episodes):
        return judge_with_contract(values[:episodes], distance[:, :episodes], metrics)

    first = judge(64)
    assert not first.ok
    needed = int(first.text.partition("--episodes ")[2].partition(",")[0])
    assert 64 < needed < 10_000
    assert judge(2 * needed).ok
    assert needed_episodes(0.98, (0.93, 1.03), 100, (0.97, 0.99)) == 384
    assert needed_episodes(0.98, (0.95, 1.01), 100, (0.97, 0.99)) == 128
    assert needed_episodes(0.98, (0.94, 1.02), 100, (0.949, 1.01)) is None


def test_judge_with_contract_sends_a_policy_that_is_never_at_its_goal_to_its_checkpoint() -> None:
    metrics = {"time_at_goal": 0.1, "time_at_goal_ci95": [0.0, 0.3], "success_any": 0.2}
    verdict = judge_with_contract(np.zeros(256), np.ones((1, 256)), metrics)
    assert not verdict.ok
    assert verdict.text.startswith("256 episodes show 0.000 [at least 0.000] of")
    assert verdict.text.endswith("only --against CHECKPOINT can")
    certain = judge_with_contract(
        np.zeros(256), np.ones((1, 256)), metrics | {"time_at_goal_ci95": [0.05, 0.3]}
    )
    assert "keeps 0.000 [0.000, 0.000]" in certain.text
    assert needed_episodes(0.0, (0.0, None), 64) == 192  # more of the same episodes do tell


NEARNESS = {"exported_closest_distance": 0.55, "exported_closest_distance_ci95": [0.54, 0.56]}


@pytest.mark.parametrize(
    ("distance", "ok", "text"),
    [
        (0.5, True, "keeps 1.100 [1.080, 1.120] of its nearness to the goals .. at export, 0.55 /"),
        (0.568, True, "keeps 0.968 [0.951, 0.986]"),
        (0.575, False, "256 episodes show 0.957 [0.939, 0.974] .. only --against CHECKPOINT can"),
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
    assert verdict.text == (
        "the file states that it reaches its goal in 2.0% of episodes; time at goal tells nothing; "
        "compare distances with its run: --against"
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


@pytest.mark.parametrize("success", [{}, {"success_any": None}, {"success_any": "x"}])
def test_judge_with_contract_says_what_share_is_small(success) -> None:
    time_at_goal, distance = np.zeros(256), np.ones((5, 256))
    text = judge_with_contract(time_at_goal, distance, {"time_at_goal": 0.004, **success}).text
    assert text.startswith(
        "the file states that it is at its goal for 0.4% of the time; time at goal tells nothing; "
    )
    never = {"time_at_goal": 0.0, "success_any": 1.0}  # which cannot be
    text = judge_with_contract(time_at_goal, distance, never).text
    assert "it is at its goal for 0.0% of the time" in text
    kept = judge_with_contract(
        np.full(256, 0.3), distance, {"time_at_goal": 0.3, "success_any": None}
    )
    assert kept.ok
    assert kept.text.startswith("keeps 1.000")


@pytest.mark.parametrize("value", ["x", [1], {"a": 1}, True, -0.5, 10**400, None])
def test_judge_with_contract_takes_what_is_no_number_as_missing(value) -> None:
    played, distance = np.full(256, 0.7), np.full((5, 256), 0.5)
    verdict = judge_with_contract(played, distance, {"time_at_goal": value, "success_any": 1.0})
    assert verdict == (
        True,
        "the file states no time at goal; compare it with its run: --against",
    )
    verdict = judge_with_contract(played, distance, {"time_at_goal": 0.7, "success_any": value})
    assert verdict.text.startswith("keeps 1.000")
    verdict = judge_with_contract(
        played, distance, STATED | {"exported_closest_distance": value, "success_any": 0.01}
    )
    assert "compare distances with its run" in verdict.text


@pytest.mark.parametrize(
    "ends", ["x", 3, [1], [0.6, "x"], [0.9, 0.95], [-1, 0.8], [None, None], {"a": 1}, [1, 2, 3]]
)
def test_judge_with_contract_takes_what_is_no_interval_as_missing(ends) -> None:
    played, distance = np.full(256, 0.7), np.full((5, 256), 0.5)
    metrics = {"time_at_goal": 0.7, "time_at_goal_ci95": ends, "success_any": 1.0}
    assert "keeps 1.000 [1.000, 1.000]" in judge_with_contract(played, distance, metrics).text
    metrics = STATED | {"exported_closest_distance": 0.5, "exported_closest_distance_ci95": ends}
    assert "keeps 1.000 [1.000, 1.000]" in judge_with_contract(played, distance, metrics).text


@pytest.mark.parametrize("stated", [5e-324, 1e-300, 1e300])
@pytest.mark.parametrize("ends", [None, [0.0, 1e308], [5e-324, None]])
def test_judge_with_contract_survives_extreme_figures(stated, ends) -> None:
    played, distance = np.random.default_rng(0).uniform(0, 1, 64), np.full((5, 64), 0.5)
    metrics = {"time_at_goal": stated, "time_at_goal_ci95": ends, "success_any": 1.0}
    text = judge_with_contract(played, distance, metrics).text
    distances = {"exported_closest_distance": stated, "exported_closest_distance_ci95": ends}
    text += judge_with_contract(played, distance, STATED | distances).text
    assert "nan" not in text
