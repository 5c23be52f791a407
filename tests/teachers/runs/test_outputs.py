import pytest

from teachers import InputError
from teachers.runs.outputs import create_folder, require_unused


def test_only_an_empty_or_missing_folder_is_new(tmp_path) -> None:
    require_unused(tmp_path)
    require_unused(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="already holds files"):
        require_unused(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        require_unused(tmp_path / "file")


def test_a_folder_that_cannot_be_made_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot create .*choose another --out"):
        create_folder(tmp_path / "file" / "run")
