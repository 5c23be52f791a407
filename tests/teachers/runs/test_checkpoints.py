import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from edited import copy_with_metadata

from teachers import InputError, load_teacher
from teachers.runs.checkpoint_readable import UnreadableError
from teachers.runs.checkpoint_writer import CheckpointWriter
from teachers.runs.checkpoints import (
    CheckpointWarning,
    DamagedError,
    read_items,
    read_metadata,
    require_kind,
    was_saved_with,
)
from teachers.runs.metadata import parameter_digest


def test_read_params_returns_what_was_saved(teacher_run, tmp_path) -> None:
    teacher = load_teacher(teacher_run)
    with CheckpointWriter(tmp_path / "copy") as checkpoints:
        checkpoints.save(7, teacher.metadata, {"params": teacher.params})
    loaded = load_teacher(tmp_path / "copy")
    assert loaded.metadata == teacher.metadata
    assert parameter_digest(loaded.params) == parameter_digest(teacher.params)


def test_read_params_needs_checkpoints_folder_alone(teacher_run, tmp_path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(teacher_run / "checkpoints", moved / "checkpoints")
    teacher = load_teacher(moved)
    original = load_teacher(teacher_run)
    observation, goal = jnp.ones((3, 8)), jnp.ones((3, 2))
    np.testing.assert_array_equal(
        teacher.networks.policy(teacher.params, observation, goal),
        original.networks.policy(original.params, observation, goal),
    )


def test_read_metadata_describes_run(teacher_run) -> None:
    metadata = read_metadata(teacher_run)
    assert metadata.kind == "teacher"
    assert metadata.task == "reacher"
    shape = {"depth": 8, "width": 8, "residual": "published"}
    assert metadata.networks["actor"] == {**shape, "parameters": 844}
    assert metadata.config["rollout"]["environments"] == 4
    assert metadata.metrics["steps"] == 160
    assert 0 <= metadata.metrics["success_at_end"] <= 1
    assert metadata.versions["jax"] == jax.__version__


def test_read_metadata_reads_format_1(teacher_run, tmp_path) -> None:
    run = copy_with_metadata(
        teacher_run, tmp_path / "run", remove=("task_source", "sizes"), format_version=1
    )
    shutil.rmtree(run / "checkpoints" / "160" / "checksums")
    assert load_teacher(run).task.name == "reacher"


def test_read_metadata_refuses_newer_format(teacher_run, tmp_path) -> None:
    versions = {"crl-distill": "7.2.0"}
    newer = copy_with_metadata(teacher_run, tmp_path / "run", format_version=99, versions=versions)
    with pytest.raises(
        InputError, match=r"newer than .* \(4\); install crl-distill 7\.2\.0 or later"
    ):
        load_teacher(newer)


def test_require_kind_refuses_other_kind(teacher_run) -> None:
    with pytest.raises(InputError, match="holds a teacher, not a student"):
        require_kind(teacher_run, "student")


@pytest.mark.parametrize("item", ["metadata", "checksums", "params"])
def test_read_items_reports_missing_item(teacher_run, tmp_path, item, frozen_heap) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    for step in ("80", "160"):
        shutil.rmtree(run / "checkpoints" / step / item)
    with (
        pytest.warns(CheckpointWarning, match="checkpoint 160 .* using 80"),
        pytest.raises(DamagedError, match=f"checkpoint 80 .* is damaged: .*{item}") as caught,
    ):
        load_teacher(run)
    assert "\n" not in str(caught.value)


def test_read_items_refuses_other_arrays(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    teacher = load_teacher(teacher_run)
    with CheckpointWriter(run) as checkpoints:
        checkpoints.save(1, teacher.metadata, {"params": {"x": jnp.arange(3.0)}})
    swapped = tmp_path / "swapped"
    with CheckpointWriter(swapped) as checkpoints:
        checkpoints.save(1, teacher.metadata, {"params": {"x": jnp.arange(3.0) + 1e-6}})
    like = {"params": {"x": jax.ShapeDtypeStruct((3,), jnp.float32)}}
    np.testing.assert_array_equal(
        read_items(run, 1, like, teacher.metadata)["params"]["x"], np.arange(3.0)
    )
    shutil.rmtree(run / "checkpoints" / "1" / "params")
    shutil.copytree(swapped / "checkpoints" / "1" / "params", run / "checkpoints" / "1" / "params")
    with pytest.raises(DamagedError, match="params are not those saved"):
        read_items(run, 1, like, teacher.metadata)


def test_was_saved_with_looks_into_an_item(teacher_run, tmp_path) -> None:
    assert was_saved_with(teacher_run, 160, "training", ("learner", "skipped"))
    assert not was_saved_with(teacher_run, 160, "training", ("learner", "swapped"))
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    (run / "checkpoints" / "160" / "training" / "_METADATA").write_text("{")
    # Reading the item tells that it is damaged.
    assert was_saved_with(run, 160, "training", ("learner", "swapped"))
    shutil.rmtree(run / "checkpoints" / "160")
    with pytest.raises(UnreadableError, match="removed while it was read"):
        was_saved_with(run, 160, "training", ("learner", "skipped"))
