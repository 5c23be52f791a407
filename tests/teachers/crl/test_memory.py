import jax
import pytest

from teachers import InputError, teacher_config
from teachers.crl import memory
from teachers.crl.iteration import init_training
from teachers.crl.memory import (
    GIB,
    decide_remat,
    device_memory,
    require_memory,
    total_bytes,
    training_memory,
)
from teachers.crl.networks import teacher_networks


def test_require_memory_refuses_what_does_not_fit() -> None:
    require_memory(device_memory(), "the batch")
    with pytest.raises(InputError, match=r"at least .* GiB of memory .*; lower the batch"):
        require_memory(device_memory() + 1, "the batch")
    with pytest.raises(InputError, match=r"4,194,304.0 GiB"):
        require_memory(2**52, "x")


def test_device_memory_is_that_of_a_machine() -> None:
    assert 0.5 * GIB < device_memory() < 2**50


def test_training_memory_counts_parts_without_allocating() -> None:
    config = teacher_config(
        "reacher", overrides={"rollout.environments": 500_000, "rollout.replay_steps": 100_000}
    )
    parts = training_memory(config)
    numbers = 8 + 2 + 1  # observation, action and step index
    assert parts["replay"] == pytest.approx(4 * numbers * 500_000 * 100_000, rel=1e-6)
    state = jax.eval_shape(lambda: init_training(config, teacher_networks(config)))
    assert parts["environments"] == total_bytes(state.environments)
    assert parts["gradients"] == parts["parameters"]
    assert parts["optimizers"] == pytest.approx(2 * parts["parameters"], rel=1e-3)


def test_decide_remat_where_activations_do_not_fit(monkeypatch) -> None:
    deep = {f"{name}.depth": 1024 for name in ("actor", "phi", "psi")}
    config = teacher_config("reacher", overrides={**deep, "learning.batch": 4096})
    needed = sum(training_memory(config, remat=False).values())
    monkeypatch.setattr(memory, "device_memory", lambda: 2 * needed)
    assert not decide_remat(config)
    monkeypatch.setattr(memory, "device_memory", lambda: needed)
    assert decide_remat(config)
    for choice in ("on", "off"):
        chosen = teacher_config("reacher", overrides={**deep, "learning.remat": choice})
        assert decide_remat(chosen) == (choice == "on")
    saved = training_memory(config, remat=True)["activations"]
    assert saved < training_memory(config, remat=False)["activations"] / 4


@pytest.mark.parametrize(("backend", "share"), [("cpu", 1.0), ("gpu", 0.6)])
def test_training_memory_of_bfloat16_is_smaller_on_accelerators_alone(
    monkeypatch, backend, share
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    half, whole = (
        training_memory(
            teacher_config(
                "reacher", overrides={"learning.precision": precision, "learning.batch": 16}
            ),
            remat=False,
        )["activations"]
        for precision in ("bfloat16", "float32")
    )
    # Beside the products of its four layers, each block's input is kept, in float32; and the logits.
    assert half / whole == pytest.approx(share, abs=0.05)
