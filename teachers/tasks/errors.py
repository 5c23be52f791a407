"""The one exception that means: the user can mend this."""


class InputError(ValueError):
    """Bad input from the user.

    The message is one line that names the value and the remedy; the command line prints it and exits with
    code 2.
    """
