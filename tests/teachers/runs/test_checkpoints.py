import random
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from edited import edited

from teachers import InputError, load_teacher
from teachers.runs.checkpoint_choice import best_step
from teachers.runs.checkpoint_writer import CheckpointWriter
from teachers.runs.checkpoints import (
    CheckpointWarning,
    DamagedError,
    read_items,
    read_metadata,
    require_kind,
)
from teachers.runs.metadata import parameter_digest


def test_parameters_and_metadata_survive_the_round_trip(teacher_run, tmp_path) -> None:
    teacher = load_teacher(teacher_run)
    with CheckpointWriter(tmp_path / "copy") as checkpoints:
        checkpoints.save(7, teacher.metadata, {"params": teacher.params})
    again = load_teacher(tmp_path / "copy")
    assert again.metadata == teacher.metadata
    assert parameter_digest(again.params) == parameter_digest(teacher.params)


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


def test_a_folder_without_checkpoint_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_teacher(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load_teacher(tmp_path / "nowhere")


def test_another_kind_is_refused(teacher_run) -> None:
    with pytest.raises(InputError, match="holds a teacher, not a student"):
        require_kind(teacher_run, "student")


def truncated(file, draw) -> None:
    file.write_bytes(file.read_bytes()[: draw.randrange(max(1, file.stat().st_size))])


def flipped(file, draw) -> None:
    data = bytearray(file.read_bytes())
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file.write_bytes(data)


def deleted(file, draw) -> None:
    file.unlink()


@pytest.mark.parametrize("damage", [truncated, flipped, deleted])
def test_a_damaged_newest_checkpoint_is_passed_over(teacher_run, tmp_path, damage, caplog) -> None:
    """Whatever file of it is damaged: what opens is what was saved, then or one checkpoint before."""
    newest, before = (load_teacher(teacher_run, checkpoint=step) for step in (160, 80))
    draw, run, passed_over = random.Random(0), tmp_path / "run", 0
    saved = teacher_run / "checkpoints" / "160"
    agent = [file for file in sorted(saved.rglob("*")) if file.is_file()]
    agent = [file for file in agent if not {"training", "replay"} & set(file.parts)]
    shutil.copytree(teacher_run, run)
    for file in agent:
        place = run / "checkpoints" / "160" / file.relative_to(saved)
        damage(place, draw)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CheckpointWarning)
            opened = load_teacher(run)
        said = [str(each.message) for each in caught if each.category is CheckpointWarning]
        expected = before if said else newest
        assert opened.metadata == expected.metadata
        assert parameter_digest(opened.params) == parameter_digest(expected.params)
        if said:
            passed_over += 1
            assert "checkpoint 160" in said[0]
            assert said[0].endswith("; using 80")
        shutil.copy(file, place)
    assert not [record for record in caplog.records if record.name == "asyncio"]
    assert passed_over >= 4  # metadata, checksums, and the arrays with their index


@pytest.mark.parametrize("item", ["metadata", "checksums", "params"])
def test_a_checkpoint_that_lacks_a_part_is_damaged(teacher_run, tmp_path, item) -> None:
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


def test_a_checkpoint_is_chosen_by_its_step_or_as_the_best(teacher_run, tmp_path) -> None:
    metadata = read_metadata(teacher_run)
    params = load_teacher(teacher_run).params
    run = tmp_path / "run"
    with CheckpointWriter(run, keep=3) as checkpoints:
        for step, reached, evaluated in ((1, 0.3, 1), (2, 0.2, 2), (3, 0.9, 2)):
            figures = {"steps": step, "time_at_goal": reached, "evaluated_at": evaluated}
            described = metadata.model_copy(update={"metrics": figures})
            checkpoints.save(step, described, {"params": params})
    assert best_step(run) == 1  # that of step 3 was not measured there
    chosen = {which: load_teacher(run, None, which) for which in ("newest", "best", 2)}
    assert {key: agent.metadata.metrics["steps"] for key, agent in chosen.items()} == {
        "newest": 3,
        "best": 1,
        2: 2,
    }
    with pytest.raises(InputError, match="has no checkpoint 4; it has 1, 2, 3"):
        load_teacher(run, checkpoint=4)


def test_arrays_that_are_not_those_saved_are_noticed(teacher_run, tmp_path) -> None:
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


def test_an_earlier_format_opens(teacher_run, tmp_path) -> None:
    run = edited(teacher_run, tmp_path / "run", remove=("task_source", "sizes"), format_version=1)
    shutil.rmtree(run / "checkpoints" / "160" / "checksums")
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
    versions = {"crl-distill": "7.2.0"}
    newer = edited(teacher_run, tmp_path / "run", format_version=99, versions=versions)
    with pytest.raises(
        InputError, match=r"newer than .* \(4\); install crl-distill 7\.2\.0 or later"
    ):
        load_teacher(newer)
