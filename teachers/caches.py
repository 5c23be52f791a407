"""Where things are kept between runs that can be made again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`crl-distill` in the user's caches: under `XDG_CACHE_HOME`, or `~/.cache` where that is not set."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return caches / "crl-distill"
