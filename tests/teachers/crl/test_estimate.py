import pytest
from tiny import TEACHER

from teachers import teacher_config
from teachers.crl.estimate import estimate
from teachers.crl.memory import GIB, training_memory


@pytest.mark.slow
def test_estimate_adds_up() -> None:
    config = teacher_config("reacher", overrides=TEACHER)
    needed = estimate(config)
    assert needed["fits"]
    assert needed["memory_total"] == sum(needed["memory"].values())
    assert needed["memory"]["simulation"] > 0
    seconds = needed["seconds"]
    assert all(value > 0 for value in seconds.values())
    iteration = seconds["rollout"] + 3 * seconds["update"]
    assert seconds["iteration"] == pytest.approx(iteration)
    assert seconds["run"] == pytest.approx(4 * iteration + 2 * seconds["evaluation"])


def test_estimate_counts_no_gradient_steps_while_the_replay_is_filled(monkeypatch) -> None:
    monkeypatch.setattr("teachers.crl.estimate._time_rollout", lambda *_: (2.0, 0))
    monkeypatch.setattr("teachers.crl.estimate._time_updates", lambda networks, config: 0.5)
    seconds = {
        prefill: estimate(
            teacher_config("reacher", overrides={**TEACHER, "rollout.prefill_steps": prefill})
        )["seconds"]
        for prefill in (0, 25, 1000)
    }
    assert all(each["iteration"] == 2.0 + 3 * 0.5 for each in seconds.values())
    rest = 4 * 2.0 + 2 * 20.0  # four rollouts and two evaluations of ten
    assert seconds[0]["run"] == rest + 4 * 1.5
    assert seconds[25]["run"] == rest + 1.5
    assert seconds[1000]["run"] == rest


def test_estimate_times_nothing_that_does_not_fit(monkeypatch) -> None:
    config = teacher_config("reacher", overrides=TEACHER)
    for module in ("estimate", "memory"):
        monkeypatch.setattr(f"teachers.crl.{module}.device_memory", lambda: 1000)
    needed = estimate(config)
    assert not needed["fits"]
    assert "seconds" not in needed


def test_training_memory_of_the_paper_preset_fits_in_24_gb() -> None:
    parts = training_memory(teacher_config("humanoid", preset="paper"), remat=False)
    assert sum(parts.values()) < 8 * GIB  # 5.5 of it is 5,130,000 steps of 268 + 17 numbers
    assert parts["replay"] == 4 * (268 + 17 + 1) * 512 * 10_044 + 4
