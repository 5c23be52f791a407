"""Settings that change libraries for the whole process; no other module changes such state.

Importing this module sets the flags of XLA, imports MJX without its message on stdout, mends `epath.Path.glob`, prints
MuJoCo's warnings without its log file, and switches off ONNX Runtime's telemetry and fsspec's cache of listings. Where there
is no home directory, it sets HOME to `os.devnull`, which subprocesses inherit. `in_32_bits` marks the functions that
JAX_ENABLE_X64 must not change. The compilation cache is switched on by the commands, with `use_compilation_cache`.
"""

import contextlib
import errno
import glob
import inspect
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import fsspec
import jax
import mujoco
from etils import epath

# XLA reads its flags when JAX first compiles. One that the user set in XLA_FLAGS wins. On several cores, programs of many
# small operations, such as a humanoid's physics, deadlock in XLA's thread pool. Without this scheduler they do not, and they
# are no slower.
_XLA_FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
if _XLA_FLAG.partition("=")[0] not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA_FLAG}".strip()

# MJX prints a line on stdout if the optional Warp is missing, where commands print JSON.
with contextlib.redirect_stdout(io.StringIO()):
    from mujoco import mjx

# fsspec caches listings of folders. They would be wrong, because TensorStore and other machines write without fsspec.
for _scheme in ("gs", "s3"):
    fsspec.config.conf.setdefault(_scheme, {}).setdefault("use_listings_cache", False)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_epath_glob = epath.gpath.PosixGPath.glob


def _glob(folder: epath.Path, pattern: str) -> Iterator[epath.Path]:
    """Yields the entries of a folder that match a pattern.

    `epath` reads the folder's own name as a pattern too. Orbax would therefore write broken checkpoints into a run called
    `lr[0.001]`, and mix the files of `exp?` with those of `exp1`.
    """
    if "://" in str(folder):
        yield from _epath_glob(folder, pattern)
        return
    for name in glob.iglob(pattern, root_dir=folder):
        yield folder / name


epath.gpath.PosixGPath.glob = _glob


# Whether a simulation runs whose states may diverge; see `divergence_expected`.
_expects_divergence = False


def show_mujoco_warning(text: str) -> None:
    """Prints a warning of MuJoCo, but not of a diverged state where one is expected."""
    if not (_expects_divergence and "simulation is unstable" in text):
        print(f"WARNING: {text}", file=sys.stderr)


@contextlib.contextmanager
def divergence_expected() -> Iterator[None]:
    """Keeps MuJoCo silent about states that diverge in the block, in any thread; not to be nested.

    MuJoCo would print the first one of each call, and append it to a file in the working directory.
    """
    global _expects_divergence
    _expects_divergence = True
    try:
        yield
    finally:
        _expects_divergence = False


mujoco.set_mju_user_warning(show_mujoco_warning)


def in_32_bits(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Returns the same function, which computes with 32-bit numbers also where JAX_ENABLE_X64 is set.

    With 64-bit numbers, random numbers and physics would be others, and checkpoints would not fit.

    Raises:
        TypeError: the function is a generator, whose code would run after this one has returned.
    """
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"{function.__qualname__} is a generator; mark the functions that it calls")

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return call


# Official builds of ONNX Runtime send usage data to Microsoft, and keep a device's identifier in the home directory.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Libraries look for their settings and caches in the home directory, and some fail where a user has none. They get one
# in which nobody can leave anything for them.
if os.path.expanduser("~") == "~":
    os.environ["HOME"] = os.devnull


def cache_folder() -> Path:
    """Returns the folder `crl-distill` in `XDG_CACHE_HOME`, or in `~/.cache` if that variable is not set.

    Raises:
        FileNotFoundError: there is no home directory.
    """
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(os.path.expanduser(caches)) / "crl-distill"
    home = Path.home()
    if not home.is_dir():
        missing = "" if str(home) == os.devnull else f" {home}"
        raise FileNotFoundError(errno.ENOENT, f"there is no home directory{missing}")
    return home / ".cache" / "crl-distill"


def use_compilation_cache() -> str:
    """Switches on JAX's persistent compilation cache, if its folder can be written.

    The folder is `JAX_COMPILATION_CACHE_DIR` if that variable is set, else `jax` in `cache_folder`.

    Returns:
        Why the folder cannot be written, so that there is no cache; empty if there is one.
    """
    jax.config.update("jax_compilation_cache_dir", None)  # JAX has read the variable itself
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
    try:
        folder = folder or str(cache_folder() / "jax")
        if "://" not in folder:  # one in a cloud is left to JAX
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        return f"{folder}: {error.strerror}" if folder else str(error.strerror)
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return ""


__all__ = [
    "cache_folder",
    "divergence_expected",
    "in_32_bits",
    "mjx",
    "show_mujoco_warning",
    "use_compilation_cache",
]
