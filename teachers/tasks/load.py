"""Tasks of the user's own: from a Python file, or from an installed package.

A file runs when the user names it. An artefact may name a file too, and then it runs only if the user has named
that very file on this machine before: opening an artefact must not run code that came with it.
"""

import hashlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from teachers.process import cache_folder
from teachers.runs.errors import InputError
from teachers.tasks.base import Task
from teachers.tasks.declaration import Field

ENTRY_POINTS = "crl_distill.tasks"
FORM = "FILE.py:Class"
REMEDY = f"name it with --task {FORM} (in Python: task=get_task({FORM!r}))"

_modules: dict[str, ModuleType] = {}  # by the file's absolute path
_tasks: dict[str, Task] = {}  # by absolute reference


def is_file_reference(reference: str) -> bool:
    """Whether a reference names a class in a file, rather than a task by its name."""
    return reference.rpartition(":")[0].endswith(".py") or reference.endswith(".py")


def absolute_reference(reference: str) -> str:
    """`reference` in the one form that holds in any working directory; names stay as they are.

    Raises:
        InputError: it names a file, but no class in it.
    """
    if not is_file_reference(reference):
        return reference
    file, _, name = reference.rpartition(":")
    if not (file.endswith(".py") and name.isidentifier()):
        raise InputError(f"{reference!r} does not say which class is the task; write it as {FORM}")
    try:
        return f"{os.path.realpath(os.path.expanduser(file))}:{name}"
    except ValueError:
        raise InputError(f"{reference!r} cannot be a path; write it as {FORM}") from None


def load_file(reference: str) -> Task:
    """The task of a class in a file, built once a process; the file is remembered as one the user named.

    Args:
        reference: `path/to/file.py:Class`. The file runs once, with its folder importable
            until the task is built.

    Raises:
        InputError: there is no such file or class, it is no complete `Task`, or the file raises.
    """
    reference = absolute_reference(reference)
    if reference not in _tasks:
        file, _, name = reference.rpartition(":")
        content = _read(file)
        with suppress(OSError):  # without a cache, commands that open an artefact ask for the file
            mark = _mark(file, content)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        _tasks[reference] = _build(file, name, content)
    return _tasks[reference]


def reload_file(reference: str) -> Task:
    """The task of a file that an artefact names, if the user has named that very file before.

    Args:
        reference: absolute, as `absolute_reference` gives it.

    Raises:
        InputError: as `load_file`; or the file is not, as it stands, one that the user has named on this machine.
    """
    if reference not in _tasks:
        file, _, name = reference.rpartition(":")
        if not (os.path.isabs(file) and os.path.isfile(file)):
            raise InputError(f"there is no file {file} on this machine; {REMEDY}")
        content = _read(file)
        if not _mark(file, content).is_file():
            raise InputError(
                f"{file} has changed or was never named on this machine, and opening an artefact does not run "
                f"such a file; {REMEDY}"
            )
        _tasks[reference] = _build(file, name, content)
    return _tasks[reference]


def installed_tasks() -> dict[str, EntryPoint]:
    """The tasks that installed packages offer, by name, not loaded yet."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def load_installed(name: str) -> Task:
    """A new instance of the task that an installed package offers under this name.

    Raises:
        InputError: two packages offer it, or it cannot be loaded.
    """
    points = list(entry_points(group=ENTRY_POINTS, name=name))
    values = sorted({point.value for point in points})
    if len(values) > 1:
        raise InputError(
            f"task {name!r} is offered by {' and by '.join(values)}; uninstall one of the two"
        )
    point = points[0]
    where = f"entry point {point.value!r} of task {name!r}"
    with _explained(where, sys.modules.get(point.module)):
        found = point.load()
    task = _instance(found, where)
    if task.name != name:
        raise InputError(f"{where} gives a task named {task.name!r}; give both the same name")
    return task


def _read(file: str) -> bytes:
    if not os.path.isfile(file):
        raise InputError(f"there is no file {file}; name the task as {FORM}")
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}; make it readable") from None


def _mark(file: str, content: bytes) -> Path:
    """The empty file that remembers that the user has named this file with this content."""
    digest = hashlib.sha256(os.fsencode(file) + b"\0" + content).hexdigest()
    return cache_folder() / "tasks" / digest


def _build(file: str, name: str, content: bytes) -> Task:
    with _importable(os.path.dirname(file)):
        if file not in _modules:
            _modules[file] = _run(file, content)
        module = _modules[file]
        if not hasattr(module, name):
            own = [key for key, value in vars(module).items() if _is_task(value, module)]
            hint = f"it has {', '.join(own)}" if own else f"define `class {name}(Task)` in it"
            raise InputError(f"{file} has no class {name!r}; {hint}")
        task = _instance(getattr(module, name), f"{file}:{name}")
    task.source = f"{file}:{name}"
    return task


def _run(file: str, content: bytes) -> ModuleType:
    # A name of its own for each file, so that two called alike do not meet.
    name = f"crl_distill_task_{hashlib.sha256(os.fsencode(file)).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    try:
        with _explained(file, module):
            # What was hashed runs, not what the file may have become since or a stale `.pyc`.
            exec(compile(content, file, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importable(folder: str) -> Iterator[None]:
    """Lets the modules beside a file be imported while the block runs."""
    # A module that stands beside another user's file must not be taken for the one of that name here.
    elsewhere = {os.path.dirname(file) for file in _modules} - {folder}
    strangers = {
        name
        for name, module in list(sys.modules.items())
        if "." not in name
        and _home(module) in elsewhere
        and (os.path.isfile(f"{folder}/{name}.py") or os.path.isdir(f"{folder}/{name}"))
    }
    for name in list(sys.modules):
        if name.partition(".")[0] in strangers:
            del sys.modules[name]
    before = list(sys.path)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _home(module: object) -> str:
    """The folder from which a module is imported by its bare name."""
    file = Path(getattr(module, "__file__", None) or "")
    return str(file.parent.parent if file.name == "__init__.py" else file.parent)


def _instance(found: object, where: str) -> Task:
    """Builds a task of a class that has to be complete.

    Raises:
        InputError: it is not a `Task`, lacks a declaration, or its model does not compile.
    """
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise InputError(f"{where} is not a Task; derive it from teachers.tasks.Task")
    attributes = [name for name in Task.__annotations__ if not hasattr(found, name)]
    methods = sorted(found.__abstractmethods__)
    if missing := [*attributes, *methods]:
        raise InputError(f"{where} lacks {', '.join(missing)}; declare them as Task says")
    if not (isinstance(found.name, str) and re.fullmatch(r"[A-Za-z0-9][\w-]*", found.name)):
        raise InputError(
            f"{where}: name = {found.name!r}; use letters, digits, `_` and `-`, as in 'my_robot'"
        )
    for kind in ("observation", "goal", "action"):
        fields = getattr(found, kind)
        if (
            isinstance(fields, Field)
            or not isinstance(fields, tuple)
            or not fields
            or not all(isinstance(field, Field) for field in fields)
        ):
            raise InputError(
                f"{where}: {kind} is not a tuple of Field; write ({kind} of one field needs a comma) "
                f"{kind} = (Field(...),)"
            )
    with _explained(where, sys.modules.get(found.__module__)):
        return found()


@contextmanager
def _explained(where: str, module: object) -> Iterator[None]:
    """Turns what the user's code raises into one line with its type, message, file and line."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        file = getattr(module, "__file__", None)
        raise InputError(f"{where} raises {describe_error(error, file)}; mend it there") from None


def describe_error(error: BaseException, file: str | None = None) -> str:
    """An exception in one line: its type, message and `error_place`."""
    message = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    place = error_place(error, file)
    return f"{message} ({place})" if place else message


def error_place(error: BaseException, file: str | None = None) -> str:
    """Where an exception was raised, as `file:line`: the last place beside the user's `file`, or else of all."""
    if isinstance(error, SyntaxError):  # its message names the place
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    folder = os.path.dirname(file) if file else None
    own = [frame for frame in frames if os.path.dirname(frame.filename) == folder]
    last = (own or frames)[-1:]
    return f"{last[0].filename}:{last[0].lineno}" if last else ""


def task_file(task: Task) -> str | None:
    """The file that holds a task's class, where that is known."""
    try:
        return inspect.getsourcefile(type(task))
    except TypeError:
        return None


def _is_task(value: object, module: ModuleType) -> bool:
    return (
        isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
    )
