import pytest
from edited import copy_with_metadata

from teachers import InputError, load_teacher


def test_load_teacher_runs_no_file_named_in_checkpoint(teacher_run, tmp_path) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    evil = f"{tmp_path / 'evil.py'}:Evil"
    config = {**load_teacher(teacher_run).metadata.config, "task": evil}
    assert (
        load_teacher(copy_with_metadata(teacher_run, tmp_path / "a", config=config)).task.name
        == "reacher"
    )
    for i, changes in enumerate(({"task": evil}, {"task_source": evil})):
        with pytest.raises(InputError, match=r"evil\.py"):
            load_teacher(copy_with_metadata(teacher_run, tmp_path / str(i), **changes))
    assert not (tmp_path / "ran").exists()


def test_load_teacher_refuses_unknown_task(teacher_run, tmp_path) -> None:
    with pytest.raises(InputError, match="run: unknown task 'xyzzy'"):
        load_teacher(copy_with_metadata(teacher_run, tmp_path / "run", task="xyzzy"))


@pytest.mark.parametrize("config", [{}, {"task": "reacher", "invented": 1}])
def test_load_teacher_refuses_other_configuration(teacher_run, tmp_path, config) -> None:
    with pytest.raises(InputError, match="does not fit this crl-distill"):
        load_teacher(copy_with_metadata(teacher_run, tmp_path / "run", config=config))
