import pytest
from tiny import TEACHER

from teachers import teacher_config
from teachers.crl import estimate as module
from teachers.crl import memory
from teachers.crl.estimate import estimate
from teachers.crl.memory import GIB, training_memory


@pytest.mark.slow
def test_an_estimate_adds_up() -> None:
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


def test_what_does_not_fit_is_not_timed(monkeypatch) -> None:
    config = teacher_config("reacher", overrides=TEACHER)
    for place in (module, memory):
        monkeypatch.setattr(place, "device_memory", lambda: 1000)
    needed = estimate(config)
    assert not needed["fits"]
    assert "seconds" not in needed


def test_the_published_settings_fit_in_24_gb() -> None:
    parts = training_memory(teacher_config("humanoid", preset="paper"), remat=False)
    assert sum(parts.values()) < 8 * GIB  # 5.5 of it is 5,130,000 steps of 268 + 17 numbers
    assert parts["replay"] == 4 * (268 + 17 + 1) * 512 * 10_044 + 4


def test_the_preset_names_the_published_settings() -> None:
    config = teacher_config("ant_u4_maze", preset="paper")
    assert (config.actor.depth, config.phi.width, config.embedding) == (64, 256, 64)
    assert (config.rollout.environments, config.rollout.steps) == (512, 62)
    assert (config.learning.batch, config.learning.gradient_steps) == (512, 800)
    assert (config.learning.discount, config.learning.learning_rate) == (0.99, 3e-4)
    changed = teacher_config("ant", overrides={"learning.batch": 256}, preset="paper")
    assert changed.learning.batch == 256


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(memory.InputError, match="unknown preset 'papr'; choose from paper"):
        teacher_config("ant", preset="papr")
