"""Writes pictures and animations to files."""

from typing import Any

from etils import epath

from teachers.runs.errors import InputError
from teachers.runs.outputs import local_draft, require_new_file
from teachers.simulation.scene import Frame, Frames

ANIMATIONS = (".gif", ".mp4")  # endings of the files that `write_animation` writes


def write_animation(file: epath.PathLike, frames: Frames, fps: float) -> None:
    """Writes a new `.gif` or `.mp4`.

    Raises:
        InputError: the file has another ending or exists, or its folder cannot be written.
    """
    file = epath.Path(file)
    require_new_file(file, *ANIMATIONS)
    options: dict[str, Any] = (
        {"duration": 1000 / fps, "loop": 0} if file.suffix == ".gif" else {"fps": fps}
    )
    write_image(file, frames, **options)


def write_image(file: epath.PathLike, pixels: Frame | Frames, **options: Any) -> None:
    """Writes one picture or an animation, with imageio's options.

    Raises:
        InputError: it cannot be written.
    """
    import imageio.v3 as imageio  # imported late: few commands need it

    try:
        epath.Path(file).parent.mkdir(parents=True, exist_ok=True)
        with local_draft(file) as draft:
            imageio.imwrite(draft, pixels, **options)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror or error}") from None
