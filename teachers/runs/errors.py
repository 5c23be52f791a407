"""The exceptions whose message is one line for the user, and the line that stands for any other."""

RESUME_ADVICE = "to go on, give the same command again, with --resume if it has that option"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message; the name of its type where it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class InputError(ValueError):
    """Bad input from the user.

    The message is one line that names the value and what to do; the command line prints it and exits with code 2.
    """


class SaveError(RuntimeError):
    """A file or checkpoint of a run could not be written; the checkpoints before it are intact."""


class DivergedError(RuntimeError):
    """Too many gradient steps of a training were not finite."""


class StoppedError(RuntimeError):
    """A run was asked to end by SIGTERM, and saved its state first."""
