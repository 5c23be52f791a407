"""Shared by all tests: checked array shapes, the compilation cache, and one tiny run of each kind."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import huggingface_hub
import jax
import jaxtyping
import pytest
from hub_server import Hub, serve_hub
from huggingface_hub import constants
from tiny import DISTILL, TEACHER

# Every annotated array of the packages is checked against its shape and type while tests run.
# Not those of the command line, whose annotations Typer reads.
DISTILLATION = (
    *("collect", "critic_losses", "critic_measures", "iteration", "label", "learn"),
    *("policy_losses", "programs", "retention", "ring", "run", "schedules", "scratch", "state"),
)
jaxtyping.install_import_hook(
    ["teachers", "students", *(f"distill.{name}" for name in DISTILLATION), "export"],
    "typecheck.checker",
).__enter__()

from teachers.process import use_compilation_cache  # noqa: E402 - after the hook, which checks this package too

use_compilation_cache()

UNOPTIMISED = ["--xla_backend_optimization_level=0"]
if jax.__version_info__ < (0, 11):
    UNOPTIMISED.append(
        "--xla_cpu_use_fusion_emitters=false"
    )  # compiles faster; JAX 0.11 rejects the flag


def pytest_configure(config: pytest.Config) -> None:
    """Turns off optimisations where tests compile for longer than they run."""
    if config.option.markexpr in ("not slow", "end_to_end"):
        flags = os.environ.get("XLA_FLAGS", "")
        new = [flag for flag in UNOPTIMISED if flag.partition("=")[0] not in flags]
        os.environ["XLA_FLAGS"] = " ".join([flags, *new]).strip()


@pytest.fixture(autouse=True, scope="session")
def handle_interruptions() -> Iterator[None]:
    """Lets Ctrl-C work in tests and in their subprocesses, also where a script in the background ignores it."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.fixture
def no_known_task_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forgets which task files the user has named, on this machine and in this process; returns the cache folder."""
    import jax

    from teachers.tasks import registry

    # Compiled programs stay where they are.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    forget_task_files(monkeypatch)
    # Tasks that are built already stay the same objects after the test.
    monkeypatch.setattr(registry, "_build_named", cache(registry._build_named.__wrapped__))
    return tmp_path / "caches" / "crl-distill"


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, it forgets the tasks' files that have run, as a new process does; what is on disk stays."""
    return lambda: forget_task_files(monkeypatch)


def forget_task_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from teachers.tasks import folder_code, load

    monkeypatch.setattr(load, "_tasks", {})
    monkeypatch.setattr(load, "_files", {})
    monkeypatch.setattr(folder_code, "_built", [])
    modules = dict(sys.modules)
    for name in modules:
        # A function of a task may have imported more of a package.
        package = name.partition(".")[0]
        if any(id(modules.get(each)) in folder_code._task_modules for each in (name, package)):
            del sys.modules[name]


@pytest.fixture(autouse=True, scope="session")
def shared_programs() -> Iterator[None]:
    """Lets trainings and distillations with the same settings share their compiled programs.

    Compiling takes most of the time of a short run.
    """
    from distill import run
    from distill.programs import DistillPrograms
    from teachers import train
    from teachers.crl.training_programs import teacher_programs
    from teachers.sweeps import sweep

    trainings, distillations = [], []

    def find_or_create_training(config, seeds=1):
        for programs in trainings:
            if programs.can_train(config, seeds):
                return programs
        trainings.append(teacher_programs(config, seeds))
        return trainings[-1]

    def find_or_create_distillation(config, teacher):
        for programs in distillations:
            if programs.can_distill(config, teacher):
                return programs
        distillations.append(DistillPrograms(config, teacher))
        return distillations[-1]

    with pytest.MonkeyPatch.context() as patch:
        for module in (train, sweep):
            patch.setattr(module, "teacher_programs", find_or_create_training)
        patch.setattr(run, "DistillPrograms", find_or_create_distillation)
        yield


@pytest.fixture(scope="session")
def tiny_programs():
    """The compiled programs of the trainings with the settings `TEACHER`."""
    from teachers import teacher_config, train

    return train.teacher_programs(teacher_config("reacher", overrides=TEACHER))


@pytest.fixture(scope="session")
def tiny_distill_programs(teacher):
    """The compiled programs of the distillations of the tiny teacher with the settings `DISTILL`."""
    from distill import distill_config, run

    return run.DistillPrograms(distill_config(overrides=DISTILL), teacher)


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from teachers import teacher_config, train_teacher

    def create(run: Path) -> None:
        train_teacher(teacher_config("reacher", overrides=TEACHER), run)

    return create_once(tmp_path_factory, "teacher", create)


@pytest.fixture(scope="session")
def teacher(teacher_run: Path, tiny_programs):
    """The teacher of `teacher_run`; its evaluations share the compiled programs of its training."""
    from teachers import load_teacher

    return replace(load_teacher(teacher_run), networks=tiny_programs.networks)


@pytest.fixture(scope="session")
def student_run(tmp_path_factory: pytest.TempPathFactory, teacher) -> Path:
    from distill import distill_config, distill_teacher

    def create(run: Path) -> None:
        distill_teacher(teacher, distill_config(overrides=DISTILL), run, force=True)

    return create_once(tmp_path_factory, "student", create)


@pytest.fixture(scope="session")
def student(student_run: Path, tiny_distill_programs):
    """The student of `student_run`; its evaluations share the compiled programs of its distillation."""
    from students import load_student

    return replace(load_student(student_run), networks=tiny_distill_programs.networks)


@pytest.fixture(scope="session")
def export_folder(tmp_path_factory: pytest.TempPathFactory, student) -> Path:
    from export import export_student

    def create(folder: Path) -> None:
        export_student(student, folder)

    return create_once(tmp_path_factory, "export", create)


def create_once(factory: pytest.TempPathFactory, name: str, create: Callable[[Path], None]) -> Path:
    """Returns a folder that one of the processes of a test session creates, and that no test may change.

    Args:
        factory: of the session's folders.
        name: of the folder.
        create: creates it.
    """
    session = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    shared = session / "shared"
    shared.mkdir(exist_ok=True)
    finished = shared / f"{name}.finished"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            create(shared / name)
            finished.touch()
    return shared / name


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in of the Hugging Face hub, in place of the real one; the user is logged in as ada."""
    with serve_hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", "hf_ada")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        # These are read from the environment when huggingface_hub is imported.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            constants, "HF_TOKEN_PATH", str(tmp_path_factory.mktemp("hub") / "token")
        )
        # Whatever does not go to the endpoint that we give reaches nobody.
        nobody = "http://127.0.0.1:9"
        files = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, nobody)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "ENDPOINT", nobody)
        huggingface_hub.close_session()  # it reads the proxy's settings when it is opened
        yield served
        huggingface_hub.close_session()
