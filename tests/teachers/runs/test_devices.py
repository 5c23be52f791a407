"""Four devices, forced upon a CPU in a process of their own, against one."""

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

from teachers import evaluate_agent, load_teacher, teacher_config, train_teacher
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.devices import (
    all_processes_agree,
    mesh,
    on_main_process,
    replicated,
    require_divisible,
    sharded,
    sharded_if_divisible,
)
from teachers.runs.fingerprint import fingerprint

FOUR = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from teachers.process import use_compilation_cache
use_compilation_cache()
from distill import distill_config, distill_teacher
from teachers import InputError, evaluate_agent, load_teacher, teacher_config, train_teacher
from teachers import train
from teachers.runs import devices
from teachers.runs.fingerprint import fingerprint

out, resumed, student, settings, small = sys.argv[1:]
config = teacher_config("reacher", overrides=json.loads(settings))
places = {}
saves = train.CheckpointWriter.save

def watched(self, step, metadata, items):
    if "training" in items:
        arrays = items["training"].environments.observation, items["replay"].observation, jax.tree.leaves(items["params"])[0]
        for name, array in zip(("environments", "replay", "params"), arrays):
            places[name] = [list(shard.data.shape) for shard in array.addressable_shards], list(array.shape)
    saves(self, step, metadata, items)

train.CheckpointWriter.save = watched
teacher = train_teacher(config, out)
train_teacher(config, resumed, resume=True)
try:
    train_teacher(config.model_copy(update={"rollout": config.rollout.model_copy(update={"environments": 6})}), out + "x")
except InputError as error:
    refused = str(error)
distilled = distill_teacher(teacher, distill_config(overrides=json.loads(small)), student, force=True)
print(json.dumps({
    "devices": jax.device_count(),
    "places": places,
    "refused": refused,
    "evaluated": [evaluate_agent(load_teacher(resumed), n).time_at_goal.tolist() for n in (8, 6)],
    "fingerprint": fingerprint(jax.device_put({"x": jnp.arange(64.0)}, devices.sharded())),
    "student": distilled.metadata.metrics,
}))
"""


@pytest.fixture(scope="module")
def on_four(teacher_run, tmp_path_factory):
    """What a process with four devices says, and the folders of its runs."""
    folder = tmp_path_factory.mktemp("four")
    shutil.copytree(teacher_run, folder / "resumed")
    shutil.rmtree(folder / "resumed" / "checkpoints" / "160")
    flags = "--xla_force_host_platform_device_count=4"
    runs = [folder / "fresh", folder / "resumed", folder / "student"]
    ended = subprocess.run(
        [sys.executable, "-c", FOUR, *runs, json.dumps(TEACHER), json.dumps(DISTILL)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "XLA_FLAGS": flags},
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1]), folder


@pytest.mark.slow
def test_four_devices_learn_what_one_does(teacher_run, on_four) -> None:
    said, folder = on_four
    assert said["devices"] == 4
    assert_same_training(folder / "fresh", teacher_run)


@pytest.mark.slow
def test_environments_and_replay_are_cut_and_parameters_are_on_each(on_four) -> None:
    places = on_four[0]["places"]
    shards, shape = places["environments"]
    assert shards == [[shape[0] // 4, *shape[1:]]] * 4
    shards, shape = places["replay"]
    assert shards == [[shape[0], shape[1] // 4, *shape[2:]]] * 4
    shards, shape = places["params"]
    assert shards == [shape] * 4


@pytest.mark.slow
def test_a_run_of_one_device_goes_on_with_four(teacher_run, on_four) -> None:
    _, folder = on_four
    assert checkpoint_steps(folder / "resumed") == [80, 160]
    assert_same_training(folder / "resumed", teacher_run)


@pytest.mark.slow
def test_a_run_of_four_devices_goes_on_with_one(teacher_run, on_four, tmp_path) -> None:
    shutil.copytree(on_four[1] / "fresh", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "160")
    train_teacher(teacher_config("reacher", overrides=TEACHER), tmp_path / "run", resume=True)
    assert_same_training(tmp_path / "run", teacher_run)


@pytest.mark.slow
def test_evaluations_do_not_depend_on_the_devices(on_four) -> None:
    said, folder = on_four
    teacher = load_teacher(folder / "resumed")
    for episodes, found in zip((8, 6), said["evaluated"], strict=True):  # six: no share for four
        np.testing.assert_allclose(evaluate_agent(teacher, episodes).time_at_goal, found, atol=0.02)


@pytest.mark.slow
def test_a_student_is_distilled_on_four_devices(on_four) -> None:
    figures = on_four[0]["student"]
    assert figures["steps"] == 160
    assert np.isfinite(figures["policy_loss"])


@pytest.mark.slow
def test_a_fingerprint_does_not_depend_on_the_devices(on_four) -> None:
    assert on_four[0]["fingerprint"] == fingerprint({"x": jnp.arange(64.0)})


@pytest.mark.slow
def test_numbers_that_four_devices_cannot_share_are_refused(on_four) -> None:
    assert on_four[0]["refused"].startswith(
        "rollout.environments = 6: it must be a multiple of the 4 devices, such as 8"
    )


def test_one_device_is_a_mesh_of_one() -> None:
    assert mesh().size == jax.device_count() == 1
    require_divisible(rollout__environments=7)
    assert sharded_if_divisible(7) == sharded() != replicated()
    done = []
    on_main_process(lambda: done.append(1))
    assert done == [1]
    assert all_processes_agree(True)
    assert not all_processes_agree(False)
