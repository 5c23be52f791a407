"""Shared by the tests of exports: one agent of each kind, whose functions are compiled once, and files in any form."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from export import Form, export_student
from students import load_student
from students.artefact import Student
from teachers import load_teacher
from teachers.agent import Agent


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
