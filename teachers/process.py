"""Settings of the whole process: flags of XLA, the output of an import, listings of clouds, compiled programs.

Whatever changes the state of libraries for everybody stands here, and nowhere else. Importing this module applies the
first three; `use_compilation_cache` is called by the commands.
"""

import contextlib
import io
import os
from pathlib import Path

import fsspec
import jax

# XLA reads its flags when JAX first compiles. Flags that the user set in XLA_FLAGS win.
_XLA_FLAGS = [
    # With more than one core, programs of many small operations, such as a humanoid's physics, come to a standstill by a
    # deadlock in XLA's thread pool. Without this scheduler they do not, and they are no slower.
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
]
if jax.__version_info__ < (0, 11):
    # JAX 0.10 fuses a chain of joints into code that takes ten times as long for each further joint. JAX 0.11 does not, and
    # no longer knows the flag.
    _XLA_FLAGS.append("--xla_cpu_use_fusion_emitters=false")
for _flag in _XLA_FLAGS:
    if _flag.partition("=")[0] not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}".strip()

with contextlib.redirect_stdout(
    io.StringIO()
):  # MJX prints there that the optional Warp is missing
    from mujoco import mjx

# fsspec keeps listings of folders. TensorStore and other machines write past it, so that a kept listing would be wrong.
for _scheme in ("gs", "s3"):
    fsspec.config.conf.setdefault(_scheme, {}).setdefault("use_listings_cache", False)


def cache_folder() -> Path:
    """`crl-distill` in the user's caches: under `XDG_CACHE_HOME`, or `~/.cache` where that is not set."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return caches / "crl-distill"


def use_compilation_cache() -> Path:
    """Turns on JAX's persistent compilation cache.

    Returns:
        The cache's folder: `JAX_COMPILATION_CACHE_DIR` if that is set, else `crl-distill/jax` in the user's caches.
    """
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or cache_folder() / "jax")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return folder


__all__ = ["cache_folder", "mjx", "use_compilation_cache"]
