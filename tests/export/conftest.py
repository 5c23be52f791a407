"""Shared by the tests of exports."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from export import Form


@pytest.fixture(scope="session")
def export_form(
    student_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Form], dict[str, Any]]:
    """A function that exports the student in a form, once for all tests, and returns what `export_student` does."""
    from export import export_student
    from students import load_student

    @cache
    def export(form: Form) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("exports") / "export"
        return export_student(load_student(student_run), folder, form, min_retention=0)

    return export
