"""Shared by the tests of exports: one agent of each kind, whose functions are compiled once, and files in any form."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import pytest

from export import Form, export_student
from students import load_student, student_networks
from students.artefact import Student
from students.config import SavedStudentConfig
from teachers import load_teacher
from teachers.agent import Agent
from teachers.tasks.registry import get_task


@pytest.fixture(scope="session")
def teacher(teacher_run: Path) -> Agent:
    return load_teacher(teacher_run)


@pytest.fixture(scope="session")
def student(student_run: Path) -> Student:
    return load_student(student_run)


@pytest.fixture(scope="session")
def export_form(
    student: Student, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Form], dict[str, Any]]:
    """A function that exports the student in a form, once for all tests, and returns what `export_student` does."""

    @cache
    def export(form: Form) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("exports") / "export"
        return export_student(student, folder, form, min_retention=0)

    return export


@pytest.fixture(scope="session")
def sensing(student: Student) -> Callable[..., Student]:
    """A function that returns an untrained student of the reacher that reads sensors, with settings of its networks."""

    @cache
    def make(memory: str, task: str = "reacher") -> Student:
        config = SavedStudentConfig(
            sees="sensors", memory=memory, frames=3, memory_width=6, embedding=4
        )
        networks = student_networks(get_task(task), config, 4)
        params = networks.init(jax.random.key(3))
        lineage = {name: x for name, x in student.metadata.lineage.items() if name != "seen"}
        update = {"lineage": lineage, "config": {"student": config.model_dump()}}
        return Agent(networks, params, config, student.metadata.model_copy(update=update))

    return make


@pytest.fixture(scope="session")
def sensing_files(
    sensing: Callable[..., Student], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    """A function that exports such a student once for all tests, and returns what `export_student` does."""

    @cache
    def export(memory: str, form: Form = Form()) -> dict[str, Any]:  # noqa: B008 - it does not change
        folder = tmp_path_factory.mktemp("sensing") / "export"
        return export_student(sensing(memory), folder, form, min_retention=0)

    return export
