"""`crl-distill tasks`, and a task of the user's own from its file through every command."""

import shutil
import zipfile
from hashlib import sha256
from pathlib import Path

import imageio.v3 as imageio
import pytest
from commands import assert_refused, run, run_json, set_options
from tiny import DISTILL, TEACHER

from export import open_policy
from teachers import get_task, load_teacher

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


def test_tasks_lists_declared_fields() -> None:
    listed = {task["name"]: task for task in run_json("tasks")}
    assert {"reacher", "point_u_maze"} <= set(listed)
    tip = listed["reacher"]["observation"][-1]
    assert (tip["name"], tip["start"], tip["stop"], tip["unit"]) == ("fingertip", 6, 8, "m")
    assert "reacher" in run("tasks").stdout


def test_tasks_shows_and_draws_one_task(cart) -> None:
    (shown,) = run_json("tasks", "cart.py:Cart", "--image", "cart.png", "--seed", 3)
    assert (shown["name"], shown["image"]) == ("cart", "cart.png")
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
    checked = run_json("tasks", "--check", "cart.py:Cart")
    assert (checked["task"], checked["problems"], checked["contacts"]) == ("cart", [], {})
    assert [trial["engine"] for trial in checked["engines"]] == ["c", "jax"]
    assert checked["advice"][0].startswith("use physics ")

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
        assert described["task_source"] == "cart.py:Cart"
        assert described["task_digest"] == sha256(CART.read_bytes()).hexdigest()
        assert described["sizes"] == {"observation": 5, "goal": 1, "action": 1}
    assert run_json("evaluate", "export/policy.onnx", "--episodes", 4)["task"] == "cart"
    played = run_json("play", "export/policy.onnx", "--episodes", 2, "--video", "cart.gif")
    assert len(played["by_episode"]) == 2

    # On a machine that has the artefacts but not the file, and on one that has the file elsewhere.
    new_process()
    moved = cart.rename(tmp_path / "moved.py")
    assert run_json("info", "export/policy.onnx")["kind"] == "onnx"
    for path in ("export/policy.onnx", "runs/cart-student"):
        assert_refused(
            run("play", path), path, "'cart'", f"{cart} is missing", "--task FILE.py:Class"
        )
    assert_refused(
        run("evaluate", "export/policy.onnx", "--task", "reacher"), "of task 'cart', not 'reacher'"
    )
    task = ["--task", "moved.py:Cart"]
    assert run_json("evaluate", "export/policy.onnx", "--episodes", 4, *task)["task"] == "cart"
    teacher = load_teacher(runs / "cart-teacher", get_task("moved.py:Cart"))
    assert teacher.metadata.task_source == "moved.py:Cart"  # and so of what is made from it
    assert teacher.config.task == f"{moved}:Cart"

    # Another task under the same name.
    text = moved.read_text()
    split = text.replace('"pole", 2,', '"sine", 1, "1", "s"), Field("cosine", 2,')
    wider = tmp_path / "wider.py"
    wider.write_text(split.replace("xp.cos(angle)", "xp.cos(angle), xp.cos(angle)"))
    assert_refused(
        run("play", "export/policy.onnx", "--task", "wider.py:Cart"),
        "was made for observation 5", "observation 6",
    )  # fmt: skip


def find_files_with(text: str, folder: Path) -> list[str]:
    """Returns the files below a folder, and the members of archives in them, that contain a text."""
    found = []
    for file in filter(Path.is_file, folder.rglob("*")):
        contents = {file.name: file.read_bytes()}
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                contents |= {name: archive.read(name) for name in archive.namelist()}
        found += [f"{file}: {name}" for name, data in contents.items() if text.encode() in data]
    return found


@pytest.mark.slow
@pytest.mark.end_to_end
def test_user_task_leaves_no_path_in_artefacts(
    tmp_path, monkeypatch, new_process, no_known_task_files
) -> None:
    home = tmp_path / "home-of-the-user"
    home.mkdir()
    (home / "mine.py").write_text(
        "from teachers.tasks.reacher import Reacher\n\nclass Mine(Reacher):\n    name = 'mine'\n"
    )
    monkeypatch.chdir(tmp_path)
    run_json("train-teacher", home / "mine.py:Mine", *TRAIN, "--out", home / "runs/teacher")
    (home / "grid.toml").write_text(f"task = '{home}/mine.py:Mine'\n")
    assert run_json("sweep", home / "grid.toml", "--dry-run")[0]["task"] == "mine.py:Mine"
    (home / "grid.toml").unlink()

    new_process()
    settings = set_options({**DISTILL, "steps": 80})
    student = home / "runs/student"
    run_json("distill", home / "runs/teacher", "--force", *settings, "--out", student)
    run_json("export", student, "--out", home / "runs/export")
    run_json("export", home / "runs/teacher", "--out", home / "runs/export-teacher")
    run_json("export", student, "--format", "c", "--out", home / "runs/c")
    for kind in ("teacher", "student"):
        run_json(
            "share", "pack", home / f"runs/{kind}", "--full", "--out", home / f"runs/{kind}.zip"
        )
    assert find_files_with("mine.py", home / "runs")  # the search finds what is there
    assert find_files_with(home.name, home / "runs") == []
    digest = sha256((home / "mine.py").read_bytes()).hexdigest()
    for path in ("teacher", "student", "export/policy.onnx", "export-teacher/policy.onnx"):
        described = run_json("info", home / "runs" / path)
        assert (described["task_source"], described["task_digest"]) == ("mine.py:Mine", digest)
    assert run_json("info", home / "runs/teacher")["config"]["task"] == "mine.py:Mine"

    # The task and its runs are moved together; naming the task once makes its new place known.
    new_process()
    moved = home.rename(tmp_path / "moved")
    assert_refused(run("evaluate", moved / "runs/student"), "mine.py is missing", "--task")
    longer = set_options({**TEACHER, "steps": 80})
    teacher = moved / "runs/teacher"
    resumed = run_json(
        "train-teacher", moved / "mine.py:Mine", *longer, "--out", teacher, "--resume"
    )
    assert resumed["steps"] == 80
    new_process()
    for path in ("runs/student", "runs/export/policy.onnx"):
        assert run_json("evaluate", moved / path, "--episodes", 2)["task"] == "mine"


@pytest.mark.slow
def test_user_task_is_not_executed_when_file_changed(
    cart, tmp_path, new_process, no_known_task_files
) -> None:
    run_json("train-teacher", "cart.py:Cart", *TRAIN, "--out", "teacher")
    assert len(list((no_known_task_files / "tasks").iterdir())) == 1
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
