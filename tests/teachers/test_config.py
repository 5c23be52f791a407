import pytest
from hypothesis import given
from hypothesis import strategies as st

from teachers import InputError, teacher_config
from teachers.config import NetworkConfig, TeacherConfig
from teachers.runs.configuration import parse_assignments


def test_teacher_config_takes_task_then_file_then_overrides(tmp_path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[learning]\ndiscount = 0.9\nbatch = 32\n")
    config = teacher_config("point_u_maze", file, {"learning.batch": "64"})
    assert config.learning.learning_rate == 5e-4  # the task's
    assert config.learning.discount == 0.9  # the file's, over the task's
    assert config.learning.batch == 64  # the override's, over the file's
    assert config.learning.gradient_steps == TeacherConfig(task="reacher").learning.gradient_steps


def test_teacher_config_reads_what_to_toml_writes(tmp_path) -> None:
    config = teacher_config("reacher", overrides={"actor.depth": 32, "seed": 7})
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert teacher_config("reacher", tmp_path / "config.toml") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"actor.depth": 6}, r"actor.depth = 6: depth must be a multiple of 4, such as 4 or 8"),
        ({"actor.depth": -4}, r"actor.depth = -4: .*greater than or equal to 4"),
        ({"rollout.environments": 10**9}, r"rollout.environments = 1000000000"),
        (
            {"learning.btch": 3},
            r"unknown key 'learning.btch' in --set; did you mean 'learning.batch'",
        ),
        ({"learning": "3"}, r"'learning' is a section; set one of its keys"),
        ({"learning.discount": 1.0}, r"learning.discount = 1.0: .*less than 1"),
        ({"learning.target_entropy": "nan"}, r"learning.target_entropy = 'nan': .*finite"),
        ({"steps": "many"}, r"steps = 'many': .*integer"),
    ],
)
def test_teacher_config_names_invalid_values(overrides, message) -> None:
    with pytest.raises(InputError, match=message):
        teacher_config("reacher", overrides=overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[learning]\nbtch = 3\n",
            r"unknown key 'learning.btch' in .*did you mean 'learning.batch'",
        ),
        ("learning = 3\n", r"'learning' in .* is a section"),
        ("[learning\n", r"is not valid TOML"),
    ],
)
def test_teacher_config_names_invalid_keys_in_files(tmp_path, text, message) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        teacher_config("reacher", file)


def test_teacher_config_names_missing_file_and_task(tmp_path) -> None:
    with pytest.raises(InputError, match=r"cannot read configuration .*nowhere.toml"):
        teacher_config("reacher", tmp_path / "nowhere.toml")
    with pytest.raises(InputError, match=r"unknown task 'reachr'; did you mean 'reacher'"):
        teacher_config("reachr")


def test_teacher_config_refuses_configuration_of_another_task(tmp_path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(teacher_config("point_u_maze").to_toml())
    for arguments in ((file, None), (None, {"task": "point_u_maze"})):
        with pytest.raises(InputError, match="is for task 'point_u_maze', not 'reacher'"):
            teacher_config("reacher", *arguments)


def test_assignments_are_split_at_the_first_equals_sign() -> None:
    assert parse_assignments(["a.b=c=d", " e = 1 "]) == {"a.b": "c=d", "e": "1"}
    with pytest.raises(InputError, match="--set"):
        parse_assignments(["seed"])


def test_teacher_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TeacherConfig(task="reacher").seed = 1


@given(
    steps=st.integers(1, 10**6),
    environments=st.integers(1, 1000),
    length=st.integers(1, 200),
    kept=st.integers(2, 5000),
)
def test_teacher_config_rounds_steps_and_replay_up_to_iterations(
    steps, environments, length, kept
) -> None:
    config = teacher_config(
        "reacher",
        overrides={
            "steps": steps,
            "rollout.environments": environments,
            "rollout.steps": length,
            "rollout.replay_steps": kept,
        },
    )
    assert (config.iterations - 1) * config.steps_per_iteration < steps
    assert config.iterations * config.steps_per_iteration >= steps
    assert kept <= config.replay_slots < kept + length
    assert config.replay_slots % length == 0


@pytest.mark.parametrize(("depth", "zero"), [(4, False), (8, True), (20, True), (1024, True)])
def test_network_config_starts_deep_networks_with_zero_branches(depth, zero) -> None:
    assert NetworkConfig(depth=depth).zero_branches == zero
    assert NetworkConfig(depth=depth, residual="zero").zero_branches
    assert not NetworkConfig(depth=depth, residual="published").zero_branches
