"""Loads tasks from Python files and from installed packages.

A file runs when the user names it. An artefact may name a file too, by its name and digest, and then it runs only if the
user has named that very file on this machine before, and nothing that it runs from its folder has changed since: opening
an artefact must not run code that came with it.
"""

import hashlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from teachers.runs.errors import InputError
from teachers.runs.paths import require_utf8
from teachers.tasks.base import Task
from teachers.tasks.consent import Consent, named_places, recall_consent, remember_consent
from teachers.tasks.folder_code import ChangedCodeError, FolderCode, find_changed_code

ENTRY_POINTS = "crl_distill.tasks"
REFERENCE_FORMAT = "FILE.py:Class"
NAME_FILE_HINT = (
    f"name it with --task {REFERENCE_FORMAT} (in Python: task=get_task({REFERENCE_FORMAT!r}))"
)

NOT_RUN = "opening an artefact does not run such a file"


class TaskFile(NamedTuple):
    """A task's file that has run in this process."""

    digest: str  # SHA-256 of the content that has run
    module: ModuleType
    code: FolderCode
    consent: (
        Consent | None
    )  # the code that may run; None if the user named the file in this process


_files: dict[str, TaskFile] = {}  # by absolute path
_tasks: dict[str, Task] = {}  # by absolute reference


def is_file_reference(reference: str) -> bool:
    """Returns whether a reference names a class in a file, rather than a task by its name."""
    return reference.rpartition(":")[0].endswith(".py") or reference.endswith(".py")


def absolute_reference(reference: str) -> str:
    """Returns a reference that is valid in any working directory; the name of a task is returned as it is.

    Raises:
        InputError: it names a file, but no class in it, or the file's path is not UTF-8.
    """
    if not is_file_reference(reference):
        return reference
    file, _, name = reference.rpartition(":")
    if not (file.endswith(".py") and name.isidentifier()):
        raise InputError(
            f"{reference!r} does not say which class is the task; write it as {REFERENCE_FORMAT}"
        )
    try:
        path = os.path.realpath(os.path.expanduser(file))
    except ValueError:
        raise InputError(
            f"{reference!r} cannot be a path; write it as {REFERENCE_FORMAT}"
        ) from None
    require_utf8(path)
    return f"{path}:{name}"


def portable_reference(reference: str) -> str:
    """Returns a reference without the folder of its file, as artefacts hold it; the name of a task as it is."""
    if not is_file_reference(reference):
        return reference
    return os.path.basename(reference)


def describe_origin(task: Task) -> dict[str, str]:
    """Returns where a task comes from, as the fields `task_source` and `task_digest` of an artefact's metadata."""
    return {"task_source": portable_reference(task.source), "task_digest": task.source_digest}


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
        _tasks[reference] = _build_task(file, name, None)
        _remember(file)
    return _tasks[reference]


def reload_file(source: str, digest: str = "") -> Task:
    """Returns the task of a file that an artefact names, if the user has named that very file before.

    Args:
        source: `file.py:Class`, whose file the user may have named at any place; of an artefact of an early version an
            absolute path.
        digest: SHA-256 of the file's content. If the file at that place has other content now, it is used if the user has
            named it with that content too.

    Raises:
        InputError: as `load_file`; or the user has not named the file on this machine, or the file or other code that it
            runs from its folder has changed since.
    """
    file, _, name = source.rpartition(":")
    if os.path.isabs(file) and not os.path.isfile(file):
        raise InputError(f"there is no file {file} on this machine; {NAME_FILE_HINT}")
    places = [file] if os.path.isabs(file) else _find_places(file, digest)
    if not places:
        stated = f"{file or source} (SHA-256 {digest})" if digest else file or source
        raise InputError(
            f"{stated} was never named on this machine, and {NOT_RUN}; {NAME_FILE_HINT}"
        )
    problems = []
    for place in places:
        reference = f"{place}:{name}"
        try:
            if reference not in _tasks:
                _tasks[reference] = _build_task(place, name, _require_consent(place))
            return _tasks[reference]
        except ChangedCodeError as error:
            problems.append(str(error))
    raise InputError(f"{problems[0]}, and {NOT_RUN}; {NAME_FILE_HINT}")


def _find_places(name: str, digest: str) -> list[str]:
    """Returns the absolute paths at which the user has named a file of this name and content."""
    loaded = [
        file
        for file, loaded in _files.items()
        if os.path.basename(file) == name and loaded.digest == digest
    ]
    return list(dict.fromkeys([*loaded, *named_places(name, digest)]))


def _require_consent(file: str) -> Consent | None:
    """Returns the code that may run where the user has named a file, if the file and this code are still the same.

    Raises:
        ChangedCodeError: they are not, or the user has never named the file.
    """
    if file in _files:
        return _files[file].consent
    if not os.path.isfile(file):
        raise ChangedCodeError(f"{file} is missing")
    consent = recall_consent(file, content_digest(_read_file(file)))
    if consent is None:
        raise ChangedCodeError(f"{file} has changed or was never named on this machine")
    if changed := find_changed_code(os.path.dirname(file), consent.files, consent.packages):
        raise _changed_since_named(changed, file)
    return consent


def _changed_since_named(change: object, file: str) -> ChangedCodeError:
    return ChangedCodeError(f"{change} since {file} was named on this machine")


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


def content_digest(content: bytes) -> str:
    """Returns the SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def _remember(file: str) -> None:
    """Remembers a file that has run, with the code that it ran, as one that the user named."""
    loaded = _files[file]
    files, packages = dict(loaded.code.files), set(loaded.code.packages)
    files.pop(os.path.basename(file), None)  # where other code has imported the file itself
    earlier = recall_consent(file, loaded.digest)
    # An earlier process may have imported more.
    if earlier and not find_changed_code(loaded.code.folder, earlier.files, earlier.packages):
        files, packages = {**earlier.files, **files}, packages | earlier.packages
    remember_consent(Consent(file, loaded.digest, files, frozenset(packages)))


def _build_task(file: str, name: str, consent: Consent | None) -> Task:
    """Returns the task of a class in a file, which runs unless it has run in this process.

    Args:
        file: absolute path.
        name: the class.
        consent: the code that may run; None if all may.

    Raises:
        ChangedCodeError: other code was about to run.
        InputError: see `load_file`.
    """
    code = _files[file].code if file in _files else FolderCode(os.path.dirname(file))
    content = b"" if file in _files else _read_file(file)
    allowed = None
    if consent is not None:
        allowed = {**consent.files, os.path.basename(file): consent.digest}
        if content and content_digest(content) != consent.digest:
            raise ChangedCodeError(f"{file} has changed meanwhile")
    try:
        with code.run(allowed):
            if file not in _files:
                module = _run_file(file, content)
                _files[file] = TaskFile(content_digest(content), module, code, consent)
            module = _files[file].module
            if not hasattr(module, name):
                classes = [key for key, value in vars(module).items() if _is_task_of(value, module)]
                hint = (
                    f"it has {', '.join(classes)}"
                    if classes
                    else f"define `class {name}(Task)` in it"
                )
                raise InputError(f"{file} has no class {name!r}; {hint}")
            task = _instantiate(getattr(module, name), f"{file}:{name}")
    except ChangedCodeError as error:
        _files.pop(file, None)
        raise _changed_since_named(error, file) from None
    task.source, task.source_digest = f"{file}:{name}", _files[file].digest
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
    with _describe_errors(where, sys.modules.get(loaded.__module__)):
        try:
            return loaded()
        except InputError as error:
            raise InputError(f"{where}: {error}") from error.__cause__


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
