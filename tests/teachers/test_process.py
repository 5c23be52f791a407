import os
import pwd
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from teachers.process import cache_folder, in_32_bits, use_compilation_cache


@pytest.fixture(autouse=True)
def compilation_cache(monkeypatch):
    """Leaves the compilation cache of the tests as it is."""
    folder = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    yield
    jax.config.update("jax_compilation_cache_dir", folder)


def test_cache_folder_lies_in_home(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "crl-distill"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/caches")
    assert cache_folder() == tmp_path / "caches" / "crl-distill"


def test_cache_folder_needs_home_directory(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="there is no home directory"):
        cache_folder()
    assert not list(tmp_path.iterdir())


def test_use_compilation_cache_creates_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert use_compilation_cache() == ""
    folder = tmp_path / ".cache" / "crl-distill" / "jax"
    assert folder.is_dir()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/jax")
    assert use_compilation_cache() == ""
    assert jax.config.jax_compilation_cache_dir == "gs://bucket/jax"


def test_use_compilation_cache_says_why_there_is_none(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").touch()
    for name, value, reason in (
        ("HOME", str(tmp_path / "nowhere"), f"there is no home directory {tmp_path}/nowhere"),
        ("HOME", os.devnull, "there is no home directory"),
        (
            "XDG_CACHE_HOME",
            str(tmp_path / "file"),
            f"{tmp_path}/file/crl-distill/jax: Not a directory",
        ),
        ("JAX_COMPILATION_CACHE_DIR", "/proc/jax", "/proc/jax: No such file or directory"),
    ):
        monkeypatch.setenv(name, value)
        assert use_compilation_cache() == reason
        assert jax.config.jax_compilation_cache_dir is None


def test_process_gives_user_without_home_an_empty_one() -> None:
    program = "import pwd\npwd.getpwuid = lambda _: {}['no such user']\n"
    program += "import teachers.process\nfrom pathlib import Path\nprint(Path.home())"
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{os.devnull}\n", "")
    assert Path(pwd.getpwuid(os.getuid()).pw_dir) != Path(os.devnull)


def test_in_32_bits_guards_functions_and_refuses_generators() -> None:
    def make() -> jax.Array:
        return jnp.arange(3)

    def generate():
        yield jnp.arange(3)

    with jax.enable_x64(True):
        assert make().dtype == jnp.int64
        assert in_32_bits(make)().dtype == jnp.int32
    with pytest.raises(TypeError, match="generate is a generator"):
        in_32_bits(generate)
