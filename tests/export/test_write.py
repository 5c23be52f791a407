import dataclasses

import jax
import numpy as np
import pytest

from export import Form, Policy, export_student, parity, write
from export.convert import convert
from export.write import ParityError, parse_precision
from teachers import InputError


@pytest.fixture
def one_episode(monkeypatch) -> None:
    """Exports record one episode, for tests of what follows from it."""
    monkeypatch.setattr(write, "MIN_EPISODES", 1)
    monkeypatch.setattr(write, "MAX_ROWS", 1)


@pytest.mark.usefixtures("one_episode")
def test_export_student_refuses_files_that_differ_from_jax(student, tmp_path, monkeypatch) -> None:

    def convert_shifted(agent, role, **form):
        shifted = jax.tree.map(lambda x: x + 0.01, student.params)
        return convert(dataclasses.replace(student, params=shifted), role, **form)

    monkeypatch.setattr(write, "convert", convert_shifted)
    with pytest.raises(ParityError, match="differ from JAX"):
        export_student(student, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("one_episode")
def test_export_student_refuses_files_that_compute_nan(student, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        write,
        "open_session",
        lambda model: (
            lambda inputs: {
                "action": np.zeros((len(inputs["goal"]), 2), np.float32),
                "value": np.full(len(inputs["goal"]), np.nan, np.float32),
            }
        ),
    )
    for form in (Form(combined=True), Form(), Form(precision="float16")):
        with pytest.raises(ParityError, match="differ from JAX by nan"):
            export_student(student, tmp_path / "out", form)
        assert list((tmp_path / "out").iterdir()) == []


def test_export_student_refuses_a_used_folder(student, export_folder) -> None:
    before = (export_folder / "policy.onnx").read_bytes()
    with pytest.raises(InputError, match="already holds files"):
        export_student(student, export_folder)
    assert (export_folder / "policy.onnx").read_bytes() == before


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_export_student_plays_files_of_other_precisions(export_form, precision) -> None:
    result = export_form(Form(combined=True, precision=precision))
    assert result["parity_max_abs"] > 1e-5
    assert result["critic_spearman"] < 1
    policy = Policy(result["combined"], margin=None)
    assert policy.metadata["precision"] == precision
    assert policy(np.ones(8), np.ones(2)).shape == (2,)
    operators = {"float16": "Cast", "int8": "QuantizeLinear"}
    assert operators[precision] in policy.metadata["operators"]


@pytest.mark.usefixtures("one_episode")
def test_export_student_refuses_files_that_lose_too_much(student, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(parity, "retention", lambda *_: (1.0, (1.0, 1.0)))
    form = Form(combined=True, precision="float16")
    monkeypatch.setattr(write, "spearman", lambda *_: 0.9)
    with pytest.raises(InputError, match=r"a rank correlation of 0\.900 with JAX's, less than"):
        export_student(student, tmp_path / "out", form)
    for ratio, low, words in (
        (
            0.5,
            0.4,
            r"keeps 0\.500 \[0\.400, 1\.000\] of its time at goal, less than --min-retention 0\.95",
        ),
        (0.97, 0.9, r"0\.970 \[0\.900, 1\.000\] .* which may be less than"),
    ):
        monkeypatch.setattr(parity, "retention", lambda *_, r=ratio, e=low: (r, (e, 1.0)))
        with pytest.raises(InputError, match=words):
            export_student(student, tmp_path / "out", form)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("dtype", "quantize"), [("float64", None), ("float32", "int4"), ("float16", "int8")]
)
def test_parse_precision_refuses_others(dtype, quantize) -> None:
    with pytest.raises(InputError, match="cannot be written; give --dtype float32 or float16"):
        parse_precision(dtype, quantize)


def test_export_student_warns_about_a_teacher_s_latency(teacher, tmp_path) -> None:
    with pytest.warns(
        UserWarning, match=r"an action takes \S+ ms here, and the control period is \d+ ms"
    ):
        result = export_student(teacher, tmp_path / "out")
    assert result["parity_max_abs"] < 1e-4
    with pytest.raises(InputError, match="a teacher is not written in int8; distill it"):
        export_student(teacher, tmp_path / "int8", Form(precision="int8"))
    metadata = Policy(result["policy"]).metadata
    assert metadata["seen_in"] == "export"
    assert metadata["role"] == "policy"
