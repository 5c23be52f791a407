import errno
import os

import jax
import numpy as np
import pytest

from distill.cli.errors import BAD_INPUT, FAILED, explain_error
from teachers.runs import devices
from teachers.runs.errors import RESUME_ADVICE

JaxError = jax.errors.JaxRuntimeError
EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes."
ILLEGAL = "INTERNAL: CUDA error: an illegal memory access was encountered"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (JaxError(f"{EXHAUSTED}\nBufferAssignment OOM Debugging."), BAD_INPUT, ["the device ran out of memory", EXHAUSTED, "lower environments"]),
        (ValueError(EXHAUSTED), BAD_INPUT, ["the device ran out of memory", EXHAUSTED]),
        (ValueError("RESOURCE_EXHAUSTED: Out of memory allocating 1152921504606846976 bytes."), BAD_INPUT, ["the device ran out of memory"]),
        (JaxError("RESOURCE_EXHAUSTED: too many streams"), BAD_INPUT, ["the device ran out of memory: RESOURCE_EXHAUSTED: too many streams"]),
        (JaxError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory"), BAD_INPUT, ["the device ran out of memory"]),
        (JaxError(f"{ILLEGAL}\nat cuda_executor.cc"), FAILED, ["the device failed", ILLEGAL, f"; {RESUME_ADVICE} ("]),
        (JaxError("UNAVAILABLE: failed to connect"), FAILED, ["the device failed: UNAVAILABLE: failed to connect"]),
        (MemoryError(), BAD_INPUT, ["the machine ran out of memory", "lower environments"]),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), BAD_INPUT, ["the machine ran out of memory", "Cannot allocate"]),
        (OSError(errno.ENOSPC, "No space left", "x.zip"), FAILED, ["writing x.zip", "the disk is full"]),
        (PermissionError(errno.EACCES, "Permission denied", "a b"), BAD_INPUT, ["a b: Permission denied"]),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), BAD_INPUT, ["'/tmp'", "TMPDIR"]),
        (UnicodeEncodeError("utf-8", 'task = "caf\udce9.py:Cart"\n', 11, 12, "surrogates not allowed"), BAD_INPUT, ["caf\udce9.py:Cart: this name is not UTF-8", "rename"]),
    ],
)  # fmt: skip
def test_explain_error_says_what_failed(error, code, words) -> None:
    message, found = explain_error(error)
    assert found == code
    assert "\n" not in message
    for word in words:
        assert word in message
    assert "memory" not in message or "memory" in str(error).lower() or code == BAD_INPUT


@pytest.mark.parametrize(
    "error",
    [
        JaxError("INVALID_ARGUMENT: shapes with memory differ"),
        JaxError("INTERNAL: CpuCallback error calling callback: Traceback"),
        ValueError("out of memory"),
        ValueError("RESOURCE_EXHAUSTED: quota of reads exceeded"),
        KeyError("CUDA_ERROR_OUT_OF_MEMORY"),
        ValueError("INTERNAL: no such table"),
        AssertionError(),
        OSError(errno.EBADF, "Bad file descriptor"),
        UnicodeEncodeError("ascii", "\xb5", 0, 1, "ordinal not in range(128)"),
    ],
)
def test_explain_error_raises_defects_again(error) -> None:
    with pytest.raises(type(error)) as raised:
        explain_error(error)
    assert raised.value is error


@pytest.mark.parametrize(
    ("number", "advises"),
    [(number, True) for number in (
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST),
        *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
    )]
    + [(number, False) for number in (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)],
)  # fmt: skip
def test_explain_error_advises_another_path_only_where_it_helps(number, advises) -> None:
    reason = os.strerror(number)
    message, code = explain_error(OSError(number, reason, "a b"))
    expected = f"a b: {reason}; choose another path" if advises else f"a b: {reason}"
    assert (message, code) == (expected, BAD_INPUT if advises else FAILED)


def test_explain_error_knows_what_jax_and_numpy_raise() -> None:
    for allocate in (jax.numpy.zeros, np.zeros):
        try:
            np.asarray(allocate((2**30, 2**28), "float32"))
        except Exception as error:
            message, code = explain_error(error)
            assert code == BAD_INPUT
            assert "ran out of memory" in message
        else:
            pytest.fail("no machine has 2**60 bytes")


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda': no (set JAX_PLATFORMS='')")])  # fmt: skip
def test_explain_error_names_missing_backend(monkeypatch, error) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(devices.jax, "devices", fail)
    message, code = explain_error(error)
    assert code == BAD_INPUT
    assert "set JAX_PLATFORMS=cpu, or unset it" in message


@pytest.mark.parametrize("error", [TypeError("a defect"), KeyError("goal"), ValueError("negative")])
def test_explain_error_hides_no_defect_behind_a_missing_backend(monkeypatch, error) -> None:
    def fail() -> None:
        raise AssertionError

    monkeypatch.setattr(devices.jax, "devices", fail)
    with pytest.raises(type(error)) as raised:
        explain_error(error)
    assert raised.value is error
