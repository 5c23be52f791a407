import pytest

from teachers.runs.errors import InputError
from teachers.tasks.registry import get_task


def test_get_task_refuses_unknown_name_with_hint() -> None:
    with pytest.raises(InputError, match="choose one of: reacher"):
        get_task("xyzzy")
