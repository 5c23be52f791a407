from huggingface_hub import ModelCard


def test_onnx_card_names_the_index_of_every_field(export_folder) -> None:
    card = ModelCard.load(export_folder / "README.md")
    assert card.data.to_dict()["library_name"] == "crl-distill"
    for words in (
        "| 4 to 5 | joint_velocity | rad/s |",
        "| 1 | elbow_torque | N m | -0.1 to 0.1 |",
        "20 ms",
    ):
        assert words in card.text
