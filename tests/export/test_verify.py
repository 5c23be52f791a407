import json

import onnx
import pytest
from commands import assert_refused, run, run_json

from export import Form, export_student
from export.verify import verify
from students import load_student
from teachers import load_teacher


def found(path, *settings, **more) -> dict:
    return {check.name: check for check in verify(path, *settings, episodes=8, **more)}


def test_what_was_exported_keeps_its_promises(export_folder, student_run) -> None:
    student = load_student(student_run)
    checks = found(export_folder / "policy.onnx", student)
    assert list(checks) == [
        *("structure", "contract", "lineage", "parity_reference", "parity_jax"),
        *("determinism", "closed_loop", "latency"),
    ]
    timeless = {name: check for name, check in checks.items() if name != "latency"}
    assert all(check.ok for check in timeless.values()), timeless
    assert 0 < checks["parity_jax"].value < 1e-4
    assert set(checks["latency"].value) == {"p50", "p99", "p99.9"}
    critic = found(export_folder / "critic.onnx", student)
    assert "closed_loop" not in critic
    assert all(check.ok for check in critic.values())


def test_another_checkpoint_is_told_by_its_digest(export_folder, teacher_run) -> None:
    checks = found(export_folder / "critic.onnx", load_teacher(teacher_run))
    assert not checks["lineage"].ok
    assert not checks["parity_jax"].ok


@pytest.mark.parametrize(
    ("key", "value", "check"),
    [
        ("control_period", 0.5, "contract"),
        ("task", "pusher_easy", "contract"),
        ("operators", ["Gemm"], "contract"),
        ("opset", 13, "contract"),
        ("precision", "int8", "contract"),
        ("success_radius", 99.0, "contract"),
        ("episode_steps", 7, "contract"),
        ("sizes", {}, "contract"),
        ("action_units", "normalized", "parity_jax"),
    ],
)
def test_a_contract_that_lies_is_found_out(
    export_folder, student_run, tmp_path, key, value, check
) -> None:
    model = onnx.load(export_folder / "critic.onnx")
    next(p for p in model.metadata_props if p.key == f"crl_distill.{key}").value = json.dumps(value)
    onnx.save(model, tmp_path / "critic.onnx")
    assert not found(tmp_path / "critic.onnx", load_student(student_run))[check].ok


def test_weights_that_were_changed_are_found_out(export_folder, student_run, tmp_path) -> None:
    model = onnx.load(export_folder / "critic.onnx")
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    array = onnx.numpy_helper.to_array(tensor) * 1.1
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, tmp_path / "critic.onnx")
    checks = found(tmp_path / "critic.onnx", load_student(student_run))
    assert checks["parity_reference"].ok
    assert not checks["parity_jax"].ok


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_both_heads_and_other_precisions_are_verified(student_run, tmp_path, precision) -> None:
    student = load_student(student_run)
    export_student(
        student, tmp_path / "out", Form(combined=True, precision=precision), min_retention=0
    )
    checks = found(tmp_path / "out" / "combined.onnx", student)
    assert all(check.ok for name, check in checks.items() if name != "latency"), checks
    assert checks["parity_jax"].value > 1e-5


def test_the_command_says_a_line_a_check(export_folder, tmp_path) -> None:
    critic = export_folder / "critic.onnx"
    said = run_json("verify", critic)
    assert [row["name"] for row in said["checks"]][:2] == ["structure", "contract"]
    assert said["ok"]
    (tmp_path / "cut.onnx").write_bytes(critic.read_bytes()[:-100])
    refused = run("verify", tmp_path / "cut.onnx")
    assert refused.exit_code == 1
    assert refused.stdout.count("\n") == 1
    assert "FAILED structure" in refused.stdout
    assert_refused(run("verify", tmp_path / "none.onnx"), "does not exist")
