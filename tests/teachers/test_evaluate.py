import numpy as np

from teachers import evaluate_agent
from teachers.measures import summary
from teachers.tasks import CONDITIONS


def test_evaluate_agent_repeats_with_the_seed(teacher) -> None:
    first, again = evaluate_agent(teacher, 8, seed=3), evaluate_agent(teacher, 8, seed=3)
    assert summary(first) == summary(again)
    np.testing.assert_array_equal(first.time_at_goal, again.time_at_goal)


def test_evaluate_agent_under_disturbances_repeats_with_the_seed(teacher) -> None:
    first, again = (evaluate_agent(teacher, 8, 3, disturbances=CONDITIONS["all"]) for _ in range(2))
    assert summary(first) == summary(again)


def test_evaluate_agent_reports_progress_in_steps_of_all_episodes(teacher) -> None:
    reports = []
    evaluate_agent(teacher, 8, 0, lambda done, total, _: reports.append((done, total)))
    assert reports == [(400, 800), (800, 800)]
