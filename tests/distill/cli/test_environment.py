"""Commands where the environment lacks something: a device, a home directory, UTF-8, or open standard streams."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
import pytest
import typer
from commands import assert_refused, run
from onnx_edits import find_entry, load_fixture, set_entry
from typer.testing import CliRunner

from distill.cli import app, terminal
from export import verify
from export.share.archive import unpack
from export.verify import Check

TESTS = Path(__file__).parents[2]
ARCHIVE = TESTS / "fixtures" / "format-4" / "teacher.zip"
POLICY = TESTS / "fixtures" / "contract-1" / "policy.onnx"
MAIN = "from distill.cli import main; main()"
# Runs commands one after the other, and prints the exit code, stdout and stderr of each. Pictures are drawn by
# matplotlib, which keeps caches of its own.
RUN_ALL = """
import json, sys
from typer.testing import CliRunner
from distill.cli import app
results = []
for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, arguments)
    results.append([result.exit_code, result.stdout, result.stderr])
    if "--help" not in arguments:
        from teachers.simulation import render
        render.GL_BACKENDS = ()
print(json.dumps(results))
print(json.dumps(sorted(sys.modules)))
"""


def run_all(commands, variables, *, user=(), folder=None):
    """Runs commands in one process.

    Args:
        commands: the arguments of each.
        variables: environment variables that are set, or removed where they are None.
        user: the program that starts the process as another user, with its arguments.
        folder: the working directory.

    Returns:
        The exit code, stdout and stderr of each command, and the modules that were imported.
    """
    arguments = [[str(argument) for argument in command] for command in commands]
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [*user, sys.executable, "-c", RUN_ALL, json.dumps(arguments)],
        env={name: value for name, value in environment.items() if value is not None},
        cwd=folder, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    results, modules = done.stdout.splitlines()
    return json.loads(results), json.loads(modules)


def all_commands() -> list[str]:
    """Returns every command as it is typed."""
    names = []
    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        names += [f"{name} {each}" for each in inner] if inner else [name]
    return names


def test_help_of_every_command_needs_no_jax() -> None:
    commands = [[*name.split(), "--help"] for name in all_commands()]
    results, modules = run_all(commands, {"JAX_PLATFORMS": "cuda", "HOME": None})
    for code, stdout, stderr in results:
        assert (code, stderr) == (0, "")
        assert "Example:" in stdout
    assert not {"jax", "numpy"} & set(modules)


@pytest.mark.slow
def test_every_command_names_jax_platforms_without_backend(tmp_path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    unpack(ARCHIVE, run)
    commands = [
        ["tasks"],
        ["tasks", "--check", "reacher"],
        ["train-teacher", "reacher", "--out", out],
        ["train-teacher", "reacher", "--estimate"],
        ["sweep", "cpu/depth", "--out", out],
        ["distill", run, "--out", out],
        ["compare", run, "--out", out],
        ["export", run, "--out", out],
        ["verify", POLICY],
        ["verify", POLICY, "--against", run],
        ["evaluate", run],
        ["evaluate", POLICY],
        ["play", run],
        ["play", POLICY],
        ["info", run],
        ["demo", "--out", out],
        ["share", "pack", run, "--out", out],
        ["share", "push", run, "ada/reach"],
    ]
    without_device = [
        ["info", POLICY],
        ["info", ARCHIVE],
        ["sweep", "cpu/depth", "--dry-run"],
        ["share", "unpack", ARCHIVE, "--out", tmp_path / "unpacked"],
    ]
    offline = [["share", "pull", "ada/reach", "--out", out]]  # needs the hub, and no device
    tested = {" ".join(map(str, command)) for command in commands + without_device + offline}
    for name in all_commands():
        assert any(command.startswith(name) for command in tested), name

    # A name that JAX knows, and one that it does not, which fail in different ways.
    for platform, some in (("cuda", commands), ("cdua", commands[:1])):
        results, _ = run_all(some, {"JAX_PLATFORMS": platform})
        for command, (code, stdout, stderr) in zip(some, results, strict=True):
            assert (code, stdout) == (2, ""), (command, stdout, stderr)
            assert stderr.startswith(f"error: JAX_PLATFORMS={platform}: ")
            assert stderr.endswith("; set JAX_PLATFORMS=cpu, or unset it to let JAX choose\n")
            assert len(stderr.splitlines()) == 1
    assert not out.exists()
    results, _ = run_all(without_device, {"JAX_PLATFORMS": "cuda"})
    assert [(code, stderr) for code, _, stderr in results] == [(0, "")] * len(without_device)


@pytest.fixture
def open_folder():
    """A folder in which every user may write."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        shutil.copy(TESTS / "examples" / "cart.py", folder)
        yield Path(folder)


# A user without a name, who may read everything, as this machine's Python may lie in a folder of another user, and
# write only what is their own.
NOBODY = (
    *("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
can_be_nobody = (
    shutil.which("setpriv")
    and subprocess.run([*NOBODY, "true"], capture_output=True, check=False).returncode == 0
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("user", "variables", "reason"),
    [
        pytest.param(
            *((), {"XDG_CACHE_HOME": str(ARCHIVE)}, f"{ARCHIVE}/crl-distill/jax: Not a directory"),
            marks=pytest.mark.slow,
        ),
        (NOBODY, {"HOME": None}, "there is no home directory"),
        pytest.param(
            *(NOBODY, {"HOME": "/"}, "/.cache/crl-distill/jax: Permission denied"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_commands_go_on_without_cache(open_folder, user, variables, reason) -> None:
    if user and not can_be_nobody:
        pytest.skip("needs root, and setpriv (util-linux), to become another user")
    caches = {"XDG_CACHE_HOME": None, "JAX_COMPILATION_CACHE_DIR": None, "MPLCONFIGDIR": None}
    results, _ = run_all(
        [
            ["share", "unpack", ARCHIVE, "--out", "run"],
            ["info", "run"],
            ["tasks", "cart.py:Cart", "--image", "cart.png"],
        ],
        caches | variables, user=user, folder=open_folder,
    )  # fmt: skip
    for code, stdout, stderr in results:
        assert code == 0, stderr
        assert stdout
        first, *others = stderr.splitlines()
        assert (
            f"not kept for the next command ({reason}); to keep them, set XDG_CACHE_HOME" in first
        )
        assert all(line.startswith("cart.png: drawn by matplotlib") for line in others)
    assert sorted(path.name for path in open_folder.iterdir()) == ["cart.png", "cart.py", "run"]


@pytest.mark.parametrize("ok", [True, False])
def test_verify_in_ascii_has_exit_code_of_its_checks(monkeypatch, ok) -> None:
    def check(*_, **__):
        yield Check("latency", ok, {"p50": 12.5})

    monkeypatch.setattr(verify, "verify", check)
    result = CliRunner(charset="ascii").invoke(app, ["verify", str(POLICY)])
    assert result.exit_code == (0 if ok else 1)
    assert result.stdout == f"{'ok' if ok else 'FAILED':6} latency: p50 12.5 ?s\n"


def test_files_are_written_in_utf8_under_every_locale(tmp_path) -> None:
    # A store in memory stands for clouds, where `epath` leaves the encoding of text to the locale.
    program = f"""
import sys
import fsspec
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from teachers.runs.outputs import read_marker, write_atomically
assert sys.getfilesystemencoding() == "ascii", sys.getfilesystemencoding()
fsspec.register_implementation("hf", MemoryFileSystem, clobber=True)
for folder in (epath.Path({str(tmp_path)!r}), epath.Path("hf://bucket/run")):
    write_atomically(folder / "mark", "\\u03c0")
    assert (folder / "mark").read_bytes() == b"\\xcf\\x80"
    assert read_marker(folder, "mark", "a test") == "\\u03c0"
"""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program], env={**os.environ, **locale}, check=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "caf\udce9"], ["caf", "does not exist"]),
        (["evaluate", "caf\udce9.onnx"], ["caf", "does not exist"]),
        (["tasks", "caf\udce9.py:Cart"], ["caf", "is not UTF-8", "rename it"]),
        (["train-teacher", "reacher", "--out", "caf\udce9"], ["caf", "is not UTF-8", "rename it"]),
        (["tasks", "\x1b]0;x\x07\u202e"], [r"\x1b]0;x\x07\u202e"]),
        (["info", "a\nerror: b"], ["a error: b"]),
        (["--\x1b[2J"], [r"--\x1b[2J"]),
        (["tasks", "[/red]"], ["[/red]"]),
    ],
)
def test_commands_print_names_of_any_characters(tmp_path, monkeypatch, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*arguments), *words)
    assert not list(tmp_path.iterdir())


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        app(arguments)
    return ended.value.code


def test_command_ends_quietly_where_nobody_reads(monkeypatch, capfd) -> None:
    for arguments in (["tasks", "reacher"], ["tasks", "reacher", "--json"], ["--help"]):
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "w", encoding="utf-8") as unread, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", unread)
            patch.setattr(sys, "stderr", sys.stderr)  # Typer replaces both
            assert exit_code(*arguments) == 141
            terminal.discard(unread)
        assert capfd.readouterr() == ("", "")


def test_command_fails_where_results_cannot_be_written(monkeypatch, capfd) -> None:
    for arguments in (["tasks", "reacher"], ["tasks", "reacher", "--json"]):
        with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", full)
            assert exit_code(*arguments) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1


def test_command_raises_broken_pipe_that_is_not_its_output(monkeypatch) -> None:
    def fail(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("teachers.tasks.registry.get_task", fail)
    with contextlib.redirect_stderr(sys.stderr):
        result = run("tasks", "reacher")
    assert isinstance(result.exception, BrokenPipeError)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_command_runs_with_closed_streams(closed) -> None:
    script = f'exec "$0" -c "{MAIN}" --help {closed}'
    done = subprocess.run(["sh", "-c", script, sys.executable], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (done.stdout == "") == (">&- " in f"{closed} ".replace("2>&-", ""))


def test_commands_show_hostile_file_as_text(tmp_path) -> None:
    model = load_fixture()
    inputs = json.loads(find_entry(model, "inputs").value)
    inputs["observation"][0]["meaning"] = "angle [rad] [/b] <b> \x1b]0;x\x07\u202e"
    set_entry(model, "inputs", inputs)
    set_entry(model, "task", "[red]\x1b[2J")
    onnx.save(model, tmp_path / "policy.onnx")
    info = run("info", tmp_path / "policy.onnx")
    assert info.exit_code == 0
    assert r"| angle [rad] [/b] \<b> \x1b]0;x\x07\u202e |" in info.stdout
    verified = run("verify", tmp_path / "policy.onnx")
    assert verified.exit_code == 1
    assert r"unknown task '[red]\x1b[2J'" in verified.stdout
    for printed in (info.stdout, verified.stdout):
        assert terminal.show_controls(printed) == printed
