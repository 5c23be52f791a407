import os
import shutil
import signal
from dataclasses import replace

import jax
import numpy as np
import pytest
from etils import epath
from metrics import drop_timings
from tiny import DISTILL

from distill import distill_config, distill_teacher, resume
from students import load_student
from students.artefact import load_finished_student
from teachers import InputError
from teachers.crl.memory import total_bytes
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.errors import StoppedError
from teachers.runs.layout import EVENTS, UNFINISHED
from teachers.runs.run_log import read_metrics

EVERY_ROUND = {**DISTILL, "checkpoint_every": 1}


@pytest.fixture
def distill(teacher, tiny_distill_programs):
    """Distills the tiny teacher with the settings `DISTILL` and changes of them."""

    def run(out, *, teacher=teacher, settings=EVERY_ROUND, **options):
        config = distill_config(overrides=settings)
        programs = tiny_distill_programs
        return distill_teacher(teacher, config, out, force=True, programs=programs, **options)

    return run


@pytest.fixture(scope="module")
def interrupted(teacher, tiny_distill_programs, tmp_path_factory):
    """The run of a distillation that ended with an error after the third of four rounds."""
    run = tmp_path_factory.mktemp("interrupted") / "run"

    def fail(done: int, *_: object) -> None:
        if done == 120:
            raise OSError("the power failed")

    config = distill_config(overrides=EVERY_ROUND)
    with pytest.raises(OSError, match="the power failed"):
        distill_teacher(
            teacher, config, run, force=True, programs=tiny_distill_programs, progress=fail
        )
    return run


@pytest.fixture
def copied(interrupted, tmp_path):
    """A copy of the interrupted run."""
    return shutil.copytree(interrupted, tmp_path / "run")


def assert_same_student(run, expected_run) -> None:
    expected, found = load_student(expected_run), load_student(run)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    rows = drop_timings(read_metrics(run))
    assert rows == drop_timings(read_metrics(expected_run))
    assert found.metadata.lineage == expected.metadata.lineage
    names = {path.name for path in run.iterdir() if not path.name.startswith(EVENTS)}
    assert names == {"checkpoints", "config.toml", "metrics.jsonl"}


def test_distill_teacher_resumes_as_if_nothing_had_happened(copied, distill, student_run) -> None:
    assert checkpoint_steps(copied / UNFINISHED) == [2]
    distill(copied, resume=True)
    assert_same_student(copied, student_run)


def test_distill_teacher_saves_its_state_at_sigterm(tmp_path, distill, student_run) -> None:
    def stop(done: int, *_: object) -> None:
        if done == 80:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match=r"asked to end: round 2 of 4 is saved; to go on, give"):
        distill(tmp_path / "run", settings=DISTILL, progress=stop)
    distill(tmp_path / "run", settings=DISTILL, resume=True)
    assert_same_student(tmp_path / "run", student_run)


def test_distill_teacher_begins_again_without_checkpoint(tmp_path, distill, student_run) -> None:
    run = tmp_path / "run"

    def fail(*_: object) -> None:
        raise OSError("the power failed")

    with pytest.raises(OSError, match="the power failed"):
        distill(run, settings=DISTILL, progress=fail)
    with pytest.warns(UserWarning, match="holds no checkpoint: the run begins"):
        distill(run, settings=DISTILL, resume=True)
    assert_same_student(run, student_run)


def test_distill_teacher_removes_folder_at_ctrl_c_only_without_checkpoint(
    tmp_path, distill
) -> None:
    for rounds, kept in ((1, False), (3, True)):
        run = tmp_path / str(rounds)

        def interrupt(done: int, *_: object, last: int = 40 * rounds) -> None:
            if done == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            distill(run, progress=interrupt)
        assert run.exists() == kept


def test_distill_teacher_says_where_it_goes_on_without_room(
    copied, distill, student_run, monkeypatch
) -> None:
    monkeypatch.setattr(resume, "free_bytes", lambda _: 1_000)
    with pytest.warns(
        UserWarning, match=r"too little room .* the distillation goes on from round 2$"
    ):
        distill(copied, resume=True)
    assert_same_student(copied, student_run)


def test_position_writer_needs_room_for_one_checkpoint(
    copied, tmp_path, teacher, tiny_distill_programs, monkeypatch
) -> None:
    config = distill_config(overrides=EVERY_ROUND).for_teacher(teacher.metadata.metrics["steps"])
    position = resume.resume_distillation(
        epath.Path(copied), config, teacher, tiny_distill_programs
    )
    assert position is not None
    size = total_bytes(position.state)
    with resume.PositionWriter(epath.Path(tmp_path / "new"), config, teacher) as writer:
        monkeypatch.setattr(resume, "free_bytes", lambda _: size - 1)
        with pytest.warns(UserWarning, match=r"the distillation begins again$"):
            assert not writer.save(position)
        monkeypatch.setattr(resume, "free_bytes", lambda _: size)
        assert writer.save(position)
    assert checkpoint_steps(tmp_path / "new" / UNFINISHED) == [2]


def test_distill_teacher_passes_over_damaged_checkpoint(copied, distill, student_run) -> None:
    checkpoint = copied / UNFINISHED / "checkpoints" / "2"
    for file in (checkpoint / "distillation").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match=r"checkpoint 2 in .* is damaged"),
        pytest.raises(InputError, match=r"all checkpoints of .* are damaged"),
    ):
        distill(copied, resume=True)
    assert checkpoint.exists()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"policy.learning_rate": 0.02}, "another configuration"), ({"seed": 3}, "configuration")],
)
def test_distill_teacher_refuses_to_resume_other_settings(
    settings, reason, copied, teacher
) -> None:
    config = distill_config(overrides={**EVERY_ROUND, **settings})
    with pytest.raises(InputError, match=reason):
        distill_teacher(teacher, config, copied, resume=True, force=True)
    assert checkpoint_steps(copied / UNFINISHED) == [2]


def test_distill_teacher_refuses_to_resume_with_another_teacher(copied, teacher, distill) -> None:
    params = jax.tree.map(lambda x: x + 1, teacher.params)
    with pytest.raises(InputError, match="was distilled from another teacher"):
        distill(copied, teacher=replace(teacher, params=params), resume=True)


def test_distill_teacher_refuses_to_resume_finished_run(student_run, distill, tmp_path) -> None:
    run = shutil.copytree(student_run, tmp_path / "run")
    (run / UNFINISHED / "checkpoints" / "2").mkdir(parents=True)  # of a call that was killed
    with pytest.raises(InputError, match="is finished: load its student"):
        distill(run, resume=True)
    assert not (run / UNFINISHED).exists()


@pytest.mark.parametrize(
    ("kind", "message"), [("student", "is finished"), ("teacher", "holds a teacher, not a student")]
)
def test_distill_teacher_leaves_files_beside_checkpoints(
    kind, message, request, distill, tmp_path
) -> None:
    run = shutil.copytree(request.getfixturevalue(f"{kind}_run"), tmp_path / "run")
    notes = run / UNFINISHED / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("precious")
    with pytest.raises(InputError, match=message):
        distill(run, resume=True)
    assert notes.read_text() == "precious"


def test_load_finished_student_leaves_state_to_resume_from(copied) -> None:
    config = distill_config(overrides=EVERY_ROUND)
    assert load_finished_student(epath.Path(copied), config) is None
    assert checkpoint_steps(copied / UNFINISHED) == [2]
