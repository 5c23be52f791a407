"""Names of the files and folders inside a run's folder.

- `config.toml`: the configuration that the run was started with
- `metrics.jsonl`: the figures of the run, one line an iteration
- `events.out.tfevents.*`: the same figures for TensorBoard
- `checkpoints/STEP/`: a checkpoint, named by its control step
- `unfinished/`: the checkpoints of a distillation that is not finished, see `distill.resume`
- `.lock`: only while a process writes the run, see `teachers.runs.lock`
"""

from etils import epath

from teachers.runs.paths import absolute_path

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
EVENTS = "events.out.tfevents."  # begins the name of each such file
CHECKPOINTS = "checkpoints"
UNFINISHED = "unfinished"
LOCK = ".lock"


def checkpoints_folder(run: epath.PathLike) -> epath.Path:
    """Returns the absolute path of the folder that holds a run's checkpoints."""
    return absolute_path(run) / CHECKPOINTS  # Orbax refuses relative paths
