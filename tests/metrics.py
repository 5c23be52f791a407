"""Comparison of the metrics of two runs."""

import pytest

from teachers.runs.run_log import read_metrics


def without_clock(rows):
    """Rows of metrics without what the clock says of them."""
    timed = ("seconds", "label_share")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows]


def assert_same_training(run, other) -> None:
    """The same steps, with the same losses but for rounding."""
    ours, others = read_metrics(run), read_metrics(other)
    assert [row["step"] for row in ours] == [row["step"] for row in others]
    for row, reference in zip(ours, others, strict=True):
        for name in ("critic_loss", "actor_loss", "temperature", "entropy"):
            assert row[name] == pytest.approx(reference[name], rel=1e-3, abs=1e-4), name
