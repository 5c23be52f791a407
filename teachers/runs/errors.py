"""The exceptions that carry one clear line for the user."""


class InputError(ValueError):
    """Bad input from the user.

    The message is one line that names the value and the remedy; the command line prints it and exits with
    code 2.
    """


class SaveError(RuntimeError):
    """What a run has to leave could not be written; the checkpoints before are intact."""
