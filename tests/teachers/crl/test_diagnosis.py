import jax
import jax.numpy as jnp
import pytest
from tiny import TEACHER

from teachers import teacher_config, train_teacher
from teachers.crl.diagnosis import effective_rank
from teachers.runs.run_log import read_metrics


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_effective_rank_counts_equally_used_directions(rank) -> None:
    rows = jax.random.normal(jax.random.key(0), (4000, rank))
    directions = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (8, rank)))[0]
    features = rows @ directions.T + 5.0  # a constant is no direction
    assert effective_rank(features) == pytest.approx(rank, rel=0.02)


def test_effective_rank_of_equal_rows_is_one() -> None:
    assert effective_rank(jnp.ones((4, 3))) == pytest.approx(1)


def test_make_diagnosis_measures_every_network(teacher_run) -> None:
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


def test_make_diagnosis_does_not_change_training(teacher_run, tmp_path) -> None:
    often = teacher_config("reacher", overrides={**TEACHER, "logging.evaluate_every": 1})
    train_teacher(often, tmp_path / "run")
    assert all("phi_rank" in row for row in read_metrics(tmp_path / "run"))
    for name in ("critic_loss", "actor_gradient_norm", "entropy", "saturated_actions"):
        ours, usual = (
            [row[name] for row in read_metrics(run)] for run in (tmp_path / "run", teacher_run)
        )
        assert ours == usual
