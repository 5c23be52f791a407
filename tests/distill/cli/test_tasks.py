"""`crl-distill tasks`, and a task of the user's own from its file through every command."""

import shutil
from pathlib import Path

import imageio.v3 as imageio
import pytest
from commands import assert_refused, run, run_json, set_options
from tiny import DISTILL, TEACHER

from export import open_policy
from teachers import get_task, load_teacher
from teachers.tasks import load

CART = Path(__file__).parents[2] / "examples" / "cart.py"
TRAIN = [*set_options({**TEACHER, "steps": 40})]


@pytest.fixture
def cart(tmp_path, monkeypatch, no_known_task_files) -> Path:
    """A robot's folder, in which the user works."""
    folder = tmp_path / "robot"
    folder.mkdir()
    shutil.copy(CART, folder)
    monkeypatch.chdir(folder)
    return folder / "cart.py"


@pytest.fixture
def new_process(monkeypatch):
    """Called, it leaves what is on disk alone."""

    def forget() -> None:
        monkeypatch.setattr(load, "_tasks", {})
        monkeypatch.setattr(load, "_modules", {})

    return forget


def test_tasks_lists_declared_fields() -> None:
    listed = {task["name"]: task for task in run_json("tasks")}
    assert {"reacher", "point_u_maze"} <= set(listed)
    tip = listed["reacher"]["observation"][-1]
    assert (tip["name"], tip["start"], tip["stop"], tip["unit"]) == ("fingertip", 6, 8, "m")
    assert "reacher" in run("tasks").stdout


def test_tasks_shows_and_draws_one_task(cart) -> None:
    (shown,) = run_json("tasks", "cart.py:Cart", "--image", "cart.png", "--seed", 3)
    assert (shown["name"], shown["contacts"], shown["image"]) == ("cart", 0, "cart.png")
    assert [field["name"] for field in shown["goal"]] == ["position"]
    assert imageio.imread("cart.png").shape == (640, 640, 3)
    result = run("tasks", "cart.py:Cart", "--image", "other.png")
    assert "pole_velocity" in result.stdout
    assert (
        f"drawn by {'matplotlib' if shown['renderer'] == 'matplotlib' else 'MuJoCo'}"
        in result.stderr
    )


def test_tasks_check_prints_problems_and_exits_with_2(cart) -> None:
    cart.write_text(cart.read_text().replace('"steps"', '"stpes"').replace("zeros(2)", "zeros(3)"))
    result = run("tasks", "--check", "cart.py:Cart")
    assert result.exit_code == 2
    sizes, training = result.stdout.splitlines()
    assert "qvel of sample_state: gives [3], not [2]" in sizes
    assert "training: unknown key 'stpes'" in training
    result = run("tasks", "--check", "cart.py:Cat", "--json")
    assert result.exit_code == 2
    assert '"problems": ["' in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tasks", "cat.py:Cart"], ["no file", "cat.py"]),
        (["tasks", "reachr"], ["did you mean 'reacher'"]),
        (["tasks", "--image", "x.png"], ["x.png", "name it"]),
        (["tasks", "reacher", "--image", "x.jpg"], ["x.jpg", "must end in .png"]),
        (["tasks", "reacher", "--image", "cart.png"], ["cart.png exists"]),
        (["tasks", "reacher", "--check", "reacher"], ["--check"]),
        (["train-teacher", "cart.py"], ["which class", "FILE.py:Class"]),
        (["train-teacher", "cart.py:Cat"], ["no class 'Cat'", "it has Cart"]),
    ],
)
def test_tasks_refuses_bad_reference(cart, arguments, words) -> None:
    (cart.parent / "cart.png").write_text("mine")
    assert_refused(run(*arguments), *words)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_user_task_passes_through_every_command(cart, tmp_path, monkeypatch, new_process) -> None:
    assert run_json("tasks", "--check", "cart.py:Cart") == {"task": "cart", "problems": []}

    trained = run_json("train-teacher", "cart.py:Cart", *TRAIN)
    assert (trained["task"], trained["out"]) == ("cart", "runs/cart-teacher")
    runs = cart.parent / "runs"

    new_process()
    monkeypatch.chdir(tmp_path)
    resumed = run_json(
        "train-teacher", cart.parent / "../robot/cart.py:Cart", "--resume", "--steps", 80,
        "--config", runs / "cart-teacher/config.toml", "--out", runs / "cart-teacher",
    )  # fmt: skip
    assert resumed["steps"] == 80

    new_process()
    settings = set_options({**DISTILL, "steps": 80})
    distilled = run_json("distill", runs / "cart-teacher", "--force", *settings)
    assert (distilled["task"], distilled["out"]) == ("cart", "runs/cart-student")
    run_json("export", "runs/cart-student", "--out", "export")
    for path in (runs / "cart-teacher", "runs/cart-student", "export/policy.onnx"):
        described = run_json("info", path)
        assert described["task"] == "cart"
        assert described["task_source"] == f"{cart}:Cart"
        assert described["sizes"] == {"observation": 5, "goal": 1, "action": 1}
    assert run_json("evaluate", "export/policy.onnx", "--episodes", 4)["task"] == "cart"
    played = run_json("play", "export/policy.onnx", "--episodes", 2, "--video", "cart.gif")
    assert len(played["by_episode"]) == 2

    # On a machine that has the artefacts but not the file, and on one that has the file elsewhere.
    new_process()
    moved = cart.rename(tmp_path / "moved.py")
    assert run_json("info", "export/policy.onnx")["kind"] == "onnx"
    for path in ("export/policy.onnx", "runs/cart-student"):
        assert_refused(run("play", path), path, "'cart'", str(cart), "--task FILE.py:Class")
    assert_refused(
        run("evaluate", "export/policy.onnx", "--task", "reacher"), "of task 'cart', not 'reacher'"
    )
    task = ["--task", "moved.py:Cart"]
    assert run_json("evaluate", "export/policy.onnx", "--episodes", 4, *task)["task"] == "cart"
    teacher = load_teacher(runs / "cart-teacher", get_task("moved.py:Cart"))
    assert teacher.metadata.task_source == f"{moved}:Cart"  # and so of what is made from it

    # Another task under the same name.
    text = moved.read_text()
    split = text.replace('"pole", 2,', '"sine", 1, "1", "s"), Field("cosine", 2,')
    wider = tmp_path / "wider.py"
    wider.write_text(split.replace("xp.cos(angle)", "xp.cos(angle), xp.cos(angle)"))
    assert_refused(
        run("play", "export/policy.onnx", "--task", "wider.py:Cart"),
        "was made for observation 5", "observation 6",
    )  # fmt: skip


@pytest.mark.slow
def test_user_task_is_not_executed_when_file_changed(
    cart, tmp_path, new_process, no_known_task_files
) -> None:
    run_json("train-teacher", "cart.py:Cart", *TRAIN, "--out", "teacher")
    (mark,) = (no_known_task_files / "tasks").iterdir()
    assert mark.stat().st_size == 0
    trace = tmp_path / "ran"
    cart.write_text(f"{cart.read_text()}\nopen({str(trace)!r}, 'w').close()\n")
    for command in ("evaluate", "distill", "play"):
        new_process()
        assert_refused(run(command, "teacher"), "teacher", str(cart), "has changed", "--task")
    assert not trace.exists()
    with pytest.raises(ValueError, match="has changed"):
        open_policy(Path("teacher"))
    assert run_json("info", "teacher")["task"] == "cart"
    assert run_json("evaluate", "teacher", "--episodes", 2, "--task", "cart.py:Cart")
    assert trace.exists()  # the user said so
    new_process()
    assert run_json("evaluate", "teacher", "--episodes", 2)["task"] == "cart"
