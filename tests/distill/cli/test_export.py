import pytest
from commands import assert_refused, run


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--opset", 12], ["opset 12", "from 13 to"]),
        (["--dtype", "float64"], ["'float64'", "float32 or float16"]),
        (["--dtype", "float16", "--quantize", "int8"], ["cannot be written"]),
        (["--format", "tflite"], ["'tflite'", "onnx or c"]),
        (["--format", "c", "--combined"], ["leave out --combined"]),
    ],
)
def test_export_refuses_impossible_form(student_run, tmp_path, options, said) -> None:
    assert_refused(run("export", student_run, *options, "--out", tmp_path / "x"), *said)
    assert not (tmp_path / "x").exists()


def test_export_refuses_teacher_as_c_source(teacher_run, tmp_path) -> None:
    result = run("export", teacher_run, "--format", "c", "--out", tmp_path / "x")
    assert_refused(result, "a teacher is too deep for a microcontroller")
    assert not (tmp_path / "x").exists()
