"""Loads tasks from Python files and from installed packages.

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
REFERENCE_FORMAT = "FILE.py:Class"
NAME_FILE_HINT = (
    f"name it with --task {REFERENCE_FORMAT} (in Python: task=get_task({REFERENCE_FORMAT!r}))"
)

_modules: dict[str, ModuleType] = {}  # by the file's absolute path
_tasks: dict[str, Task] = {}  # by absolute reference


def is_file_reference(reference: str) -> bool:
    """Returns whether a reference names a class in a file, rather than a task by its name."""
    return reference.rpartition(":")[0].endswith(".py") or reference.endswith(".py")


def absolute_reference(reference: str) -> str:
    """Returns a reference that is valid in any working directory; the name of a task is returned as it is.

    Raises:
        InputError: it names a file, but no class in it.
    """
    if not is_file_reference(reference):
        return reference
    file, _, name = reference.rpartition(":")
    if not (file.endswith(".py") and name.isidentifier()):
        raise InputError(
            f"{reference!r} does not say which class is the task; write it as {REFERENCE_FORMAT}"
        )
    try:
        return f"{os.path.realpath(os.path.expanduser(file))}:{name}"
    except ValueError:
        raise InputError(
            f"{reference!r} cannot be a path; write it as {REFERENCE_FORMAT}"
        ) from None


def load_file(reference: str) -> Task:
    """Returns the task of a class in a file, and remembers the file as one that the user named.

    A process builds each task once.

    Args:
        reference: `path/to/file.py:Class`. The file runs once, with its folder importable until the task is built.

    Raises:
        InputError: there is no such file or class, it is no complete `Task`, or the file raises.
    """
    reference = absolute_reference(reference)
    if reference not in _tasks:
        file, _, name = reference.rpartition(":")
        content = _read_file(file)
        with suppress(OSError):  # without a cache, commands that open an artefact ask for the file
            consent = _consent_file(file, content)
            consent.parent.mkdir(parents=True, exist_ok=True)
            consent.touch()
        _tasks[reference] = _build_task(file, name, content)
    return _tasks[reference]


def reload_file(reference: str) -> Task:
    """Returns the task of a file that an artefact names, if the user has named that very file before.

    Args:
        reference: absolute, as `absolute_reference` returns it.

    Raises:
        InputError: as `load_file`; or the user has not named the file with its present content on this machine.
    """
    if reference not in _tasks:
        file, _, name = reference.rpartition(":")
        if not (os.path.isabs(file) and os.path.isfile(file)):
            raise InputError(f"there is no file {file} on this machine; {NAME_FILE_HINT}")
        content = _read_file(file)
        if not _consent_file(file, content).is_file():
            raise InputError(
                f"{file} has changed or was never named on this machine, and opening an artefact does not run "
                f"such a file; {NAME_FILE_HINT}"
            )
        _tasks[reference] = _build_task(file, name, content)
    return _tasks[reference]


def find_installed_tasks() -> dict[str, EntryPoint]:
    """Returns the tasks that installed packages offer, by name, without loading them."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def load_installed(name: str) -> Task:
    """Returns a new instance of the task that an installed package offers under this name.

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
    with _describe_errors(where, sys.modules.get(point.module)):
        loaded = point.load()
    task = _instantiate(loaded, where)
    if task.name != name:
        raise InputError(f"{where} gives a task named {task.name!r}; give both the same name")
    return task


def _read_file(file: str) -> bytes:
    if not os.path.isfile(file):
        raise InputError(f"there is no file {file}; name the task as {REFERENCE_FORMAT}")
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}; make it readable") from None


def _consent_file(file: str, content: bytes) -> Path:
    """Returns the empty file whose existence says that the user has named this file with this content."""
    digest = hashlib.sha256(os.fsencode(file) + b"\0" + content).hexdigest()
    return cache_folder() / "tasks" / digest


def _build_task(file: str, name: str, content: bytes) -> Task:
    with _make_importable(os.path.dirname(file)):
        if file not in _modules:
            _modules[file] = _run_file(file, content)
        module = _modules[file]
        if not hasattr(module, name):
            classes = [key for key, value in vars(module).items() if _is_task_of(value, module)]
            hint = (
                f"it has {', '.join(classes)}" if classes else f"define `class {name}(Task)` in it"
            )
            raise InputError(f"{file} has no class {name!r}; {hint}")
        task = _instantiate(getattr(module, name), f"{file}:{name}")
    task.source = f"{file}:{name}"
    return task


def _run_file(file: str, content: bytes) -> ModuleType:
    # The name depends on the whole path, so that two files of the same name are two modules.
    name = f"crl_distill_task_{hashlib.sha256(os.fsencode(file)).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    try:
        with _describe_errors(file, module):
            # The content that was hashed runs: the file may have changed since, and a `.pyc` may be stale.
            exec(compile(content, file, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _make_importable(folder: str) -> Iterator[None]:
    """Makes the modules beside a file importable while the block runs."""
    # A module beside another task's file must not be used in place of a module of the same name in this folder.
    other_folders = {os.path.dirname(file) for file in _modules} - {folder}
    shadowed = {
        name
        for name, module in list(sys.modules.items())
        if "." not in name
        and _import_folder(module) in other_folders
        and (os.path.isfile(f"{folder}/{name}.py") or os.path.isdir(f"{folder}/{name}"))
    }
    for name in list(sys.modules):
        if name.partition(".")[0] in shadowed:
            del sys.modules[name]
    path_before = list(sys.path)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path_before


def _import_folder(module: object) -> str:
    """Returns the folder from which a module is imported by its bare name."""
    file = Path(getattr(module, "__file__", None) or "")
    return str(file.parent.parent if file.name == "__init__.py" else file.parent)


def _instantiate(loaded: object, where: str) -> Task:
    """Returns an instance of a task's class.

    Raises:
        InputError: it is not a `Task`, lacks a declaration, or its model does not compile.
    """
    if not (isinstance(loaded, type) and issubclass(loaded, Task)):
        raise InputError(f"{where} is not a Task; derive it from teachers.tasks.Task")
    attributes = [name for name in Task.__annotations__ if not hasattr(loaded, name)]
    methods = sorted(loaded.__abstractmethods__)
    if missing := [*attributes, *methods]:
        raise InputError(f"{where} lacks {', '.join(missing)}; declare them as Task says")
    if not (isinstance(loaded.name, str) and re.fullmatch(r"[A-Za-z0-9][\w-]*", loaded.name)):
        raise InputError(
            f"{where}: name = {loaded.name!r}; use letters, digits, `_` and `-`, as in 'my_robot'"
        )
    for kind in ("observation", "goal", "action"):
        fields = getattr(loaded, kind)
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
    with _describe_errors(where, sys.modules.get(loaded.__module__)):
        return loaded()


@contextmanager
def _describe_errors(where: str, module: object) -> Iterator[None]:
    """Replaces what the user's code raises by an error of one line with its type, message, file and line."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        file = getattr(module, "__file__", None)
        raise InputError(
            f"{where} raises {describe_error(error, file)}; correct it there"
        ) from None


def describe_error(error: BaseException, file: str | None = None) -> str:
    """Returns an exception's type, message and `error_location` in one line."""
    message = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    location = error_location(error, file)
    return f"{message} ({location})" if location else message


def error_location(error: BaseException, file: str | None = None) -> str:
    """Returns where an exception was raised, as `file:line`.

    It is the innermost frame in the folder of the user's `file`, or the innermost frame of all if none is there.
    """
    if isinstance(error, SyntaxError):  # its message contains the location
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    folder = os.path.dirname(file) if file else None
    in_folder = [frame for frame in frames if os.path.dirname(frame.filename) == folder]
    innermost = (in_folder or frames)[-1:]
    return f"{innermost[0].filename}:{innermost[0].lineno}" if innermost else ""


def find_task_file(task: Task) -> str | None:
    """Returns the file that contains a task's class, or None where that is unknown."""
    try:
        return inspect.getsourcefile(type(task))
    except TypeError:
        return None


def _is_task_of(value: object, module: ModuleType) -> bool:
    return (
        isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
    )
