"""Settings that change libraries for the whole process; no other module changes such state.

Importing this module sets the flags of XLA, imports MJX without its message on stdout, switches off fsspec's cache of
listings, and mends `epath.Path.glob`. `in_32_bits` marks the functions that JAX_ENABLE_X64 must not change. The compilation cache is switched on by the commands, with `use_compilation_cache`.
"""

import contextlib
import glob
import io
import os
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import fsspec
import jax
from etils import epath

# XLA reads its flags when JAX first compiles. Flags that the user set in XLA_FLAGS win.
_XLA_FLAGS = [
    # On several cores, programs of many small operations, such as a humanoid's physics, deadlock in XLA's thread pool.
    # Without this scheduler they do not, and they are no slower.
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
]
if jax.__version_info__ < (0, 11):
    # JAX 0.10 fuses a chain of joints into code that becomes ten times slower with each joint. JAX 0.11 does not, and
    # rejects the flag.
    _XLA_FLAGS.append("--xla_cpu_use_fusion_emitters=false")
for _flag in _XLA_FLAGS:
    if _flag.partition("=")[0] not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}".strip()

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


def in_32_bits(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Returns the same function, which computes with 32-bit numbers also where JAX_ENABLE_X64 is set.

    With 64-bit numbers, random numbers and physics would be others, and checkpoints would not fit.
    """

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return call


def cache_folder() -> Path:
    """Returns the folder `crl-distill` in `XDG_CACHE_HOME`, or in `~/.cache` if that variable is not set."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return caches / "crl-distill"


def use_compilation_cache() -> Path:
    """Switches on JAX's persistent compilation cache.

    Returns:
        The cache's folder: `JAX_COMPILATION_CACHE_DIR` if that variable is set, else `jax` in `cache_folder`.
    """
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or cache_folder() / "jax")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return folder


__all__ = ["cache_folder", "in_32_bits", "mjx", "use_compilation_cache"]
