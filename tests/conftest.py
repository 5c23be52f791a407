"""Shared by all tests: checked array shapes, the compilation cache, and one tiny run of each kind."""

import os
from pathlib import Path

import jax
import jaxtyping
import pytest

# Every annotated array of the packages is checked against its shape and type while tests run.
jaxtyping.install_import_hook(
    ["teachers", "students", "distill", "export"], "typecheck.checker"
).__enter__()

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "crl-distill" / "jax"
jax.config.update(
    "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(CACHE))
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# Small enough to compile and run in seconds; nothing is learned.
TEACHER = {
    **{f"{network}.depth": 8 for network in ("actor", "phi", "psi")},
    **{f"{network}.width": 8 for network in ("actor", "phi", "psi")},
    "embedding": 4,
    "rollout.environments": 4,
    "rollout.steps": 10,
    "rollout.replay_steps": 40,
    "learning.updates": 3,
    "learning.batch": 8,
    "logging.episodes": 8,
    "logging.evaluate_every": 2,
    "logging.checkpoint_every": 2,
    "steps": 160,
}
DISTILL = {
    "episodes": 8,
    "student.policy.width": 8,
    "student.critic.width": 8,
    "collect.environments": 4,
    "collect.rounds": 4,
    "collect.steps": 10,
    "learning.updates": 5,
    "learning.batch": 8,
}


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from teachers import teacher_config, train_teacher

    run = tmp_path_factory.mktemp("runs") / "teacher"
    train_teacher(teacher_config("reacher", overrides=TEACHER), run)
    return run


@pytest.fixture(scope="session")
def student_run(teacher_run: Path) -> Path:
    from distill import distill_config, distill_teacher
    from teachers import load_teacher

    run = teacher_run.parent / "student"
    distill_teacher(load_teacher(teacher_run), distill_config(overrides=DISTILL), run)
    return run


@pytest.fixture(scope="session")
def export_folder(student_run: Path) -> Path:
    from export import export_student
    from students import load_student

    folder = student_run.parent / "export"
    export_student(load_student(student_run), folder)
    return folder
