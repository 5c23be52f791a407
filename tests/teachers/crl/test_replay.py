import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from teachers.crl.replay import (
    empty_replay,
    geometric_offsets,
    index_episodes,
    insert_rollout,
    sample_pairs,
)
from teachers.simulation.trajectory import Trajectory

SLOTS, ENVS, LENGTH, BATCH = 12, 3, 4, 64

insert = jax.jit(insert_rollout)
index = jax.jit(index_episodes)
offsets_of = jax.jit(geometric_offsets, static_argnames="discount")
sample = jax.jit(sample_pairs, static_argnames=("batch", "discount"))


def make_rollout(episode: np.ndarray, step: np.ndarray) -> Trajectory:
    """Returns a rollout whose observations are the environment, the episode and the step."""
    env = np.broadcast_to(np.arange(episode.shape[1]), episode.shape)
    observation = np.stack([env, episode, step], axis=-1).astype(np.float32)
    flags = jnp.zeros(episode.shape, bool)
    return Trajectory(
        observation=jnp.asarray(observation),
        goal=jnp.zeros((*episode.shape, 1)),
        action=jnp.asarray(observation[..., :1]),
        steps=jnp.asarray(step, jnp.int32),
        distance=jnp.zeros(episode.shape),
        terminated=flags,
        broken=flags,
    )


def make_rollouts(lengths: list[list[int]], count: int) -> list[Trajectory]:
    """Returns rollouts of environments whose episodes have the given lengths, one list for each environment."""
    total = count * LENGTH
    columns = []
    for own in lengths:
        rows = [(e, s) for e, n in enumerate(own * total) for s in range(n)][:total]
        columns.append(rows)
    table = np.array(columns).swapaxes(0, 1)  # [time, env, 2]
    return [
        make_rollout(part[..., 0], part[..., 1])
        for part in table.reshape(count, LENGTH, len(lengths), 2)
    ]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(
        st.lists(st.integers(1, 7), min_size=1, max_size=4), min_size=ENVS, max_size=ENVS
    ),
    count=st.integers(1, 9),  # up to three times around the ring
    seed=st.integers(0, 2**31),
)
def test_sample_pairs_draws_goals_from_later_steps_of_the_same_episode(
    lengths, count, seed
) -> None:
    replay = empty_replay(SLOTS, ENVS, 3, 1)
    for part in make_rollouts(lengths, count):
        replay = insert(replay, part)
    batch = sample(replay, index(replay), jax.random.key(seed), batch=BATCH, discount=0.8)
    now, later = np.asarray(batch.observation), np.asarray(batch.future)
    np.testing.assert_array_equal(now[:, :2], later[:, :2])  # same environment and episode
    assert (later[:, 2] >= now[:, 2]).all()
    newest = count * LENGTH - 1
    oldest = max(0, newest - SLOTS + 1)
    starts = [np.cumsum([0, *(own * 40)]) for own in lengths]
    for (env, episode, step), own in zip(later.astype(int), now[:, 2], strict=True):
        assert oldest <= starts[env][episode] + step <= newest  # stored at the moment
        last = min(starts[env][episode + 1] - 1, newest) - starts[env][episode]
        assert step > own or own == last  # later, unless nothing is
    np.testing.assert_array_equal(batch.action[:, 0], now[:, 0])


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(
        st.lists(st.integers(1, 7), min_size=1, max_size=4), min_size=ENVS, max_size=ENVS
    ),
    count=st.integers(1, 9),
)
def test_index_episodes_finds_the_ends_of_episodes(lengths, count) -> None:
    replay = empty_replay(SLOTS, ENVS, 3, 1)
    parts = make_rollouts(lengths, count)
    for part in parts:
        replay = insert(replay, part)
    episode = np.concatenate([part.observation[..., 1] for part in parts])[-SLOTS:]
    ends = np.asarray(index(replay).ends)
    for env in range(ENVS):
        for age in range(len(episode)):
            same = np.flatnonzero(episode[:, env] == episode[age, env])
            assert ends[age, env] == same[-1]


def test_sample_pairs_draws_every_stored_step() -> None:
    replay = empty_replay(SLOTS, ENVS, 3, 1)
    for part in make_rollouts([[5], [3], [7]], 5):
        replay = insert(replay, part)
    batch = sample(replay, index(replay), jax.random.key(0), batch=4096, discount=0.8)
    drawn = {tuple(row) for row in np.asarray(batch.observation).astype(int)}
    assert len(drawn) == SLOTS * ENVS


def probabilities(remaining: int, discount: float) -> np.ndarray:
    """Returns the probability of each offset from 1 to `remaining`, in double precision."""
    log_weights = np.arange(remaining) * np.log(discount)
    return np.exp(log_weights) / np.exp(log_weights).sum()


@pytest.mark.parametrize("remaining", [1, 2, 7, 40, 1000])
@pytest.mark.parametrize("discount", [0.01, 0.9, 0.99, 0.999999])
def test_geometric_offsets_follow_the_renormalised_distribution(remaining, discount) -> None:
    count = 200_000
    offsets = np.asarray(offsets_of(jax.random.key(0), jnp.full(count, remaining), discount))
    assert 1 <= offsets.min() <= offsets.max() <= remaining
    expected = count * probabilities(remaining, discount)
    # Offsets that are expected less than ten times count as one.
    classes = max(int((expected >= 10).sum()), 1)
    found = np.bincount(np.minimum(offsets, classes), minlength=classes + 1)[1:]
    expected[classes - 1] = expected[classes - 1 :].sum()
    chi_square = np.sum((found - expected[:classes]) ** 2 / expected[:classes])
    assert chi_square < stats.chi2.ppf(0.999, max(classes - 1, 1))


@pytest.mark.parametrize("discount", [0.99, 0.99999, 0.99999999, 1 - 1e-15])
def test_geometric_offsets_of_a_million_steps_follow_the_cumulative_distribution(discount) -> None:
    remaining, count = 1_000_000, 200_000
    offsets = np.asarray(offsets_of(jax.random.key(0), jnp.full(count, remaining), discount))
    assert 1 <= offsets.min() <= offsets.max() <= remaining
    cumulative = np.append(0.0, np.cumsum(probabilities(remaining, discount)))
    # The largest deviation of the two cumulative distributions; 1.95 / sqrt(count) is exceeded once in a thousand times.
    order = np.sort(offsets)
    deviation = np.abs(
        np.searchsorted(order, np.arange(remaining + 1), "right") / count - cumulative
    )
    assert deviation.max() < 1.95 / np.sqrt(count)


@pytest.mark.parametrize("discount", [1e-30, 0.5, 0.99999999, 1 - 1e-15])
def test_geometric_offsets_keep_to_the_steps_that_are_left(discount) -> None:
    remaining = jnp.array([0, 1, 2, 3, 1_000_000] * 2000)
    offsets = np.asarray(offsets_of(jax.random.key(1), remaining, discount))
    assert (offsets[remaining == 0] == 0).all()
    assert (offsets[remaining == 1] == 1).all()
    assert (offsets[remaining > 0] >= 1).all()
    assert (offsets <= remaining).all()


def test_geometric_offsets_do_not_pass_the_end_where_the_random_number_is_largest(
    monkeypatch,
) -> None:
    largest = np.float32(1 - 2.0**-23)
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.full(shape, largest))
    remaining = jnp.array([0, 1, 2, 3, 10, 100, 1000, 10_000, 100_000, 1_000_000])
    for discount in (0.9999, 0.999999, 0.99999999, 1 - 1e-15):
        offsets = np.asarray(geometric_offsets(jax.random.key(0), remaining, discount))
        assert (offsets <= remaining).all()
        assert (offsets >= 0.99 * remaining)[:-2].all()


@pytest.mark.parametrize("discount", [0.5, 0.9, 0.999])
def test_sample_pairs_draws_the_last_step_as_often_as_the_formula_says(discount) -> None:
    replay, count = empty_replay(SLOTS, 1, 3, 1), 50_000
    for part in make_rollouts([[40]], 3):
        replay = insert(replay, part)
    batch = sample(replay, index(replay), jax.random.key(0), batch=count, discount=discount)
    share = np.mean(np.asarray(batch.future)[:, 2] == SLOTS - 1)
    # The last step is its own goal; it is that of the step n before it with the probability of the offset n.
    last = [1.0, *(probabilities(n, discount)[-1] for n in range(1, SLOTS))]
    assert share == pytest.approx(np.mean(last), abs=4 * np.sqrt(0.25 / count))


def test_insert_rollout_bounds_its_counter_and_keeps_the_position() -> None:
    replay = empty_replay(SLOTS, ENVS, 3, 1)
    for i, part in enumerate(make_rollouts([[5], [3], [7]], 30), start=1):
        replay = insert(replay, part)
        assert replay.inserted % SLOTS == (i * LENGTH) % SLOTS
        assert replay.inserted <= 3 * SLOTS


def test_insert_rollout_refuses_slots_that_are_no_multiple_of_the_length() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        insert_rollout(empty_replay(10, ENVS, 3, 1), make_rollouts([[5], [3], [7]], 1)[0])


def test_sample_pairs_never_draws_or_crosses_broken_steps() -> None:
    part = make_rollout(
        np.zeros((LENGTH, ENVS), int), np.arange(LENGTH)[:, None].repeat(ENVS, axis=1)
    )
    broken = np.zeros((LENGTH, ENVS), bool)
    broken[2, 0] = broken[0, 1] = True
    broken[:, 2] = [False, True, True, False]
    replay = insert(empty_replay(SLOTS, ENVS, 3, 1), part._replace(broken=jnp.asarray(broken)))
    batch = sample(replay, index(replay), jax.random.key(0), batch=2048, discount=0.5)
    pairs = {
        (int(now[0]), int(now[2]), int(later[2]))
        for now, later in zip(batch.observation, batch.future, strict=True)
    }
    # Environment 0 keeps steps 0, 1 and 3; 1 keeps 1 to 3; 2 keeps 0 and 3.
    assert pairs == {(0, 0, 1), (0, 1, 1), (0, 3, 3)} | {
        (1, 1, 2), (1, 1, 3), (1, 2, 3), (1, 3, 3)
    } | {(2, 0, 0), (2, 3, 3)}  # fmt: skip


def test_sample_pairs_never_draws_from_a_broken_environment() -> None:
    part = make_rollout(
        np.zeros((LENGTH, ENVS), int), np.arange(LENGTH)[:, None].repeat(ENVS, axis=1)
    )
    broken = jnp.zeros((LENGTH, ENVS), bool).at[:, 1].set(True)
    replay = insert(empty_replay(SLOTS, ENVS, 3, 1), part._replace(broken=broken))
    batch = sample(replay, index(replay), jax.random.key(0), batch=2048, discount=0.5)
    drawn, times = np.unique(np.asarray(batch.observation)[:, [0, 2]], axis=0, return_counts=True)
    assert {env for env, _ in drawn} == {0, 2}
    assert len(drawn) == 2 * LENGTH
    assert stats.chisquare(times).pvalue > 1e-3  # all others are drawn as often


def test_sample_pairs_draws_the_goal_that_the_policy_was_given_at_the_same_step() -> None:
    replay = empty_replay(SLOTS, ENVS, 3, 1, goal_size=2)
    for part in make_rollouts([[5], [3], [7]], 5):
        goal = part.observation[..., :2] + part.observation[..., 2:] / 100
        replay = insert(replay, part._replace(goal=goal))
    batch = sample(replay, index(replay), jax.random.key(0), batch=BATCH, discount=0.8)
    now = np.asarray(batch.observation)
    np.testing.assert_allclose(batch.goal, now[:, :2] + now[:, 2:] / 100, rtol=1e-6)
    assert (
        sample(
            insert(empty_replay(SLOTS, ENVS, 3, 1), part),
            index(replay),
            jax.random.key(0),
            batch=4,
            discount=0.8,
        ).goal
        is None
    )
