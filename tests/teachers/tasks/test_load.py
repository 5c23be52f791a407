"""Tasks from files and installed packages, and which files an artefact may name."""

import os
import sys
from importlib.metadata import EntryPoint

import pytest

from teachers import InputError, get_task, teacher_config
from teachers.config import TeacherConfig
from teachers.tasks import absolute_reference, load
from teachers.tasks.registry import reopen_task, task_names

MINE = """
from teachers.tasks.reacher import Reacher

class Mine(Reacher):
    name = "mine"
"""


@pytest.fixture(autouse=True)
def _fresh(no_known_task_files) -> None:
    """Starts every test on a machine where no file was named."""


def write(folder, text: str = MINE, name: str = "mine.py"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_load_file_builds_one_task_for_all_spellings_of_path(tmp_path, monkeypatch) -> None:
    file = write(tmp_path)
    task = get_task(f"{file}:Mine")
    assert task.name == "mine"
    assert task.source == f"{file}:Mine"
    monkeypatch.chdir(tmp_path)
    assert get_task("mine.py:Mine") is task
    assert get_task(f"../{tmp_path.name}/mine.py:Mine") is task
    assert get_task("reacher").source == ""


def test_load_file_separates_files_and_imports_of_same_name(tmp_path) -> None:
    tasks = []
    for i in (1, 2):
        folder = tmp_path / f"robot{i}"
        text = f"import lengths_of_mine\n{MINE}    episode_steps = lengths_of_mine.STEPS\n"
        write(folder, f"STEPS = {i}0", "lengths_of_mine.py")
        tasks.append(get_task(f"{write(folder, text)}:Mine"))
        assert str(folder) not in sys.path
    assert [task.episode_steps for task in tasks] == [10, 20]
    assert type(tasks[0]).__module__ != type(tasks[1]).__module__


def test_load_file_runs_file_once_for_all_classes(tmp_path) -> None:
    text = f"{MINE}    runs = []\nMine.runs.append(1)\nclass Other(Mine):\n    name = 'other'\n"
    file = write(tmp_path, text)
    assert get_task(f"{file}:Other").runs is get_task(f"{file}:Mine").runs == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["there is no file", "FILE.py:Class"]),
        (MINE.replace("Mine", "Yours"), ["no class 'Mine'", "it has Yours"]),
        ("", ["no class 'Mine'", "class Mine(Task)"]),
        ("Mine = 3", ["is not a Task", "derive it"]),
        ("\n1 / 0", ["ZeroDivisionError: division by zero", "mine.py:2"]),
        ("import helpers_of_nobody", ["ModuleNotFoundError", "helpers_of_nobody", "mine.py:1"]),
        ("def f(:", ["SyntaxError", "line 1"]),
        ("import sys; sys.exit('bye')", ["SystemExit: bye"]),
        (MINE + "    def build(self):\n        raise KeyError('leg')", ["KeyError: 'leg'", "mine.py:7"]),
        (MINE.replace('"mine"', '"../mine"'), ["name = '../mine'"]),
        (MINE.replace('"mine"', '"reacher"'), ["'reacher' is the name of another task"]),
        (MINE + "    goal = (Reacher.goal[0])", ["goal is not a tuple of Field", "comma"]),
        (
            "from teachers.tasks import Task\nclass Mine(Task):\n    name = 'mine'",
            ["lacks summary, observation", "camera", "build", "sample_goal"],
        ),
    ],
)  # fmt: skip
def test_load_file_describes_errors_in_one_line(tmp_path, text, words) -> None:
    file = tmp_path / "mine.py" if text is None else write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        get_task(f"{file}:Mine")
    message = str(caught.value)
    assert "\n" not in message
    assert str(file) in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("reference", ["mine.py", "mine.py:", "mine.py:a b", "a\0.py:Mine"])
def test_absolute_reference_refuses_reference_without_class(reference) -> None:
    with pytest.raises(InputError, match=r"write it as FILE\.py:Class"):
        get_task(reference)


def test_load_file_runs_corrected_file_again(tmp_path) -> None:
    file = write(tmp_path, "1 / 0")
    with pytest.raises(InputError):
        get_task(f"{file}:Mine")
    write(tmp_path)
    assert get_task(f"{file}:Mine").name == "mine"


def test_teacher_config_makes_reference_absolute_and_loads_nothing(tmp_path, monkeypatch) -> None:
    file = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = teacher_config("mine.py:Mine")
    assert config.task == f"{file}:Mine"
    (tmp_path / "config.toml").write_text(config.to_toml())
    monkeypatch.chdir(tmp_path.parent)
    assert teacher_config(f"{file}:Mine", tmp_path / "config.toml") == config
    with pytest.raises(InputError, match=r"is for task .*, not 'reacher'"):
        teacher_config("reacher", tmp_path / "config.toml")
    assert TeacherConfig(task="/nowhere/x.py:X").task == "/nowhere/x.py:X"


# What an artefact may name.


def forget_modules(monkeypatch) -> None:
    """Forgets what was loaded, as a new process on the same machine would."""
    monkeypatch.setattr(load, "_tasks", {})
    monkeypatch.setattr(load, "_modules", {})


def write_traced(folder):
    """Writes a task's file that creates the file `ran` when it runs."""
    return write(folder, f"{MINE}open({str(folder / 'ran')!r}, 'w').close()\n")


def test_reopen_task_runs_file_that_user_has_named(tmp_path, monkeypatch) -> None:
    source = get_task(f"{write(tmp_path)}:Mine").source
    forget_modules(monkeypatch)
    assert reopen_task("mine", source) is get_task(source)


@pytest.mark.parametrize("change", ["never named", "changed", "moved"])
def test_reopen_task_refuses_other_files(tmp_path, monkeypatch, change) -> None:
    file = write_traced(tmp_path)
    if change != "never named":
        get_task(f"{file}:Mine")
        forget_modules(monkeypatch)
        (tmp_path / "ran").unlink()
    if change == "changed":
        file.write_text(file.read_text() + "# more\n")
    if change == "moved":
        file = file.rename(tmp_path / "elsewhere.py")
    with pytest.raises(
        InputError, match=r"task 'mine': \S+ has changed or was never .* --task FILE"
    ):
        reopen_task("mine", f"{file}:Mine")
    assert not (tmp_path / "ran").exists()


def test_reopen_task_does_not_take_name_for_file(tmp_path) -> None:
    file = write_traced(tmp_path)
    with pytest.raises(InputError, match="unknown task"):
        reopen_task(f"{file}:Mine", "")
    with pytest.raises(InputError, match="there is no file"):
        reopen_task("mine", os.path.relpath(f"{file}:Mine"))
    with pytest.raises(InputError, match="there is no file"):
        reopen_task("mine", "nonsense")
    assert not (tmp_path / "ran").exists()


def test_load_file_works_without_cache_and_reopen_task_refuses(tmp_path, monkeypatch) -> None:
    (tmp_path / "flat").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "flat"))
    source = get_task(f"{write(tmp_path)}:Mine").source
    assert reopen_task("mine", source).name == "mine"  # it has run in this process
    forget_modules(monkeypatch)
    with pytest.raises(InputError, match="--task"):
        reopen_task("mine", source)


# Installed packages.


def install(monkeypatch, **values: str) -> None:
    points = [EntryPoint(n.rstrip("_"), v, load.ENTRY_POINTS) for n, v in values.items()]

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr(load, "entry_points", entry_points)


def test_get_task_finds_installed_task(monkeypatch) -> None:
    install(monkeypatch, cart="examples.cart:Cart")
    task = get_task("cart")
    assert task is get_task("cart") is reopen_task("cart", "")
    assert (task.name, task.source) == ("cart", "")
    assert task_names()[0] == "reacher"
    assert task_names()[-1] == "cart"
    with pytest.raises(InputError, match="did you mean 'cart'"):
        get_task("kart")
    assert absolute_reference("cart") == "cart"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trolley": "examples.cart:Cart"}, "gives a task named 'cart'; give both the same name"),
        ({"trolley": "examples.cart:Nothing"}, "AttributeError"),
        ({"trolley": "package_of_nobody:Cart"}, "ModuleNotFoundError"),
        ({"trolley": "examples.cart:REACH"}, "is not a Task"),
        ({"trolley": "a:A", "trolley_": "b:B"}, "offered by a:A and by b:B"),
    ],
)
def test_load_installed_describes_errors_in_one_line(monkeypatch, values, words) -> None:
    install(monkeypatch, **values)
    with pytest.raises(InputError, match=words) as caught:
        get_task("trolley")
    assert "\n" not in str(caught.value)


def test_get_task_prefers_shipped_names_and_refuses_duplicates(monkeypatch, tmp_path) -> None:
    install(monkeypatch, reacher="examples.cart:Cart", mine="examples.cart:Cart")
    assert type(get_task("reacher")).__name__ == "Reacher"
    with pytest.raises(InputError, match="'mine' is the name of another task"):
        get_task(f"{write(tmp_path)}:Mine")
