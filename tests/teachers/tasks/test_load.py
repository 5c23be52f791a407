"""Tasks from files and installed packages, and which files an artefact may name."""

import importlib.util
import os
import pickle
import py_compile
import shutil
import subprocess
import sys
import types
import zipfile
from hashlib import sha256
from importlib.metadata import EntryPoint

import pytest

from teachers import InputError, get_task, teacher_config
from teachers.config import TeacherConfig
from teachers.runs.metadata import Metadata
from teachers.tasks import absolute_reference, load
from teachers.tasks.load import describe_origin
from teachers.tasks.registry import open_task, reopen_task, task_names

MINE = """
from teachers.tasks.reacher import Reacher

class Mine(Reacher):
    name = "mine"
"""


@pytest.fixture(autouse=True)
def _fresh(no_known_task_files) -> None:
    """Starts every test on a machine where no file was named."""


def write(folder, text: str = MINE, name: str = "mine.py"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_load_file_builds_one_task_for_all_spellings_of_path(tmp_path, monkeypatch) -> None:
    file = write(tmp_path)
    task = get_task(f"{file}:Mine")
    assert task.name == "mine"
    assert task.source == f"{file}:Mine"
    assert task.source_digest == sha256(file.read_bytes()).hexdigest()
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


def test_teacher_config_writes_name_of_file_and_loads_nothing(tmp_path, monkeypatch) -> None:
    file = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = teacher_config("mine.py:Mine")
    assert config.task == f"{file}:Mine"
    assert config.model_dump()["task"] == "mine.py:Mine"
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert str(tmp_path) not in config.to_toml()
    monkeypatch.chdir(tmp_path.parent)
    assert teacher_config(f"{file}:Mine", tmp_path / "config.toml") == config
    with pytest.raises(InputError, match=r"is for task 'mine.py:Mine', not 'reacher'"):
        teacher_config("reacher", tmp_path / "config.toml")
    assert TeacherConfig(task="/nowhere/x.py:X").task == "/nowhere/x.py:X"


# What a task's file imports.


def test_load_file_separates_imports_from_those_of_the_program(tmp_path, monkeypatch) -> None:
    others = types.ModuleType("lengths_of_mine")
    others.__file__, others.STEPS = str(tmp_path / "elsewhere" / "lengths_of_mine.py"), 99
    monkeypatch.setitem(sys.modules, "lengths_of_mine", others)
    write(tmp_path, "STEPS = 7", "lengths_of_mine.py")
    text = f"import lengths_of_mine\n{MINE}    episode_steps = lengths_of_mine.STEPS\n"
    assert get_task(f"{write(tmp_path, text)}:Mine").episode_steps == 7
    assert sys.modules["lengths_of_mine"] is others


def test_load_file_leaves_imports_for_later(tmp_path) -> None:
    write(tmp_path, "class Length: pass", "lengths_of_mine.py")
    late = "        import lengths_of_mine\n        return lengths_of_mine.Length()\n"
    text = f"import lengths_of_mine\n{MINE}    def late(self):\n{late}"
    task = get_task(f"{write(tmp_path, text)}:Mine")
    assert type(pickle.loads(pickle.dumps(task.late()))) is type(task.late())


def test_load_file_does_not_find_imports_of_another_folder(tmp_path) -> None:
    write(tmp_path / "one", "", "lengths_of_mine.py")
    text = f"import lengths_of_mine\n{MINE}"
    get_task(f"{write(tmp_path / 'one', text)}:Mine")
    with pytest.raises(InputError, match="ModuleNotFoundError: No module named 'lengths_of_mine'"):
        get_task(f"{write(tmp_path / 'two', text)}:Mine")


def test_load_file_leaves_no_module_that_two_folders_have(tmp_path) -> None:
    late = f"import lengths_of_mine\n{MINE}    def late(self):\n        import lengths_of_mine\n"
    tasks = []
    for i in (1, 2):
        write(tmp_path / f"robot{i}", "", "lengths_of_mine.py")
        tasks.append(get_task(f"{write(tmp_path / f'robot{i}', late)}:Mine"))
        if i == 1:
            tasks[0].late()
    for task in tasks:  # rather than that of the other folder
        with pytest.raises(ModuleNotFoundError):
            task.late()


# What an artefact may name.


def write_traced(folder, text: str = MINE):
    """Writes a task's file that creates the file `ran` when it runs."""
    return write(folder, f"open({str(folder / 'ran')!r}, 'w').close()\n{text}")


def reopen(origin):
    return reopen_task("mine", origin["task_source"], origin["task_digest"])


def test_reopen_task_runs_file_that_user_has_named(tmp_path, new_process) -> None:
    origin = describe_origin(get_task(f"{write(tmp_path)}:Mine"))
    assert origin["task_source"] == "mine.py:Mine"
    new_process()
    task = reopen(origin)
    assert task is get_task(f"{tmp_path}/mine.py:Mine")
    assert task.source == f"{tmp_path}/mine.py:Mine"


def test_reopen_task_opens_artefact_of_early_version(tmp_path, new_process) -> None:
    source = get_task(f"{write(tmp_path)}:Mine").source
    new_process()
    assert reopen_task("mine", source) is get_task(source)


def test_reopen_task_finds_file_that_user_has_named_again(tmp_path, new_process) -> None:
    file = write(tmp_path)
    origin = describe_origin(get_task(f"{file}:Mine"))
    new_process()
    file.write_text(file.read_text() + "    episode_steps = 3\n")
    get_task(f"{file}:Mine")
    new_process()
    assert reopen(origin).episode_steps == 3


def test_reopen_task_finds_the_place_where_the_file_still_is(tmp_path, new_process) -> None:
    for name in ("one", "two"):
        origin = describe_origin(get_task(f"{write(tmp_path / name)}:Mine"))
        new_process()
    shutil.rmtree(tmp_path / "two")
    assert reopen(origin).source == f"{tmp_path}/one/mine.py:Mine"


@pytest.mark.parametrize("change", ["never named", "changed", "moved", "copied"])
def test_reopen_task_refuses_other_files(tmp_path, new_process, change) -> None:
    file = write_traced(tmp_path)
    digest = sha256(file.read_bytes()).hexdigest()
    if change != "never named":
        get_task(f"{file}:Mine")
        new_process()
        (tmp_path / "ran").unlink()
    origin = {"task_source": "mine.py:Mine", "task_digest": digest}
    words = {
        "never named": rf"mine\.py \(SHA-256 {digest}\) was never named on this machine",
        "changed": rf"{file} has changed or was never named",
        "moved": rf"{file} is missing",
        "copied": rf"elsewhere\.py \(SHA-256 {digest}\) was never named",
    }
    if change == "changed":
        file.write_text(file.read_text() + "# more\n")
    if change == "moved":
        file.rename(tmp_path / "elsewhere.py")
    if change == "copied":
        shutil.copy(file, tmp_path / "elsewhere.py")
        origin["task_source"] = "elsewhere.py:Mine"
    with pytest.raises(InputError, match=rf"task 'mine': \S*{words[change]}.* --task FILE"):
        reopen(origin)
    with pytest.raises(InputError, match="--task FILE"):  # as an early version named it
        reopen_task("mine", f"{tmp_path / 'other' / file.name}:Mine")
    assert not (tmp_path / "ran").exists()


IMPORTS = {
    "module": "import helper_of_mine",
    "package": "from parts_of_mine import arm",
    "namespace": "import space_of_mine.leg",
    "by path": """
import importlib.util
spec = importlib.util.spec_from_file_location("x", __file__.replace("mine.py", "helper_of_mine.py"))
spec.loader.exec_module(importlib.util.module_from_spec(spec))
""",
    "exec": 'exec(open(__file__.replace("mine.py", "helper_of_mine.py")).read())',
    "runpy": 'import runpy; runpy.run_path(__file__.replace("mine.py", "helper_of_mine.py"))',
    "other folder": """
import sys
sys.path.insert(0, __file__.replace("mine.py", "library"))
import deep_helper_of_mine
""",
}
HELPERS = {
    "helper_of_mine.py",
    "parts_of_mine/__init__.py",
    "parts_of_mine/arm.py",
    "parts_of_mine/later.py",
    "space_of_mine/leg.py",
    "library/deep_helper_of_mine.py",
}


def name_with_helpers(folder, imports: str, new_process, text: str = MINE) -> dict[str, str]:
    """Names a task that imports, as in a process before; returns its origin."""
    for helper in HELPERS:
        write((folder / helper).parent, "X = 1\n", (folder / helper).name)
    origin = describe_origin(get_task(f"{write_traced(folder, imports + text)}:Mine"))
    (folder / "ran").unlink()
    new_process()
    return origin


@pytest.mark.parametrize("imports", list(IMPORTS))
def test_reopen_task_runs_unchanged_imports(tmp_path, new_process, imports) -> None:
    origin = name_with_helpers(tmp_path, IMPORTS[imports], new_process)
    assert reopen(origin).name == "mine"
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("change", ["changed", "missing"])
@pytest.mark.parametrize(
    ("imports", "helper"),
    [
        ("module", "helper_of_mine.py"),
        ("package", "parts_of_mine/__init__.py"),
        ("package", "parts_of_mine/arm.py"),
        ("package", "parts_of_mine/later.py"),  # of a package, all can be imported later
        ("namespace", "space_of_mine/leg.py"),
        ("by path", "helper_of_mine.py"),
        ("exec", "helper_of_mine.py"),
        ("runpy", "helper_of_mine.py"),
        ("other folder", "library/deep_helper_of_mine.py"),
    ],
)
def test_reopen_task_runs_nothing_if_imports_changed(
    tmp_path, new_process, imports, helper, change
) -> None:
    origin = name_with_helpers(tmp_path, IMPORTS[imports], new_process)
    if change == "changed":
        (tmp_path / helper).write_text("X = 2\n")
    else:
        (tmp_path / helper).unlink()
    words = "has changed" if change == "changed" else "is missing"
    with pytest.raises(
        InputError, match=rf"{tmp_path / helper} {words} since .*mine\.py was named"
    ):
        reopen(origin)
    assert not (tmp_path / "ran").exists()
    if change == "changed":  # naming it says that the change is fine
        get_task(f"{tmp_path}/mine.py:Mine")
        new_process()
        assert reopen(origin).name == "mine"


def write_archive(file, text: str) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("packed_of_mine.py", "pack_of_mine/__init__.py", "pack_of_mine/part.py"):
            archive.writestr(name, text)


@pytest.mark.parametrize("ending", ["zip", "egg", "whl", "pyz", "bin"])
@pytest.mark.parametrize("module", ["packed_of_mine", "pack_of_mine.part"])
def test_reopen_task_covers_archives(tmp_path, new_process, ending, module) -> None:
    archive = tmp_path / f"lib.{ending}"
    write_archive(archive, "X = 1")
    imports = f"import sys\nsys.path.insert(0, {str(archive)!r})\nimport {module}\n"
    origin = name_with_helpers(tmp_path, imports, new_process)
    assert reopen(origin).name == "mine"
    new_process()
    write_archive(archive, "X = 2")
    with pytest.raises(InputError, match=rf"{archive} has changed since"):
        reopen(origin)


def test_reopen_task_does_not_read_new_archive(tmp_path, new_process) -> None:
    imports = "import glob, sys\nsys.path += glob.glob(__file__.replace('mine.py', '*.bin'))\n"
    late = "try:\n    import packed_of_mine\nexcept ImportError:\n    pass\n"
    origin = name_with_helpers(tmp_path, imports + late, new_process)
    write_archive(tmp_path / "lib.bin", f"open({str(tmp_path / 'helped')!r}, 'w')")
    with pytest.raises(InputError, match=r"lib\.bin is new since"):
        reopen(origin)
    assert not (tmp_path / "helped").exists()


READS = {
    "read and write": 'exec(open(__file__.replace("mine.py", "helper_of_mine.py"), "r+").read())',
    "other ending": """
import importlib.machinery, sys, types
loader = importlib.machinery.SourceFileLoader("told_of_mine", __file__.replace("mine.py", "told.txt"))
spec = importlib.util.spec_from_loader("told_of_mine", loader)
sys.modules["told_of_mine"] = importlib.util.module_from_spec(spec)
loader.exec_module(sys.modules["told_of_mine"])
""",
}


@pytest.mark.parametrize(
    ("read", "helper"), [("read and write", "helper_of_mine.py"), ("other ending", "told.txt")]
)
def test_reopen_task_covers_files_however_they_are_read(
    tmp_path, new_process, read, helper
) -> None:
    write(tmp_path, "X = 1\n", "told.txt")
    origin = name_with_helpers(tmp_path, READS[read], new_process)
    assert reopen(origin).name == "mine"
    new_process()
    write(tmp_path, "X = 2\n", helper)
    with pytest.raises(InputError, match=rf"{tmp_path / helper} has changed since"):
        reopen(origin)


def test_reopen_task_leaves_files_alone_that_the_code_writes(tmp_path, new_process) -> None:
    text = "import time\nfor mode in ('w', 'w+'):\n    open(__file__ + mode + '.py', mode).write(str(time.time_ns()))\n"
    origin = name_with_helpers(tmp_path, text, new_process)
    for _ in range(2):
        assert reopen(origin).name == "mine"
        new_process()


def test_reopen_task_covers_imports_with_a_cache_elsewhere(
    tmp_path, monkeypatch, new_process
) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "bytecode"))
    folder = tmp_path / "robot"
    plant_bytecode(write(folder, "X = 1\n", "helper_of_mine.py"), "X = 1\n")
    origin = name_with_helpers(folder, IMPORTS["module"], new_process)
    plant_bytecode(folder / "helper_of_mine.py", "1 / 0")
    assert reopen(origin).name == "mine"
    new_process()
    write(folder, "X = 2\n", "helper_of_mine.py")
    with pytest.raises(InputError, match=r"helper_of_mine\.py has changed since"):
        reopen(origin)


@pytest.mark.parametrize(
    ("imports", "appears"),
    [
        ("module", "helper_of_mine/__init__.py"),
        ("package", "parts_of_mine/new.py"),
        ("package", "parts_of_mine/arm/__init__.py"),
        ("namespace", "space_of_mine/__init__.py"),
        ("namespace", "space_of_mine.py"),
        ("other folder", "library/deep_helper_of_mine/__init__.py"),
    ],
)
def test_reopen_task_runs_nothing_if_code_appears_in_place_of_imports(
    tmp_path, new_process, imports, appears
) -> None:
    origin = name_with_helpers(tmp_path, IMPORTS[imports], new_process)
    write((tmp_path / appears).parent, "", (tmp_path / appears).name)
    with pytest.raises(InputError, match=rf"{tmp_path / appears} is new since"):
        reopen(origin)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("then", ["pass", "raise RuntimeError('no helper')", "raise SystemExit"])
def test_reopen_task_does_not_run_module_in_place_of_installed_one(
    tmp_path, new_process, then
) -> None:
    text = f"""
try:
    import found_of_mine
except ModuleNotFoundError:
    pass
except Exception:
    {then}
{MINE}"""
    origin = name_with_helpers(tmp_path, text, new_process)
    write(tmp_path, f"open({str(tmp_path / 'helped')!r}, 'w')", "found_of_mine.py")
    with pytest.raises(InputError, match=r"found_of_mine\.py is new since"):
        reopen(origin)
    assert not (tmp_path / "helped").exists()


def plant_bytecode(source, text: str) -> None:
    """Leaves bytecode of other code in the cache, which Python takes for that of the source without a look at it."""
    other = write(source.parent, text, "planted.txt")
    cached = importlib.util.cache_from_source(str(source))
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    assert py_compile.compile(str(other), cached, doraise=True, invalidation_mode=mode)


def test_reopen_task_does_not_run_cached_bytecode(tmp_path, new_process) -> None:
    origin = name_with_helpers(tmp_path, IMPORTS["module"], new_process)
    plant_bytecode(tmp_path / "helper_of_mine.py", "1 / 0")
    assert reopen(origin).name == "mine"


# What a task's functions import after it was built.

LATE = f"""
import parts_of_mine

class Late:
    def late(self):
        from parts_of_mine import later
        return later.X
{MINE.replace("(Reacher)", "(Late, Reacher)")}"""


@pytest.mark.parametrize("named", ["in this process", "before"])
def test_built_task_does_not_import_cached_bytecode(tmp_path, new_process, named) -> None:
    origin = name_with_helpers(tmp_path, "", new_process, LATE)
    task = get_task(f"{tmp_path}/mine.py:Mine") if named == "in this process" else reopen(origin)
    plant_bytecode(tmp_path / "parts_of_mine" / "later.py", "X = 'planted'")
    assert task.late() == 1


@pytest.mark.parametrize("change", ["has changed", "is new"])
def test_built_task_does_not_import_changed_code(tmp_path, new_process, change) -> None:
    origin = name_with_helpers(tmp_path, "", new_process, LATE)
    task = reopen(origin)
    later = tmp_path / "parts_of_mine" / "later.py"
    if change == "is new":
        later = tmp_path / "parts_of_mine" / "later" / "__init__.py"
    write(later.parent, "X = 2\n", later.name)
    with pytest.raises(InputError, match=rf"^{later} {change} since .*; name the file again$"):
        task.late()


def test_built_task_does_not_import_from_changed_archive(tmp_path, new_process) -> None:
    write_archive(tmp_path / "lib.egg", "X = 1")
    text = LATE.replace(
        "import parts",
        f"import sys\nsys.path.insert(0, {str(tmp_path / 'lib.egg')!r})\nimport parts",
    )
    text = text.replace("parts_of_mine", "pack_of_mine").replace("later", "part")
    origin = name_with_helpers(tmp_path, "", new_process, text)
    assert reopen(origin).late() == 1
    new_process()
    task = reopen(origin)
    write_archive(tmp_path / "lib.egg", "X = 2")
    importlib.invalidate_caches()  # which reads the list of the archive's files alone
    with pytest.raises(InputError, match=r"lib\.egg has changed since .*; name the file again"):
        task.late()


def test_built_task_may_import_what_user_changed_after_naming(tmp_path, new_process) -> None:
    name_with_helpers(tmp_path, "", new_process, LATE)
    task = get_task(f"{tmp_path}/mine.py:Mine")
    (tmp_path / "parts_of_mine" / "later.py").write_text("X = 2\n")
    assert task.late() == 2


def test_built_task_leaves_reading_and_other_imports_alone(tmp_path, new_process) -> None:
    origin = name_with_helpers(tmp_path, "", new_process, LATE)
    reopen(origin)
    write(tmp_path / "parts_of_mine", "X = 2\n", "later.py")
    assert (tmp_path / "parts_of_mine" / "later.py").read_text() == "X = 2\n"
    program = write(tmp_path, "X = 3\n", "program_of_mine.py")
    spec = importlib.util.spec_from_file_location("program_of_mine", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.X == 3
    with open(py_compile.compile(str(program)), "rb") as cached:
        assert cached.read(4) == importlib.util.MAGIC_NUMBER


@pytest.mark.slow
def test_built_task_does_not_disturb_reading_when_python_ends(tmp_path) -> None:
    program = f"""
import os, sys
from teachers import get_task

class Late:
    def __del__(self, open=open, write=os.write):
        open({str(tmp_path / "mine.py")!r}).close()
        write(1, b"read")

get_task("{write(tmp_path)}:Mine")
sys.kept_to_the_end = Late()
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("read", "")


def test_load_file_allows_what_an_artefact_named_before_must_not_import(
    tmp_path, new_process
) -> None:
    reopen(name_with_helpers(tmp_path, "", new_process, LATE))
    write(tmp_path / "parts_of_mine", "X = 2\n", "later.py")
    other = write(tmp_path, LATE, "other.py")
    assert get_task(f"{other}:Mine").late() == 2


def test_reopen_task_covers_imports_of_each_file_of_a_folder(tmp_path, new_process) -> None:
    write(tmp_path, "X = 1", "helper_of_mine.py")
    text = f"import helper_of_mine\n{MINE}"
    get_task(f"{write(tmp_path, text, 'first.py')}:Mine")
    origin = describe_origin(get_task(f"{write(tmp_path, text, 'second.py')}:Mine"))
    new_process()
    assert reopen(origin).name == "mine"  # although the module had been imported by the first


def test_reopen_task_leaves_installed_packages_and_data_alone(tmp_path, new_process) -> None:
    installed = tmp_path / ".venv" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    write(installed, "X = 1", "installed_of_mine.py")
    write(tmp_path, "<mujoco/>", "robot.xml")
    text = f"""
import sys
sys.path.append({str(installed)!r})
import installed_of_mine
open(__file__.replace("mine.py", "robot.xml")).close()
{MINE}"""
    origin = name_with_helpers(tmp_path, text, new_process)
    write(installed, "X = 2", "installed_of_mine.py")
    write(tmp_path, "<mujoco></mujoco>", "robot.xml")
    assert reopen(origin).name == "mine"


def test_reopen_task_does_not_take_name_for_file(tmp_path) -> None:
    file = write_traced(tmp_path)
    with pytest.raises(InputError, match="unknown task"):
        reopen_task(f"{file}:Mine", "")
    for source in (os.path.relpath(f"{file}:Mine"), "nonsense", "mine.py:Mine"):
        for digest in ("", "*", sha256(file.read_bytes()).hexdigest()):
            with pytest.raises(InputError, match="was never named"):
                reopen_task("mine", source, digest)
    assert not (tmp_path / "ran").exists()


def test_load_file_works_without_cache_and_reopen_task_refuses(
    tmp_path, monkeypatch, new_process
) -> None:
    (tmp_path / "flat").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "flat"))
    origin = describe_origin(get_task(f"{write(tmp_path)}:Mine"))
    assert reopen(origin).name == "mine"  # it has run in this process
    new_process()
    with pytest.raises(InputError, match="--task"):
        reopen(origin)


def test_open_task_names_the_file_that_is_used(tmp_path, new_process) -> None:
    file = write(tmp_path)
    origin = describe_origin(get_task(f"{file}:Mine"))
    other = {"networks": {}, "metrics": {}, "lineage": {}, "versions": {}}
    made = Metadata(kind="teacher", task="mine", **origin, config={"task": "mine.py:Mine"}, **other)
    assert open_task(made, None, "runs/a")[1] == made
    early = made.model_copy(
        update={
            "task_source": f"{file}:Mine",
            "task_digest": "",
            "config": {"task": f"{file}:Mine"},
        }
    )
    assert open_task(early, None, "runs/a")[1] == made
    file.write_text(file.read_text() + "# more")
    new_process()
    get_task(f"{file}:Mine")
    with pytest.warns(UserWarning, match=rf"{file} has changed since runs/a was made with it"):
        task, metadata = open_task(made, None, "runs/a")
    assert metadata.task_digest == task.source_digest == sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("record", ["", "{}", "[]", '{"file": 1, "digest": "", "files": {}}'])
def test_reopen_task_takes_damaged_record_for_none(
    tmp_path, no_known_task_files, new_process, record
) -> None:
    origin = describe_origin(get_task(f"{write(tmp_path)}:Mine"))
    (file,) = (no_known_task_files / "tasks").iterdir()
    file.write_text(record)
    new_process()
    with pytest.raises(InputError, match="was never named"):
        reopen(origin)


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
