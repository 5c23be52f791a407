import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import set_options
from tiny import TEACHER

from teachers import InputError, load_teacher
from teachers.runs import lock
from teachers.runs.errors import SaveError
from teachers.runs.layout import LOCK
from teachers.runs.lock import lock_folder, require_lock

HOLD = """
import sys, time
from teachers.runs.lock import lock_folder
with lock_folder(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "PATIENCE", 1.0)
    monkeypatch.setattr(lock, "SETTLE", 0.3)


@pytest.fixture
def no_kernel_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a file system without such locks, where the content of the file alone tells."""

    def refuse(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)


def _write_lock_of(kernel: str, folder: Path) -> None:
    folder.mkdir()
    content = {"host": "elsewhere", "process": 7, "kernel": kernel, "token": "x", "beat": 1}
    (folder / LOCK).write_text(json.dumps(content), encoding="utf-8")


def test_lock_folder_creates_folder_and_leaves_no_lock(tmp_path: Path) -> None:
    run = tmp_path / "a" / "run"
    with lock_folder(run):
        assert (run / LOCK).exists()
        (run / "result").touch()
    assert [path.name for path in run.iterdir()] == ["result"]


def test_lock_folder_refuses_second_owner_and_names_first(tmp_path: Path) -> None:
    with (
        lock_folder(tmp_path),
        pytest.raises(InputError, match=f"is being written by process {os.getpid()} on "),
        lock_folder(tmp_path),
    ):
        pass
    with lock_folder(tmp_path):
        pass


def test_lock_folder_takes_lock_of_killed_process_at_once(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match=f"process {owner.pid} "), lock_folder(tmp_path):
        pass
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert (tmp_path / LOCK).exists()
    with lock_folder(tmp_path):
        pass


@pytest.mark.usefixtures("short_times")
def test_lock_folder_refuses_lock_that_another_machine_writes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _write_lock_of("another kernel", folder)

    def write_again() -> None:
        time.sleep(0.2)
        text = (folder / LOCK).read_text(encoding="utf-8").replace('"beat": 1', '"beat": 2')
        (folder / LOCK).write_text(text, encoding="utf-8")

    with ThreadPoolExecutor() as threads:
        threads.submit(write_again)
        with pytest.raises(InputError, match="by process 7 on elsewhere"), lock_folder(folder):
            pass


@pytest.mark.usefixtures("short_times")
def test_lock_folder_takes_lock_that_no_machine_writes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _write_lock_of("another kernel", folder)
    with lock_folder(folder):
        assert json.loads((folder / LOCK).read_text(encoding="utf-8"))["process"] == os.getpid()


@pytest.mark.usefixtures("short_times")
def test_lock_folder_takes_damaged_lock(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_bytes(b"\xff{".ljust(lock.LOCK_BYTES))
    with lock_folder(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text(encoding="utf-8"))["process"] == os.getpid()


@pytest.mark.parametrize("content", [b"\xff{", b'{"name": "of another tool"}', b"x" * 600])
def test_lock_folder_leaves_files_that_are_no_locks(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK).write_bytes(content)
    with pytest.raises(InputError, match=r"is not a lock of crl-distill"), lock_folder(tmp_path):
        pass
    assert (tmp_path / LOCK).read_bytes() == content


@pytest.mark.parametrize("is_there", [True, False])
def test_lock_folder_does_not_follow_links(tmp_path: Path, is_there: bool) -> None:
    target, folder = tmp_path / "target", tmp_path / "run"
    folder.mkdir()
    if is_there:
        target.write_text("precious", encoding="utf-8")
    (folder / LOCK).symlink_to(target)
    with pytest.raises(InputError, match=r"is not a lock of crl-distill"), lock_folder(folder):
        pass
    assert target.read_text(encoding="utf-8") if is_there else not target.exists()
    assert (folder / LOCK).is_symlink()


@pytest.mark.parametrize("create", [os.mkdir, os.mkfifo])
def test_lock_folder_refuses_what_is_no_file(tmp_path: Path, create: Callable) -> None:
    create(tmp_path / LOCK)
    with pytest.raises(InputError, match=r"is not a lock of crl-distill"), lock_folder(tmp_path):
        pass


@pytest.mark.usefixtures("short_times", "no_kernel_locks")
def test_lock_folder_has_one_owner_without_locks_of_the_kernel(tmp_path: Path) -> None:
    def hold(number: int) -> bool:
        try:
            with lock_folder(tmp_path):
                time.sleep(1)
                return True
        except InputError:
            return False

    with ThreadPoolExecutor() as threads:
        assert sum(threads.map(hold, range(4))) == 1


@pytest.mark.usefixtures("short_times")
def test_lock_folder_flushes_beats_where_the_kernel_does_not_decide(tmp_path, monkeypatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(lock.os, "fsync", flushed.append)
    for is_shared in (False, True):
        monkeypatch.setattr(lock, "_is_shared", lambda _, value=is_shared: value)
        with lock_folder(tmp_path):
            pass
        assert bool(flushed) == is_shared


@pytest.mark.usefixtures("short_times")
def test_require_lock_notices_that_another_process_took_the_folder(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        require_lock(tmp_path)
        text = (tmp_path / LOCK).read_text(encoding="utf-8")
        content = {**json.loads(text), "token": "of another", "process": 7}
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not lock.lock_is_lost(tmp_path):
            (tmp_path / LOCK).write_text(json.dumps(content).ljust(len(text)), encoding="utf-8")
            time.sleep(0.01)
        with pytest.raises(SaveError, match="was taken over by another process"):
            require_lock(tmp_path / "unfinished")
    assert (tmp_path / LOCK).exists()  # it is the other's


@pytest.mark.usefixtures("short_times")
@pytest.mark.parametrize("has_kernel_locks", [True, False])
def test_require_lock_notices_that_another_process_took_the_folder_and_ended(
    tmp_path, has_kernel_locks, request
) -> None:
    if not has_kernel_locks:
        request.getfixturevalue("no_kernel_locks")
    with lock_folder(tmp_path):
        (tmp_path / LOCK).unlink()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not lock.lock_is_lost(tmp_path):
            time.sleep(0.01)
        with pytest.raises(SaveError, match="was taken over by another process"):
            require_lock(tmp_path)
    assert not (tmp_path / LOCK).exists()


RACE = """
import sys
from teachers import InputError, load_teacher
from teachers.runs.lock import lock_folder
print("ready", flush=True)
for line in sys.stdin:
    try:
        with lock_folder(line.strip()):
            print("owner", flush=True)
            sys.stdin.readline()
    except InputError:
        print("refused", flush=True)
        sys.stdin.readline()
"""


@pytest.mark.slow
def test_lock_folder_has_one_owner_in_fifty_races(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]

    def tell(line: str) -> None:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(line + "\n")
            racer.stdin.flush()

    def answers() -> list[str]:
        return sorted(racer.stdout.readline().strip() for racer in racers if racer.stdout)

    assert answers() == ["ready", "ready"]
    for number in range(50):
        folder = tmp_path / str(number)
        tell(str(folder))
        assert answers() == ["owner", "refused"]
        tell("")
    for racer in racers:
        racer.communicate()
        assert racer.returncode == 0
    assert not list(tmp_path.rglob(LOCK))


@pytest.mark.slow
def test_train_teacher_started_twice_trains_once(tmp_path: Path) -> None:
    run, code = tmp_path / "run", "from distill.cli import main; main()"
    commands = [
        [sys.executable, "-c", code, "train-teacher", "reacher", "--out", run, "--seed", str(seed)]
        for seed in (1, 2)
    ]
    settings = set_options({**TEACHER, "steps": 4_000})
    processes = [
        subprocess.Popen([*command, *settings], stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    errors = [process.communicate(timeout=600)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 2], errors
    loser, winner = codes.index(2), codes.index(0)
    assert "is being written by process" in errors[loser]
    assert load_teacher(run).config.seed == winner + 1


@pytest.mark.usefixtures("short_times")
def test_lock_folder_goes_on_if_owner_ends_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _write_lock_of("another kernel", folder)
    with ThreadPoolExecutor() as threads:
        threads.submit(lambda: (time.sleep(0.2), (folder / LOCK).unlink()))
        with lock_folder(folder):
            assert json.loads((folder / LOCK).read_text(encoding="utf-8"))["process"] == os.getpid()
            with pytest.raises(InputError, match="is being written"), lock_folder(folder):
                pass


@pytest.mark.usefixtures("short_times")
def test_lock_folder_does_not_trust_the_kernel_on_shared_disks(tmp_path, monkeypatch) -> None:
    """There, another machine or container may have the same lock of its own kernel."""
    folder = tmp_path / "run"
    _write_lock_of(lock._kernel(), folder)
    monkeypatch.setattr(lock, "_is_shared", lambda _: True)
    start = time.monotonic()
    with lock_folder(folder):
        waited = time.monotonic() - start
    assert waited >= lock.PATIENCE


def test_lock_folder_removes_only_a_folder_that_it_created_and_that_is_empty(tmp_path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("old", "new"):
        with pytest.raises(KeyboardInterrupt), lock_folder(tmp_path / name):
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


MOUNTS = """
22 1 254:0 / / rw - ext4 /dev/vda rw
23 22 0:21 / /home rw shared:2 - nfs4 server:/home rw,vers=4.2
24 22 0:22 / /mnt/my\\040bucket rw - fuse.gcsfuse lab rw
25 23 0:23 / /home/me/scratch rw - tmpfs none rw
""".strip()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/runs/a", "ext4"),
        ("/home/me/runs", "nfs4"),
        ("/homes", "ext4"),
        ("/mnt/my bucket/a", "fuse.gcsfuse"),
        ("/home/me/scratch", "tmpfs"),
    ],
)
def test_file_system_is_that_of_the_innermost_mount(path: str, kind: str) -> None:
    assert lock._file_system(path, MOUNTS) == kind
    assert kind.startswith(lock.SHARED_FILE_SYSTEMS) == (kind in ("nfs4", "fuse.gcsfuse"))
