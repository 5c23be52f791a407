import json

import pytest

from teachers import teacher_config
from teachers.runs.run_log import RunLog, read_metrics


def test_run_log_writes_one_json_object_a_line(tmp_path) -> None:
    with RunLog(tmp_path, teacher_config("reacher")) as log:
        log.write(10, {"loss": 0.5})
        log.write(20, {"loss": 0.25, "interval": (0.1, 0.4)})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20]
    assert read_metrics(tmp_path)[1] == {"step": 20, "loss": 0.25, "interval": [0.1, 0.4]}


def test_run_log_writes_null_for_non_finite_numbers(tmp_path) -> None:
    with RunLog(tmp_path, teacher_config("reacher")) as log:
        log.write(10, {"loss": float("nan"), "interval": (0.1, float("inf"))})
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert read_metrics(tmp_path) == [{"step": 10, "loss": None, "interval": [0.1, None]}]


def test_run_log_drops_later_lines_on_resume(tmp_path) -> None:
    with RunLog(tmp_path, teacher_config("reacher")) as log:
        for step in (10, 20, 30):
            log.write(step, {"loss": 1.0})
    with RunLog(tmp_path, teacher_config("reacher"), resume_at=20) as log:
        log.write(30, {"loss": 2.0})
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [
        (10, 1.0),
        (20, 1.0),
        (30, 2.0),
    ]


def test_read_metrics_leaves_out_damaged_and_incomplete_lines(tmp_path) -> None:
    lines = ['{"step": 1}', '{"step": 2', "5", '{"step": 4}', '{"st']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.warns(UserWarning, match=r"metrics\.jsonl: line 2 is damaged and left out"):
        assert [row["step"] for row in read_metrics(tmp_path)] == [1, 4]
