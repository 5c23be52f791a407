import pytest

from teachers import InputError, load_teacher


def test_require_checkpoints_refuses_folder_without_checkpoint(tmp_path) -> None:
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_teacher(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load_teacher(tmp_path / "nowhere")
