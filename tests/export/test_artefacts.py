import pytest

from export import describe_artefact, open_policy
from teachers import InputError


@pytest.mark.parametrize("kind", ["teacher", "student", "onnx"])
def test_open_policy_and_describe_artefact_agree(
    teacher_run, student_run, export_folder, kind
) -> None:
    path = {
        "teacher": teacher_run,
        "student": student_run,
        "onnx": export_folder / "policy.onnx",
    }[kind]
    assert describe_artefact(path).kind == kind
    opened = open_policy(path)
    assert opened.metadata == describe_artefact(path)
    assert opened.task.name == "reacher"


def test_open_policy_refuses_a_critic(export_folder) -> None:
    assert set(describe_artefact(export_folder / "critic.onnx").networks) == {"phi", "psi"}
    with pytest.raises(InputError, match="is a critic, not a policy"):
        open_policy(export_folder / "critic.onnx")


@pytest.mark.parametrize("read", [describe_artefact, open_policy])
def test_artefacts_refuse_other_paths(tmp_path, read) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "nowhere.onnx")
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "nowhere")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path / "folder.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match=r"text.onnx"):
        read(tmp_path / "text.onnx")
    with pytest.raises(InputError, match="holds no checkpoint"):
        read(tmp_path)
