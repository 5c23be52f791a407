import jax
import jax.numpy as jnp
import numpy as np
import pytest

from teachers.diagnose import effective_rank
from teachers.runlog import read_metrics


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_effective_rank_counts_equally_used_directions(rank) -> None:
    rows = jax.random.normal(jax.random.key(0), (4000, rank))
    directions = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (8, rank)))[0]
    features = rows @ directions.T + 5.0  # a constant is no direction
    assert effective_rank(features) == pytest.approx(rank, rel=0.02)


def test_effective_rank_of_nothing_is_one() -> None:
    assert np.isfinite(effective_rank(jnp.ones((4, 3))))


def test_evaluations_say_what_each_network_does_over_its_depth(teacher_run) -> None:
    rows = [row for row in read_metrics(teacher_run) if "success_at_end" in row]
    for row in rows:
        for network in ("actor", "phi", "psi"):
            for what in ("gradient", "update", "share"):
                low, median, high = (
                    row[f"{network}_block_{what}_{quantile}"]
                    for quantile in ("low", "median", "high")
                )
                assert 0 < low <= median <= high
            assert row[f"{network}_block_share_high"] < 1.5
        assert 1 <= row["phi_rank"] <= 4
        assert 1 <= row["psi_rank"] <= 4


def test_diagnosing_does_not_change_training(teacher_run) -> None:
    with_diagnosis = [row for row in read_metrics(teacher_run) if "phi_rank" in row]
    without = [row for row in read_metrics(teacher_run) if "phi_rank" not in row]
    assert len(with_diagnosis) == len(without) == 2
    for row in read_metrics(teacher_run):
        for name in ("actor_gradient_norm", "critic_gradient_norm", "entropy", "saturated_actions"):
            assert np.isfinite(row[name])
        assert row["skipped_updates"] == row["broken_environments"] == 0
