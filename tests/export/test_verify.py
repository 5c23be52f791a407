import json
import sys

import jax
import jax.numpy as jnp
import onnx
import pytest
from commands import assert_refused, run, run_json
from onnx_edits import load_fixture

from export import Form
from export.closed_loop import MIN_EPISODES
from export.verify import verify

# The package's function has the name of its module.
verify_module = sys.modules["export.verify"]


def run_checks(path, *arguments, **options) -> dict:
    # As many as a policy that keeps its time at goal exactly needs to pass.
    return {
        check.name: check for check in verify(path, *arguments, episodes=MIN_EPISODES, **options)
    }


def test_verify_passes_exported_files(export_folder, student) -> None:
    checks = run_checks(export_folder / "policy.onnx", student)
    assert list(checks) == [
        *("structure", "contract", "lineage", "parity_reference", "parity_jax"),
        *("determinism", "closed_loop", "latency"),
    ]
    timeless = {name: check for name, check in checks.items() if name != "latency"}
    assert all(check.ok for check in timeless.values()), timeless
    assert 0 < checks["parity_jax"].value < 1e-4
    assert set(checks["latency"].value) == {"p50", "p99", "p99.9"}
    critic = run_checks(export_folder / "critic.onnx", student)
    assert "closed_loop" not in critic
    assert all(check.ok for check in critic.values())


def test_verify_computes_with_32_bits_under_x64(export_folder, student, monkeypatch) -> None:
    widths = []
    record = verify_module.record_episodes

    def note_width(*arguments):
        widths.append(jnp.arange(1).dtype)
        return record(*arguments)

    monkeypatch.setattr(verify_module, "record_episodes", note_width)
    with jax.enable_x64(True):
        checks = run_checks(export_folder / "critic.onnx", student)
    assert widths == [jnp.int32]
    assert all(check.ok for check in checks.values()), checks


@pytest.mark.slow
def test_verify_closed_loop_of_few_episodes_tells_how_many_are_enough(
    export_folder, student
) -> None:
    checks = {c.name: c for c in verify(export_folder / "policy.onnx", student, episodes=8)}
    found = checks["closed_loop"]
    assert not found.ok
    assert "not enough episodes: 8 show" in found.value["verdict"]
    assert "give --episodes 64" in found.value["verdict"]


def test_verify_without_checkpoint_compares_with_the_contract(export_folder) -> None:
    found = run_checks(export_folder / "policy.onnx")["closed_loop"]
    assert "that the file states" in found.value["verdict"]
    assert found.value["broken_episodes"] == 0


def test_verify_finds_another_checkpoint_by_its_digest(export_folder, teacher) -> None:
    checks = run_checks(export_folder / "critic.onnx", teacher)
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
def test_verify_finds_a_false_contract(export_folder, student, tmp_path, key, value, check) -> None:
    model = onnx.load(export_folder / "critic.onnx")
    next(p for p in model.metadata_props if p.key == f"crl_distill.{key}").value = json.dumps(value)
    onnx.save(model, tmp_path / "critic.onnx")
    assert not run_checks(tmp_path / "critic.onnx", student)[check].ok


def test_verify_finds_changed_weights(export_folder, student, tmp_path) -> None:
    model = onnx.load(export_folder / "critic.onnx")
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    array = onnx.numpy_helper.to_array(tensor) * 1.1
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, tmp_path / "critic.onnx")
    checks = run_checks(tmp_path / "critic.onnx", student)
    assert checks["parity_reference"].ok
    assert not checks["parity_jax"].ok


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_verify_passes_combined_files_in_other_precisions(export_form, student, precision) -> None:
    file = export_form(Form(combined=True, precision=precision))["combined"]
    checks = run_checks(file, student)
    # A student that has hardly been trained may lose time at goal by int8.
    others = {
        name: check for name, check in checks.items() if name not in ("latency", "closed_loop")
    }
    assert all(check.ok for check in others.values()), checks
    assert checks["parity_jax"].value > 1e-5


def test_verify_command_prints_a_line_for_each_check(export_folder, tmp_path) -> None:
    critic = export_folder / "critic.onnx"
    printed = run_json("verify", critic)
    assert [row["name"] for row in printed["checks"]][:2] == ["structure", "contract"]
    assert printed["ok"]
    (tmp_path / "cut.onnx").write_bytes(critic.read_bytes()[:-100])
    refused = run("verify", tmp_path / "cut.onnx")
    assert refused.exit_code == 1
    assert refused.stdout.count("\n") == 1
    assert "FAILED structure" in refused.stdout
    assert_refused(run("verify", tmp_path / "none.onnx"), "does not exist")


@pytest.mark.parametrize(("message", "line"), [("", "ValueError"), ("\n one\ntwo", "one")])
def test_verify_names_an_error_without_a_message_by_its_type(
    tmp_path, monkeypatch, message, line
) -> None:
    def fail(self):
        raise ValueError(message)

    onnx.save(load_fixture("critic"), tmp_path / "critic.onnx")
    monkeypatch.setattr("export.verify._Checks.check_determinism", fail)
    found = run_checks(tmp_path / "critic.onnx")["determinism"]
    assert not found.ok
    assert found.value == line
