"""Settings that change libraries for the whole process; no other module changes such state.

Importing this module sets the flags of XLA, imports MJX without its message on stdout, and switches off fsspec's cache
of listings. The compilation cache is switched on by the commands, with `use_compilation_cache`.
"""

import contextlib
import io
import os
from pathlib import Path

import fsspec
import jax

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


__all__ = ["cache_folder", "mjx", "use_compilation_cache"]
