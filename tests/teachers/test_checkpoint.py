import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from teachers import InputError, load_teacher
from teachers.checkpoint import (
    CheckpointWriter,
    checkpoint_steps,
    newest_step,
    read_metadata,
    read_params,
    require_kind,
)
from teachers.metadata import digest


def test_parameters_and_metadata_survive_the_round_trip(teacher_run, tmp_path) -> None:
    teacher = load_teacher(teacher_run)
    with CheckpointWriter(tmp_path / "copy") as checkpoints:
        checkpoints.save(7, teacher.metadata, teacher.params)
    again = load_teacher(tmp_path / "copy")
    assert again.metadata == teacher.metadata
    assert digest(again.params) == digest(teacher.params)


def test_a_checkpoint_opens_with_its_folder_alone(teacher_run, tmp_path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(teacher_run / "checkpoints", moved / "checkpoints")
    teacher = load_teacher(moved)
    observation, goal = jnp.ones((3, 8)), jnp.ones((3, 2))
    ours = teacher.networks.policy(teacher.params, observation, goal)
    original = load_teacher(teacher_run)
    np.testing.assert_array_equal(
        ours, original.networks.policy(original.params, observation, goal)
    )


def test_metadata_says_what_it_is_and_where_it_comes_from(teacher_run) -> None:
    metadata = read_metadata(teacher_run)
    assert metadata.kind == "teacher"
    assert metadata.task == "reacher"
    shape = {"depth": 8, "width": 8, "residual": "published"}
    assert metadata.networks["actor"] == {**shape, "parameters": 844}
    assert metadata.config["rollout"]["environments"] == 4
    assert metadata.metrics["steps"] == 160
    assert 0 <= metadata.metrics["success_at_end"] <= 1
    assert metadata.versions["jax"] == jax.__version__


def test_older_checkpoints_are_removed_and_the_newest_is_read(tmp_path, teacher_run) -> None:
    metadata = read_metadata(teacher_run)
    with CheckpointWriter(tmp_path / "run", keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, metadata, {"x": jnp.full(3, float(step))})
    assert checkpoint_steps(tmp_path / "run") == [2, 3]
    assert newest_step(tmp_path / "run") == 3
    params = read_params(tmp_path / "run", {"x": jnp.zeros(3)})
    np.testing.assert_array_equal(params["x"], np.full(3, 3.0))


def test_a_folder_without_checkpoint_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_teacher(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load_teacher(tmp_path / "nowhere")


def test_another_kind_is_refused(teacher_run) -> None:
    with pytest.raises(InputError, match="holds a teacher, not a student"):
        require_kind(teacher_run, "student")


@pytest.mark.parametrize("item", ["metadata", "params"])
def test_a_damaged_checkpoint_is_refused_in_one_line(teacher_run, tmp_path, item) -> None:
    damaged = tmp_path / "run"
    shutil.copytree(teacher_run, damaged)
    shutil.rmtree(damaged / "checkpoints" / "160" / item)
    with pytest.raises(InputError, match=f"cannot read {item} of checkpoint 160") as caught:
        load_teacher(damaged)
    assert "\n" not in str(caught.value)


def edited(run, folder, **changes):
    """A copy of a run whose newest metadata are changed."""
    shutil.copytree(run, folder)
    file = folder / "checkpoints" / "160" / "metadata" / "metadata"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def test_an_earlier_format_opens(teacher_run, tmp_path) -> None:
    run = edited(teacher_run, tmp_path / "run", format_version=1)
    file = run / "checkpoints" / "160" / "metadata" / "metadata"
    raw = json.loads(file.read_text())
    del raw["task_source"], raw["sizes"]
    file.write_text(json.dumps(raw))
    assert load_teacher(run).task.name == "reacher"


def test_no_entry_of_a_checkpoint_makes_a_file_run(teacher_run, tmp_path) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    evil = f"{tmp_path / 'evil.py'}:Evil"
    config = {**load_teacher(teacher_run).metadata.config, "task": evil}
    assert load_teacher(edited(teacher_run, tmp_path / "a", config=config)).task.name == "reacher"
    for i, changes in enumerate(({"task": evil}, {"task_source": evil})):
        with pytest.raises(InputError, match=r"evil\.py"):
            load_teacher(edited(teacher_run, tmp_path / str(i), **changes))
    assert not (tmp_path / "ran").exists()


def test_an_unknown_task_is_refused(teacher_run, tmp_path) -> None:
    with pytest.raises(InputError, match="run: unknown task 'xyzzy'"):
        load_teacher(edited(teacher_run, tmp_path / "run", task="xyzzy"))


@pytest.mark.parametrize("config", [{}, {"task": "reacher", "invented": 1}])
def test_a_configuration_of_another_version_is_refused(teacher_run, tmp_path, config) -> None:
    with pytest.raises(InputError, match="does not fit this crl-distill"):
        load_teacher(edited(teacher_run, tmp_path / "run", config=config))


def test_a_newer_format_is_refused(teacher_run, tmp_path) -> None:
    with pytest.raises(InputError, match="format version 99, newer than"):
        load_teacher(edited(teacher_run, tmp_path / "run", format_version=99))
