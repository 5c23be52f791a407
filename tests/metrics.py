"""Comparison of the metrics of two runs."""

import pytest

from teachers.runs.run_log import read_metrics


def drop_timings(rows):
    """Returns rows of metrics without the figures that are measured with a clock."""
    timings = ("seconds", "label_share")
    return [{k: v for k, v in row.items() if not k.startswith(timings)} for row in rows]


def assert_same_training(run, other) -> None:
    """Asserts that two runs have the same steps, with the same losses but for rounding."""
    rows, references = read_metrics(run), read_metrics(other)
    assert [row["step"] for row in rows] == [row["step"] for row in references]
    for row, reference in zip(rows, references, strict=True):
        for name in ("critic_loss", "actor_loss", "temperature", "entropy"):
            assert row[name] == pytest.approx(reference[name], rel=1e-3, abs=1e-4), name
