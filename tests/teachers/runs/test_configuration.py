"""Tests of how configurations are read."""

import pytest

from distill import distill_config
from teachers import InputError, TeacherConfig, teacher_config
from teachers.runs.configuration import stored_config, without_engine


def test_teacher_config_reads_renamed_key_in_overrides() -> None:
    with pytest.warns(
        UserWarning, match=r"'learning.updates' in --set is now called 'learning.gradient_steps'"
    ):
        config = teacher_config("reacher", overrides={"learning.updates": 7})
    assert config.learning.gradient_steps == 7


def test_distill_config_reads_renamed_keys_in_toml(tmp_path) -> None:
    file = tmp_path / "old.toml"
    file.write_text(
        "[collect]\nhandover = 0.25\ngoals = 3\nrelabelled = 0.5\n[learning]\nupdates = 9\n"
    )
    with pytest.warns(UserWarning, match="is now called") as warned:
        config = distill_config(file)
    assert {str(warning.message) for warning in warned} == {
        f"'{old}' in {file} is now called '{new}'"
        for old, new in (
            ("handover", "beta_decay"),
            ("goals", "goals_per_state"),
            ("relabelled", "hindsight_share"),
            ("updates", "gradient_steps"),
        )
    }
    collect = config.collect
    assert (collect.beta_decay, collect.goals_per_state, collect.hindsight_share) == (0.25, 3, 0.5)
    assert config.learning.gradient_steps == 9


def test_stored_config_reads_renamed_key() -> None:
    raw = teacher_config("reacher").model_dump()
    raw["learning"]["updates"] = raw["learning"].pop("gradient_steps") + 1
    with pytest.warns(UserWarning, match="'updates' in runs/old is now called 'gradient_steps'"):
        config = stored_config(TeacherConfig, raw, "runs/old")
    assert config.learning.gradient_steps == raw["learning"]["updates"]


def test_teacher_config_refuses_key_under_both_names(tmp_path) -> None:
    both = {"learning.updates": 7, "learning.gradient_steps": 8}
    with (
        pytest.raises(InputError, match=r"sets 'learning.gradient_steps' twice"),
        pytest.warns(UserWarning, match="is now called"),
    ):
        teacher_config("reacher", overrides=both)
    file = tmp_path / "both.toml"
    file.write_text("[learning]\nupdates = 7\ngradient_steps = 8\n")
    with (
        pytest.raises(InputError, match="sets 'gradient_steps' twice"),
        pytest.warns(UserWarning, match="is now called"),
    ):
        teacher_config("reacher", file)


def test_without_engine_leaves_the_engine_out_at_every_depth() -> None:
    settings = {
        "seed": 1,
        "rollout": {"physics": "c", "steps": 2},
        "teacher": {"x": {"physics": 1}},
    }
    expected = {"seed": 1, "rollout": {"steps": 2}, "teacher": {"x": {}}}
    assert without_engine(settings) == expected
