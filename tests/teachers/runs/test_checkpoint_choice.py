import random
import shutil
import warnings
from functools import partial

import pytest

from teachers import InputError, load_teacher
from teachers.runs.checkpoint_choice import best_step, checkpoint_score, read_newest_sound
from teachers.runs.checkpoint_writer import CheckpointWriter
from teachers.runs.checkpoints import CheckpointWarning, read_metadata, read_params
from teachers.runs.metadata import Metadata, parameter_digest


def truncate(file, generator) -> None:
    file.write_bytes(file.read_bytes()[: generator.randrange(max(1, file.stat().st_size))])


def flip_bit(file, generator) -> None:
    data = bytearray(file.read_bytes())
    if data:
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    file.write_bytes(data)


def delete(file, generator) -> None:
    file.unlink()


@pytest.mark.parametrize("damage", [truncate, flip_bit, delete])
def test_read_newest_sound_passes_over_damaged_checkpoint(
    teacher_run, tmp_path, damage, frozen_heap, caplog
) -> None:
    """Whichever file of it is damaged, what is read was saved in that checkpoint or in the one before."""
    shapes = load_teacher(teacher_run).networks.shapes

    def read(folder, step):
        metadata = read_metadata(folder, step)
        return metadata, parameter_digest(read_params(folder, step, shapes, metadata))

    newest, before = (read(teacher_run, step) for step in (160, 80))
    generator, run, passed_over = random.Random(0), tmp_path / "run", 0
    saved = teacher_run / "checkpoints" / "160"
    files = [file for file in sorted(saved.rglob("*")) if file.is_file()]
    files = [file for file in files if not {"training", "replay"} & set(file.parts)]
    shutil.copytree(teacher_run, run)
    for file in files:
        damaged = run / "checkpoints" / "160" / file.relative_to(saved)
        damage(damaged, generator)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CheckpointWarning)
            loaded = read_newest_sound(run, partial(read, run), "newest")
        messages = [str(each.message) for each in caught if each.category is CheckpointWarning]
        assert loaded == (before if messages else newest)
        if messages:
            passed_over += 1
            assert "checkpoint 160" in messages[0]
            assert messages[0].endswith("; using 80")
        shutil.copy(file, damaged)
    assert not [record for record in caplog.records if record.name == "asyncio"]
    assert passed_over >= 4  # metadata, checksums, and the arrays with their index


def test_read_newest_sound_chooses_by_step_or_score(teacher_run, tmp_path) -> None:
    metadata = read_metadata(teacher_run)
    params = load_teacher(teacher_run).params
    run = tmp_path / "run"
    with CheckpointWriter(run, keep=3) as checkpoints:
        for step, time_at_goal, evaluated in ((1, 0.3, 1), (2, 0.2, 2), (3, 0.9, 2)):
            figures = {"steps": step, "time_at_goal": time_at_goal, "evaluated_at": evaluated}
            description = metadata.model_copy(update={"metrics": figures})
            checkpoints.save(step, description, {"params": params})
    assert best_step(run) == 1  # the figures of step 3 were measured at step 2
    chosen = {which: load_teacher(run, None, which) for which in ("newest", "best", 2)}
    assert {key: agent.metadata.metrics["steps"] for key, agent in chosen.items()} == {
        "newest": 3,
        "best": 1,
        2: 2,
    }
    with pytest.raises(InputError, match="has no checkpoint 4; it has 1, 2, 3"):
        load_teacher(run, checkpoint=4)


@pytest.mark.parametrize("score", ["x", [1], True, None])
def test_checkpoint_score_takes_what_is_no_number_as_missing(score) -> None:
    metadata = Metadata(
        kind="teacher", task="reacher", networks={}, config={}, lineage={}, versions={},
        metrics={"time_at_goal": score, "steps": 40},
    )  # fmt: skip
    assert checkpoint_score(metadata) is None
