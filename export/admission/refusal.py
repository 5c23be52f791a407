"""The error for a file that is not admitted."""

from teachers.runs.errors import InputError


def refusal_error(source: str, problem: str) -> InputError:
    """Returns the error for a file, named `source`, that crl-distill did not write as it is."""
    return InputError(f"{source} {problem}; give a file that crl-distill export wrote")
