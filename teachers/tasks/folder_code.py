"""Runs the code of a folder of the user's, and notes which of its Python files are read.

Consent covers these files: see `teachers.tasks.consent`. An audit hook sees where Python opens them, so that it does not
matter whether they are run by `import`, `importlib`, `runpy` or `exec`. After the task is built, the hook looks only at what
Python imports: a function of the task may import more of its packages, while other code may read the folder as data.
"""

import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from teachers.runs.errors import InputError

# Sources, bytecode without a source, and extension modules.
MODULE_ENDINGS = tuple(importlib.machinery.all_suffixes())
# Python imports from archives of any name; these are archives also where code reads them in another way.
CODE_ENDINGS = (*MODULE_ENDINGS, ".zip", ".egg", ".whl", ".pyz")
_PROJECT = Path(__file__).resolve().parents[2]
# What lies below these is no code of the user's, even if these lie in the user's folder.
INSTALLED = (
    sysconfig.get_paths()["stdlib"],
    *(str(_PROJECT / name) for name in ("teachers", "students", "export", "distill")),
)
READ_EVENTS = {"open": 0, "import": 1, "ctypes.dlopen": 0}  # which argument is the file's path
ZIP_IMPORT = "<frozen zipimport>"
# The files and functions of Python that open a file in order to run what is in it.
IMPORTING = {("<frozen importlib._bootstrap_external>", "get_data"), (ZIP_IMPORT, "_get_data")}


class ChangedCodeError(InputError):
    """A Python file is not one that may run; the message is its path and what has happened to it."""


class FolderCode:
    """The code that a task's file runs from its folder; installed packages are not part of it, wherever they lie.

    Attributes:
        folder: absolute, without links.
        files: SHA-256 of every Python file below the folder that was read, by its path from there.
        packages: paths from the folder of the packages that were imported from below it.
    """

    def __init__(self, folder: str) -> None:
        """Starts without any code."""
        self.folder = folder
        self.files: dict[str, str] = {}
        self.packages: set[str] = set()
        self._modules: dict[str, ModuleType] = {}
        self._allowed: Mapping[str, str] | None = None
        self._refusal: ChangedCodeError | None = None

    @contextmanager
    def run(self, allowed: Mapping[str, str] | None) -> Iterator[None]:
        """Makes the folder's modules importable in the block, and notes what is read.

        The code gets modules of its own: neither those that the code of another folder has imported under the same names,
        nor those of the user's program. Modules that were there before are there again after the block.

        What the code has imported newly stays in `sys.modules`: functions of the task that import later, pickle and
        dataclasses look there. The user's program gets the task's module where it first imports that name afterwards.

        Args:
            allowed: SHA-256 of the Python files that may be read, by their path from the folder; None if all may.

        Raises:
            ChangedCodeError: another file was about to be read, whatever the block raises.
        """
        self._allowed, self._refusal = allowed, None
        path_before = list(sys.path)
        hidden = self._hide_modules()
        before = dict(sys.modules)
        sys.modules.update(self._modules)
        sys.path.insert(0, self.folder)
        importlib.invalidate_caches()
        _add_hook()
        _watching.append(self)
        try:
            yield
        finally:
            _watching.remove(self)
            sys.path[:] = path_before
            self._keep_modules(before)
            _restore_modules(hidden)
            self._note_modules()
            if self._refusal:  # the code may have caught the error, and raised another one
                raise self._refusal from None
        self._note_packages()
        if allowed is None:
            self._note_what_may_be_imported_later()
        if self not in _built:
            _built.append(self)

    def note(self, path: str) -> None:
        """Notes that a Python file is about to be read, if it lies below the folder.

        Raises:
            ChangedCodeError: the file may not be read.
        """
        name, digest = self.path_from_folder(path), file_digest(path)
        if name is None or digest is None:
            return
        if (problem := self._find_problem(name, digest)) is not None:
            self._refusal = ChangedCodeError(problem)
            raise self._refusal
        self.files[name] = digest

    def find_late_problem(self, path: str) -> str | None:
        """Returns what is wrong with a Python file that is about to be imported after the task was built.

        Returns:
            The file's path and what has happened to it; empty if it is as it was when the user named the task's file, or
            the user has named that file in this process; None if the import is not this code's concern.
        """
        name = self.path_from_folder(path)
        if name is None:
            return None
        if self._allowed is None:
            return ""
        is_archive = name in self._allowed and not name.endswith(MODULE_ENDINGS)
        if not is_archive and not any(_lies_below(name, package) for package in self.packages):
            return None
        digest = file_digest(path)
        return None if digest is None else self._find_problem(name, digest) or ""

    def _find_problem(self, name: str, digest: str) -> str | None:
        if self._allowed is None or self._allowed.get(name) == digest:
            return None
        what = "has changed" if name in self._allowed else "is new"
        return f"{os.path.join(self.folder, name)} {what}"

    def path_from_folder(self, path: str) -> str | None:
        """Returns the path from the folder, with `/` between its parts; None if it does not lie below the folder."""
        absolute = os.path.abspath(path)
        folder, name = os.path.split(absolute)
        for each in (absolute, os.path.join(os.path.realpath(folder), name)):
            if _lies_below(each, self.folder) and not _is_installed(each):
                return _relative_path(each, self.folder)
        return None

    def _hide_modules(self) -> dict[str, ModuleType]:
        """Removes those imported modules that the code must not find, and returns them by name."""
        offered = {
            name.partition(".")[0]
            for name in os.listdir(self.folder)
            if name.endswith(MODULE_ENDINGS)
            or os.path.isfile(os.path.join(self.folder, name, "__init__.py"))
        }
        return {
            name: sys.modules.pop(name)
            for name, module in list(sys.modules.items())
            if id(module) in _task_modules
            or (name.partition(".")[0] in offered and _is_of_user(name.partition(".")[0]))
        }

    def _keep_modules(self, before: Mapping[str, ModuleType]) -> None:
        """Keeps the modules that the block has imported from below the folder."""
        for name, module in list(sys.modules.items()):
            if before.get(name) is not module and any(
                self.path_from_folder(location) for location in _module_locations(module)
            ):
                self._modules[name] = _task_modules[id(module)] = module

    def _note_modules(self) -> None:
        """Notes the files from which the modules come, if Python has not opened them in a way that the hook sees."""
        for module in self._modules.values():
            for path in map(_file_on_disk, _module_locations(module)):
                if self.path_from_folder(path) not in self.files:
                    with suppress(ChangedCodeError):  # the block's end raises it
                        self.note(path)

    def _note_packages(self) -> None:
        for module in self._modules.values():
            for location in _package_folders(module):
                # A package in an archive has no files of its own.
                if os.path.isdir(location) and (name := self.path_from_folder(location)):
                    self.packages.add(name)

    def _note_what_may_be_imported_later(self) -> None:
        """Notes all code of the imported packages, and what Python would import in place of the files."""
        for package in self.packages:
            self._note_files(_code_in_package(self.folder, package))
        self._note_files(_imported_instead(self.folder, self.files, self.packages))

    def _note_files(self, names: set[str]) -> None:
        for name in names - self.files.keys():
            if digest := file_digest(os.path.join(self.folder, name)):
                self.files[name] = digest


def file_digest(path: str) -> str | None:
    """Returns the SHA-256 of a file; None if it cannot be read."""
    _thread.is_reading = True
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (OSError, ValueError):  # a module may name any path
        return None
    finally:
        _thread.is_reading = False


def find_changed_code(folder: str, files: Mapping[str, str], packages: Set[str]) -> str | None:
    """Returns the path of a file below a folder and what has happened to it, or None if all code is as it was.

    Args:
        folder: the folder.
        files: SHA-256 of the Python files below it, by their path from there.
        packages: paths of the packages among them, in which there must be no other Python files.
    """
    for name, digest in files.items():
        path = os.path.join(folder, name)
        found = file_digest(path)
        if found != digest:
            return f"{path} {'is missing' if found is None else 'has changed'}"
    new = {name for package in packages for name in _code_in_package(folder, package)}
    new |= _imported_instead(folder, files, packages)
    for name in sorted(new - files.keys()):
        return f"{os.path.join(folder, name)} is new"
    return None


def _code_in_package(folder: str, package: str) -> set[str]:
    """Returns the paths from a folder of all Python files in one of its packages and below."""
    return {
        _relative_path(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(os.path.join(folder, package))
        for name in names
        if name.endswith(CODE_ENDINGS) and os.path.basename(parent) != "__pycache__"
    }


def _imported_instead(folder: str, files: Mapping[str, str], packages: Set[str]) -> set[str]:
    """Returns the paths from a folder of other files that Python would import under the names of these.

    A package, or an extension module, is imported in place of a source file of the same name.
    """
    importlib.invalidate_caches()
    found = set()
    for name in {*files, *packages}:
        if name in files and not name.endswith(MODULE_ENDINGS):
            continue  # an archive
        parent, base = os.path.split(os.path.join(folder, name))
        spec = importlib.machinery.PathFinder.find_spec(base.partition(".")[0], [parent])
        if spec is not None and spec.origin is not None:
            found.add(_relative_path(spec.origin, folder))
    return found - files.keys()


def _relative_path(path: str, folder: str) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


# What the audit hook works on. A hook cannot be removed, so that there is one for the whole process.
_watching: list[FolderCode] = []  # code that is running to build a task
_built: list[FolderCode] = []  # code whose task is built
_thread = threading.local()
_hooks: list[Any] = []
# Modules from users' folders, whatever their names. Only the keys, their `id`, are read: the values keep the modules alive,
# because the `id` of one that is gone may become that of another object.
_task_modules: dict[int, ModuleType] = {}


def _add_hook() -> None:
    if _hooks:
        return
    check: Callable[..., object] = _check_read
    events, frame, is_ending = frozenset(READ_EVENTS), sys._getframe, sys.is_finalizing
    # A lambda, because jaxtyping wraps functions in tests: the next frame is the one that reads. It uses no names of the
    # module, because Python clears these when it ends.
    _hooks.append(
        lambda event, args: (
            event in events and not is_ending() and check(event, args, frame().f_back)
        )
    )
    sys.addaudithook(_hooks[0])


def _check_read(event: str, args: tuple[Any, ...], reader: FrameType | None) -> None:
    """Checks each file that is read while tasks are built, and each that is imported afterwards.

    Args:
        event: one of READ_EVENTS.
        args: of the event.
        reader: the frame that reads the file; None if it is no Python code.

    Raises:
        ChangedCodeError: the file may not be read.
        FileNotFoundError: it is cached bytecode, which need not be that of its source. Python then takes the source.
    """
    if getattr(_thread, "is_reading", False):
        return
    path = args[READ_EVENTS[event]]
    if not isinstance(path, str | bytes | os.PathLike):
        return  # the number of an open file, or an import whose file is not known yet
    if event == "open" and (args[2] & os.O_ACCMODE == os.O_WRONLY or args[2] & os.O_TRUNC):
        return  # nothing that is in the file is read
    path = os.fsdecode(path)
    opener = (reader.f_code.co_filename, reader.f_code.co_name) if reader else ("", "")
    if not path.endswith(CODE_ENDINGS) and opener[0] != ZIP_IMPORT:
        return
    is_import = event != "open" or opener in IMPORTING
    codes = [*_watching, *_built] if is_import else _watching
    if (source := _source_of_cached(path)) is not None:
        if any(code.path_from_folder(source) for code in codes):
            raise FileNotFoundError(path)
        return
    for code in _watching:
        code.note(path)
    if is_import:
        _check_late_import(path)


def _source_of_cached(path: str) -> str | None:
    """Returns the source of cached bytecode, or the path itself if it is not known; None if it is another file."""
    if path.endswith(tuple(importlib.machinery.BYTECODE_SUFFIXES)):
        with suppress(ValueError, NotImplementedError):
            return importlib.util.source_from_cache(path)  # also below PYTHONPYCACHEPREFIX
    return path if "__pycache__" in Path(path).parts else None


def _check_late_import(path: str) -> None:
    """Raises ChangedCodeError if a built task's code may not import a file, and no other code in this process may."""
    problems = [code.find_late_problem(path) for code in (*_watching, *_built)]
    found = [problem for problem in problems if problem is not None]
    if found and all(found):
        raise ChangedCodeError(
            f"{found[0]} since the task's file was named on this machine, and is not imported; name the file again"
        )


def _restore_modules(hidden: Mapping[str, ModuleType]) -> None:
    """Puts the modules back that were hidden from a folder's code.

    Where the code of two folders has imported different modules under one name, neither stays: an import inside a function
    would silently take the other folder's.
    """
    for name, module in hidden.items():
        newer = sys.modules.get(name)
        if newer is None or id(module) not in _task_modules:
            sys.modules[name] = module
        elif _module_locations(newer) != _module_locations(module):
            del sys.modules[name]


def _is_of_user(name: str) -> bool:
    """Returns whether an imported module belongs neither to Python nor to an installed package nor to this project."""
    locations = _module_locations(sys.modules.get(name))
    is_special = name.startswith("__") or not locations
    return not is_special and not any(_is_installed(location) for location in locations)


def _is_installed(path: str) -> bool:
    is_package = not {"site-packages", "dist-packages"}.isdisjoint(Path(path).parts)
    return is_package or any(_lies_below(path, folder) for folder in INSTALLED)


def _lies_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)


def _module_locations(module: object) -> list[str]:
    """Returns the files of a module, or the folders of a package without a file."""
    files = []
    with suppress(Exception):  # a module may be an object that computes its attributes
        spec = getattr(module, "__spec__", None)
        origin = spec.origin if spec is not None and spec.has_location else None
        found = [getattr(module, "__file__", None), origin]
        files = [path for path in dict.fromkeys(found) if isinstance(path, str)]
    return files or _package_folders(module)


def _package_folders(module: object) -> list[str]:
    with suppress(Exception):
        return [path for path in getattr(module, "__path__", ()) if isinstance(path, str)]
    return []


def _file_on_disk(path: str) -> str:
    """Returns the archive in which a path lies, or the path itself if it lies in none."""
    return next((str(parent) for parent in Path(path).parents if parent.is_file()), path)
