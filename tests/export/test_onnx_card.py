import onnx
import pytest
from huggingface_hub import ModelCard
from onnx_edits import FIXTURES, load_fixture, set_entry

from export.admission import read_contract
from export.onnx_card import render_onnx_card


def test_onnx_card_names_the_index_of_every_field(export_folder) -> None:
    card = ModelCard.load(export_folder / "README.md")
    assert card.data.to_dict()["library_name"] == "crl-distill"
    for words in (
        "| 4 to 5 | joint_velocity | rad/s |",
        "| 1 | elbow_torque | N m | -0.1 to 0.1 |",
        "20 ms",
    ):
        assert words in card.text


def test_onnx_card_says_how_sensors_were_read() -> None:
    path = FIXTURES / "contract-2" / "policy.onnx"
    card = render_onnx_card({"policy": read_contract(onnx.load(path), str(path))})
    assert "| `sensors` | 0 to 1 | joint_cos | 1 |" in card
    assert "| 50 Hz, noise 0.002 |" in card
    assert "zeros at the start of an episode | - |" in card
    assert "policy.reset()  # at the start of an episode" in card
    assert "action = policy(sensors, goal)" in card
    assert "as it was read" not in render_onnx_card(
        {"policy": read_contract(load_fixture(), "policy.onnx")}
    )


@pytest.mark.parametrize("figure", ["x", [1], True, 10**400])
@pytest.mark.parametrize("interval", ["x", 3, [1], [0, 10**400], [None, None]])
def test_onnx_card_leaves_out_what_is_no_figure(figure, interval) -> None:
    model = load_fixture()
    names = ("success_at_end", "retention", "exported_time_at_goal")
    metrics = dict.fromkeys(names, figure) | {"success_any": 0.75}
    set_entry(model, "metrics", metrics | {f"{name}_ci95": interval for name in metrics})
    card = render_onnx_card({"policy": read_contract(model, "policy.onnx")})
    assert "| success at any time | 0.750 | - |" in card
    assert "share of episodes that end within the goal's radius" not in card
    assert "| time at goal of these files in MuJoCo C | - |" in card
