"""What a user reads in place of an exception, and the exit codes."""

import errno
import re

FAILED = 1  # what was asked for could not be done
BAD_INPUT = 2
INTERRUPTED = 130  # by Ctrl-C
OUTPUT_CLOSED = 141  # nobody reads stdout any more
STOPPED = 143  # by SIGTERM

_LESS_MEMORY = "lower environments, batch, depth, width or episodes"
_INTACT = "checkpoints already written are intact"
# The statuses of XLA's errors that come from a device, a driver or another machine, and not from the program.
_DEVICE_FAILURES = (
    *("ABORTED", "CANCELLED", "DATA_LOSS", "DEADLINE_EXCEEDED"),
    *("INTERNAL", "UNAVAILABLE", "UNKNOWN"),
)

# How JAX says that an allocation failed. Some of its calls raise this as a ValueError; other libraries raise errors with
# the same status for other reasons, such as a quota.
_ALLOCATION = re.compile(
    r"RESOURCE_EXHAUSTED: Out of memory (allocating|while trying to allocate) \d"
)
# What another path helps against.
_PATH_ERRORS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
)

# A word with bytes that are not UTF-8, which Python keeps in names as lone surrogates.
_UNDECODED = re.compile(r"[^\s\"']*[\udc80-\udcff][^\s\"']*")


def explain_error(error: BaseException) -> tuple[str, int]:
    """Returns the message for the user and the exit code; raises the error again if it is a defect of this software."""
    from export.write import ParityError
    from teachers.runs.devices import require_backend
    from teachers.runs.errors import DivergedError, InputError, SaveError, StoppedError

    if isinstance(error, InputError):
        return str(error), BAD_INPUT
    if isinstance(error, StoppedError):
        return str(error), STOPPED
    if isinstance(error, ParityError | DivergedError | SaveError):
        return str(error), FAILED
    explained = _explain_system_error(error) or _explain_device_error(error)
    if explained:
        return explained
    # Whatever asks JAX for its devices first fails in one of these ways where there are none.
    if isinstance(error, RuntimeError | AssertionError):
        try:
            require_backend()
        except InputError as no_backend:
            return str(no_backend), BAD_INPUT
    raise error


def _explain_system_error(error: BaseException) -> tuple[str, int] | None:
    """Returns the message and exit code of an error of the operating system or its memory; None for any other."""
    from teachers.runs.checkpoint_writer import means_full_disk

    if isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    ):
        reason = str(error) or "no memory is left"
        return f"the machine ran out of memory: {reason}; {_LESS_MEMORY}", BAD_INPUT
    if isinstance(error, UnicodeEncodeError) and (name := _UNDECODED.search(error.object)):
        return f"{name[0]}: this name is not UTF-8; rename it", BAD_INPUT
    if not isinstance(error, OSError):
        return None
    if means_full_disk(error):
        place = f"writing {error.filename}: " if error.filename else ""
        return f"{place}the disk is full; make room there ({_INTACT})", FAILED
    if error.errno == errno.ENOENT and not error.filename:  # Python's search for temporary folders
        return f"{error.strerror}; set TMPDIR to a folder that can be written", BAD_INPUT
    if error.filename and error.errno in _PATH_ERRORS:
        return f"{error.filename}: {error.strerror}; choose another path", BAD_INPUT
    if error.filename:
        return f"{error.filename}: {error.strerror}", FAILED
    return None


def _explain_device_error(error: BaseException) -> tuple[str, int] | None:
    """Returns the message and exit code of an error that XLA raised on a device; None for any other."""
    import jax

    from teachers.runs.errors import RESUME_ADVICE

    reason = str(error).strip().partition("\n")[0]
    status = reason.partition(":")[0]
    is_from_xla = isinstance(error, jax.errors.JaxRuntimeError)
    is_exhausted = status == "RESOURCE_EXHAUSTED" or "CUDA_ERROR_OUT_OF_MEMORY" in reason
    if (is_from_xla and is_exhausted) or _ALLOCATION.match(reason):
        return f"the device ran out of memory: {reason}; {_LESS_MEMORY}", BAD_INPUT
    # XLA reports an error that Python code raised in a callback as a failure of its own.
    if is_from_xla and status in _DEVICE_FAILURES and "callback" not in reason.lower():
        return (
            f"the device failed: {reason}; look at the device and its driver; {RESUME_ADVICE} ({_INTACT})",
            FAILED,
        )
    return None
