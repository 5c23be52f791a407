"""Copies of runs with a changed description and the checksum that fits it, as an attacker would make them."""

import json
import shutil

from teachers.runs.checkpoints import json_digest


def copy_with_metadata(run, folder, remove=(), **changes):
    """Copies a run and changes its newest metadata: drops the keys in `remove`, and sets those in `changes`."""
    shutil.copytree(run, folder)
    items = folder / "checkpoints" / "160"
    raw = {**json.loads((items / "metadata" / "metadata").read_text()), **changes}
    raw = {key: value for key, value in raw.items() if key not in remove}
    (items / "metadata" / "metadata").write_text(json.dumps(raw))
    sums = items / "checksums" / "metadata"
    sums.write_text(json.dumps({**json.loads(sums.read_text()), "metadata": json_digest(raw)}))
    return folder
