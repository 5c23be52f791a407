"""Where compiled programs are kept between runs."""

import os
from pathlib import Path

import jax


def use_compilation_cache() -> Path:
    """Turns on JAX's persistent compilation cache.

    Returns:
        Its folder: `JAX_COMPILATION_CACHE_DIR` if that is set, else `crl-distill/jax` in the user's caches.
    """
    from teachers.caches import cache_folder  # late: the import is slow

    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or cache_folder() / "jax")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return folder
