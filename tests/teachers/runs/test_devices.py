"""Training on four devices, which a process of its own simulates on the CPU, compared with one device."""

import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from metrics import assert_same_training
from tiny import DISTILL, TEACHER

from teachers import InputError, evaluate_agent, load_teacher, teacher_config, train_teacher
from teachers.runs import devices
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.devices import (
    all_processes_agree,
    mesh,
    on_main_process,
    replicated,
    require_backend,
    require_divisible,
    sharded,
    sharded_if_divisible,
)
from teachers.runs.fingerprint import fingerprint

FOUR_DEVICES = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from teachers.process import use_compilation_cache
use_compilation_cache()
from distill import distill_config, distill_teacher
from teachers import InputError, evaluate_agent, load_teacher, teacher_config, train_teacher
from teachers.runs import devices
from teachers.runs.checkpoint_writer import CheckpointWriter
from teachers.runs.fingerprint import fingerprint

out, resumed, student, settings, student_settings = sys.argv[1:]
config = teacher_config("reacher", overrides=json.loads(settings))
six_environments = config.rollout.model_copy(update={"environments": 6})
shards = {}
save = CheckpointWriter.save

def record_shards(self, step, metadata, items):
    if "training" in items:
        arrays = {
            "environments": items["training"].environments.observation,
            "replay": items["replay"].observation,
            "params": jax.tree.leaves(items["params"])[0],
        }
        for name, array in arrays.items():
            shards[name] = [list(shard.data.shape) for shard in array.addressable_shards], list(array.shape)
    save(self, step, metadata, items)

CheckpointWriter.save = record_shards
teacher = train_teacher(config, out)
train_teacher(config, resumed, resume=True)
try:
    train_teacher(config.model_copy(update={"rollout": six_environments}), out + "x")
except InputError as error:
    refused = str(error)
student_config = distill_config(overrides=json.loads(student_settings))
distilled = distill_teacher(teacher, student_config, student, force=True)
print(json.dumps({
    "devices": jax.device_count(),
    "shards": shards,
    "refused": refused,
    "evaluated": [evaluate_agent(load_teacher(resumed), n).time_at_goal.tolist() for n in (8, 6)],
    "fingerprint": fingerprint(jax.device_put({"x": jnp.arange(64.0)}, devices.sharded())),
    "student": distilled.metadata.metrics,
}))
"""


@pytest.fixture(scope="module")
def four_devices(teacher_run, tmp_path_factory):
    """Returns the JSON that a process with four devices prints, and the folder of its runs."""
    folder = tmp_path_factory.mktemp("four")
    shutil.copytree(teacher_run, folder / "resumed")
    shutil.rmtree(folder / "resumed" / "checkpoints" / "160")
    flags = "--xla_force_host_platform_device_count=4"
    runs = [folder / "fresh", folder / "resumed", folder / "student"]
    ended = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES, *runs, json.dumps(TEACHER), json.dumps(DISTILL)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "XLA_FLAGS": flags},
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1]), folder


@pytest.mark.slow
@pytest.mark.end_to_end
def test_train_teacher_is_the_same_on_four_devices(teacher_run, four_devices) -> None:
    printed, folder = four_devices
    assert printed["devices"] == 4
    assert_same_training(folder / "fresh", teacher_run)


@pytest.mark.slow
def test_train_teacher_shards_environments_and_replay_and_replicates_parameters(
    four_devices,
) -> None:
    recorded = four_devices[0]["shards"]
    shards, shape = recorded["environments"]
    assert shards == [[shape[0] // 4, *shape[1:]]] * 4
    shards, shape = recorded["replay"]
    assert shards == [[shape[0], shape[1] // 4, *shape[2:]]] * 4
    shards, shape = recorded["params"]
    assert shards == [shape] * 4


@pytest.mark.slow
def test_train_teacher_resumes_run_of_one_device_on_four(teacher_run, four_devices) -> None:
    _, folder = four_devices
    assert checkpoint_steps(folder / "resumed") == [80, 160]
    assert_same_training(folder / "resumed", teacher_run)


@pytest.mark.slow
def test_train_teacher_resumes_run_of_four_devices_on_one(
    teacher_run, four_devices, tmp_path
) -> None:
    shutil.copytree(four_devices[1] / "fresh", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "160")
    train_teacher(teacher_config("reacher", overrides=TEACHER), tmp_path / "run", resume=True)
    assert_same_training(tmp_path / "run", teacher_run)


@pytest.mark.slow
def test_evaluate_agent_does_not_depend_on_devices(four_devices) -> None:
    printed, folder = four_devices
    teacher = load_teacher(folder / "resumed")
    for episodes, found in zip(
        (8, 6), printed["evaluated"], strict=True
    ):  # six are no multiple of four
        np.testing.assert_allclose(evaluate_agent(teacher, episodes).time_at_goal, found, atol=0.02)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_distill_teacher_runs_on_four_devices(four_devices) -> None:
    figures = four_devices[0]["student"]
    assert figures["steps"] == 160
    assert np.isfinite(figures["policy_loss"])


@pytest.mark.slow
def test_fingerprint_does_not_depend_on_devices(four_devices) -> None:
    assert four_devices[0]["fingerprint"] == fingerprint({"x": jnp.arange(64.0)})


@pytest.mark.slow
def test_train_teacher_refuses_environments_that_four_devices_do_not_divide(four_devices) -> None:
    assert four_devices[0]["refused"].startswith(
        "rollout.environments = 6: it must be a multiple of the 4 devices, such as 8"
    )


def test_mesh_has_one_device_by_default() -> None:
    assert mesh().size == jax.device_count() == 1
    require_divisible(rollout__environments=7)
    assert sharded_if_divisible(7) == sharded() != replicated()


def test_on_main_process_calls_work_once_in_only_process() -> None:
    calls = []
    on_main_process(lambda: calls.append(1))
    assert calls == [1]


def test_all_processes_agree_returns_choice_of_only_process() -> None:
    assert all_processes_agree(True)
    assert not all_processes_agree(False)


@pytest.mark.parametrize(
    ("platforms", "error", "words"),
    [
        ("cuda", AssertionError(), ["JAX_PLATFORMS=cuda: ", "there is no such device"]),
        ("cdua", RuntimeError("'cdua' is not known. (set JAX_PLATFORMS='')"), ["JAX_PLATFORMS=cdua: ", "('cdua' is not known);"]),
        (None, RuntimeError("no devices"), ["JAX: ", "(no devices)"]),
    ],
)  # fmt: skip
def test_require_backend_says_what_to_set(monkeypatch, platforms, error, words) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(devices.jax, "devices", fail)
    monkeypatch.setattr(type(jax.config), "jax_platforms", platforms)
    with pytest.raises(InputError) as refused:
        require_backend()
    for word in [*words, "set JAX_PLATFORMS=cpu, or unset it"]:
        assert word in str(refused.value)
