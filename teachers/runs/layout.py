"""Names of the files and folders inside a run's folder.

- `config.toml`: the configuration that the run was started with
- `metrics.jsonl`: the figures of the run, one line an iteration
- `events.out.tfevents.*`: the same figures for TensorBoard
- `checkpoints/STEP/`: a checkpoint, named by its control step
- `unfinished/`: the checkpoints of a distillation that is not finished, see `distill.resume`
- `.lock`: only while a process writes the run, see `teachers.runs.lock`
"""

import atexit
import os
import shutil
import tempfile
from functools import lru_cache

from etils import epath

from teachers.runs.paths import absolute_path, is_local

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
EVENTS = "events.out.tfevents."  # begins the name of each such file
CHECKPOINTS = "checkpoints"
UNFINISHED = "unfinished"
LOCK = ".lock"


def checkpoints_folder(run: epath.PathLike) -> epath.Path:
    """Returns the absolute path of the folder that holds a run's checkpoints."""
    folder = absolute_path(run)  # Orbax refuses relative paths
    if is_local(folder) and "\\" in str(folder):
        folder = _link_without_backslash(str(folder))
    return folder / CHECKPOINTS


@lru_cache
def _link_without_backslash(folder: str) -> epath.Path:
    """Returns a link to a folder, for TensorStore, which reads a backslash as a slash."""
    links = tempfile.mkdtemp(prefix="crl-distill-")
    atexit.register(shutil.rmtree, links, ignore_errors=True)
    link = epath.Path(links) / "run"
    os.symlink(folder, link)
    return link
