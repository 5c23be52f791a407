import errno
import os
from contextlib import suppress

import pytest
from etils import epath

from teachers import InputError
from teachers.runs import lock, outputs
from teachers.runs.layout import LOCK
from teachers.runs.outputs import (
    create_atomically,
    create_marked_folder,
    empty_marked_folder,
    new_run_folder,
    read_marker,
    remove_unfinished_run,
    require_new_file,
    require_space,
    require_unused,
    write_atomically,
)


def test_require_unused_accepts_empty_and_missing_folder_only(tmp_path) -> None:
    require_unused(tmp_path)
    require_unused(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="already holds files"):
        require_unused(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        require_unused(tmp_path / "file")


def test_require_new_file_accepts_missing_file_with_ending_only(tmp_path) -> None:
    require_new_file(tmp_path / "missing" / "a.gif", ".gif", ".webm")
    (tmp_path / "a.gif").write_text("")
    (tmp_path / "folder.gif").mkdir()
    for name, message in (
        ("a.txt", "must end in .gif or .webm"),
        ("a.gif", "exists; choose another name"),
        ("folder.gif", "is a folder"),
    ):
        with pytest.raises(InputError, match=message):
            require_new_file(tmp_path / name, ".gif", ".webm")


def test_require_space_compares_with_free_bytes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(outputs, "free_bytes", lambda _: 1_000)
    require_space(epath.Path(tmp_path / "missing" / "run"), 1_000)
    with pytest.raises(InputError, match="would take 1,001 bytes, but only 1,000 are free"):
        require_space(epath.Path(tmp_path / "missing" / "run"), 1_001)


@pytest.mark.parametrize(("checkpoint", "is_kept"), [(None, False), ("80", True)])
def test_new_run_folder_is_emptied_after_interrupt_without_checkpoint(
    tmp_path, checkpoint, is_kept
) -> None:
    run = tmp_path / "run"
    with suppress(KeyboardInterrupt), new_run_folder(run):
        (run / "metrics.jsonl").write_text("")
        (run / LOCK).write_text("")
        if checkpoint:
            (run / "checkpoints" / checkpoint).mkdir(parents=True)
        raise KeyboardInterrupt
    kept = {"metrics.jsonl", "checkpoints", LOCK} if is_kept else {LOCK}
    assert set(os.listdir(run)) == kept


def test_new_run_folder_is_left_to_the_process_that_took_it(tmp_path, monkeypatch) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(lock, "_lost", {epath.Path(run)})
    with suppress(KeyboardInterrupt), new_run_folder(run):
        (run / "metrics.jsonl").write_text("of the other process")
        raise KeyboardInterrupt
    assert os.listdir(run) == ["metrics.jsonl"]


def test_remove_unfinished_run_removes_files_of_runs_only(tmp_path) -> None:
    for name in ("config.toml", "config.toml.tmp", "metrics.jsonl", "events.out.tfevents.1"):
        (tmp_path / name).write_text("")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"does not leave, such as thesis.tex"):
        remove_unfinished_run(tmp_path)
    assert len(os.listdir(tmp_path)) == 6
    (tmp_path / "thesis.tex").unlink()
    remove_unfinished_run(tmp_path)
    assert os.listdir(tmp_path) == []
    (tmp_path / "checkpoints" / "80").mkdir(parents=True)
    with pytest.raises(InputError, match="such as 80"):
        remove_unfinished_run(tmp_path)


def test_read_marker_recognises_marked_and_unused_folders(tmp_path) -> None:
    folder = tmp_path / "folder"
    assert read_marker(folder, ".marker", "a demo") is None
    create_marked_folder(folder, ".marker", "content")
    assert read_marker(folder, ".marker", "a demo") == "content"
    with pytest.raises(InputError, match="already holds files that are not those of a sweep"):
        read_marker(folder, "sweep.json", "a sweep")


def test_empty_marked_folder_keeps_folder_with_other_files(tmp_path) -> None:
    folder = tmp_path / "folder"
    create_marked_folder(folder, ".marker", "")
    (folder / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"a demo does not leave, such as thesis.tex"):
        empty_marked_folder(folder, ".marker", [], "a demo")
    assert (folder / ".marker").exists()
    (folder / ".policy.onnx.0123.partial").write_text("")
    empty_marked_folder(folder, ".marker", ["thesis.tex", "policy.onnx"], "a demo")
    assert list(folder.iterdir()) == []


def test_create_atomically_leaves_nothing_after_interrupt(tmp_path) -> None:
    path = epath.Path(tmp_path / "folder")
    with suppress(KeyboardInterrupt), create_atomically(path) as partial:
        partial.mkdir()
        (partial / "a").write_text("")
        assert not path.exists()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    with create_atomically(path) as partial:
        partial.mkdir()
    assert os.listdir(tmp_path) == ["folder"]


def test_create_atomically_refuses_path_that_appears_meanwhile(tmp_path) -> None:
    path = epath.Path(tmp_path / "file")

    def write_late() -> None:
        with create_atomically(path) as partial:
            partial.write_text("ours")
            path.write_text("theirs")

    with pytest.raises(InputError, match="exists"):
        write_late()
    assert path.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["file"]


def test_write_atomically_keeps_old_file_after_error(tmp_path, monkeypatch) -> None:
    file = tmp_path / "file"
    write_atomically(file, "old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(epath.Path(file)), "write_bytes", fail)
    with pytest.raises(OSError, match=r"file\.tmp"):
        write_atomically(file, "new")
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
