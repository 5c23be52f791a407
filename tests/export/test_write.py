import json
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
from huggingface_hub import ModelCard
from pydantic import ValidationError

import export
from export import Form, Policy, export_student, write
from export.contract import Contract, operators, schema
from export.convert import convert
from export.session import open_session
from export.write import ParityError, chosen_precision
from students import load_student
from teachers import InputError, load_teacher


def test_the_schema_that_ships_is_that_of_the_code() -> None:
    shipped = Path(export.__file__).parent / "contract.schema.json"
    assert shipped.read_text() == schema(), "write export.contract.schema() there"


def test_a_file_says_all_that_its_contract_has(export_folder) -> None:
    said = Policy(export_folder / "policy.onnx").metadata
    entries = Contract.model_validate(said)
    assert entries.role == "policy"
    assert entries.operators == operators(onnx.load(export_folder / "policy.onnx"))
    assert entries.parity
    assert entries.parity.inputs == 4096
    assert set(said) == set(json.loads(schema())["properties"])
    with pytest.raises(ValidationError):
        Contract.model_validate({**said, "action_units": "feet"})


def test_the_card_says_which_number_goes_where(export_folder) -> None:
    card = ModelCard.load(export_folder / "README.md")
    assert card.data.to_dict()["library_name"] == "crl-distill"
    for words in (
        "| 4 to 5 | joint_velocity | rad/s |",
        "| 1 | elbow_torque | N m | -0.1 to 0.1 |",
        "20 ms",
    ):
        assert words in card.text


def test_parity_is_that_of_the_largest_difference(student_run) -> None:
    student = load_student(student_run)
    random = np.random.default_rng(0)
    observation, goal = (random.standard_normal((7, n)).astype(np.float32) for n in (8, 2))
    action = np.array(jax.jit(student.networks.policy)(student.params, observation, goal))
    rows = write.Rows(observation, goal, action, np.zeros(7, np.float32))
    function = open_session(convert(student, "policy"))
    assert 0 < write.measure_parity(student.task, function, rows, "policy", "task") < 1e-5
    action[3, 1] += 0.25
    found = write.measure_parity(student.task, function, rows, "policy", "task")
    assert found == pytest.approx(0.25, abs=1e-5)


def test_a_file_that_computes_something_else_is_refused(student_run, tmp_path, monkeypatch) -> None:
    student = load_student(student_run)

    def wrong(agent, role, **form):
        shifted = jax.tree.map(lambda x: x + 0.01, student.params)
        return convert(type(student)(student.networks, shifted, student.metadata), role, **form)

    monkeypatch.setattr(write, "convert", wrong)
    with pytest.raises(ParityError, match="differ from JAX"):
        export_student(student, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_computes_no_numbers_is_refused(student_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        write,
        "opened",
        lambda model: (
            lambda given: {
                "action": np.zeros((len(given["goal"]), 2), np.float32),
                "value": np.full(len(given["goal"]), np.nan, np.float32),
            }
        ),
    )
    for form in (Form(combined=True), Form(), Form(precision="float16")):
        with pytest.raises(ParityError, match="differ from JAX by nan"):
            export_student(load_student(student_run), tmp_path / "out", form)
        assert list((tmp_path / "out").iterdir()) == []


def test_a_taken_folder_is_refused(student_run, export_folder) -> None:
    before = (export_folder / "policy.onnx").read_bytes()
    with pytest.raises(InputError, match="already holds files"):
        export_student(load_student(student_run), export_folder)
    assert (export_folder / "policy.onnx").read_bytes() == before


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_fewer_bits_are_played_before_they_are_written(student_run, tmp_path, precision) -> None:
    student = load_student(student_run)
    result = export_student(
        student, tmp_path / "out", Form(combined=True, precision=precision), min_retention=0
    )
    assert result["parity_max_abs"] > 1e-5
    assert result["critic_spearman"] < 1
    policy = Policy(result["combined"], margin=None)
    assert policy.metadata["precision"] == precision
    assert policy(np.ones(8), np.ones(2)).shape == (2,)
    inside = {"float16": "Cast", "int8": "QuantizeLinear"}
    assert inside[precision] in policy.metadata["operators"]


def test_a_policy_that_loses_too_much_is_not_written(student_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(write, "retention", lambda *_: (1.0, (1.0, 1.0)))
    form = Form(combined=True, precision="float16")
    monkeypatch.setattr(write, "spearman", lambda *_: 0.9)
    with pytest.raises(InputError, match=r"a rank correlation of 0\.900 with JAX's, less than"):
        export_student(load_student(student_run), tmp_path / "out", form)
    monkeypatch.setattr(write, "retention", lambda *_: (0.5, (0.4, 0.6)))
    with pytest.raises(
        InputError, match=r"keeps 0\.500 of its time at goal, less than --min-retention 0\.95"
    ):
        export_student(load_student(student_run), tmp_path / "out", form)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("dtype", "quantize"), [("float64", None), ("float32", "int4"), ("float16", "int8")]
)
def test_a_precision_that_there_is_not_is_refused(dtype, quantize) -> None:
    with pytest.raises(InputError, match="cannot be written; give --dtype float32 or float16"):
        chosen_precision(dtype, quantize)


def test_a_teacher_is_exported_with_a_warning(teacher_run, tmp_path) -> None:
    with pytest.warns(UserWarning, match=r"an action takes \S+ ms here, and \d+ ms lie"):
        result = export_student(load_teacher(teacher_run), tmp_path / "out")
    assert result["parity_max_abs"] < 1e-4
    with pytest.raises(InputError, match="a teacher is not written in int8; distill it"):
        export_student(load_teacher(teacher_run), tmp_path / "int8", Form(precision="int8"))
    said = Policy(result["policy"]).metadata
    assert said["seen_in"] == "export"
    assert said["role"] == "policy"
