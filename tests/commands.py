"""Runs commands of the command line inside the test's process, and checks how they refuse bad input."""

import json

from typer.testing import CliRunner

from distill.cli import app

runner = CliRunner()


def run(*arguments: object):
    """Runs a command, and returns its exit code and what it printed."""
    return runner.invoke(app, [str(argument) for argument in arguments])


def run_json(*arguments: object):
    """Runs a command with `--json`, and returns the JSON value, which must be all that it prints on stdout."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def assert_refused(result, *words: str) -> None:
    """Asserts that a command ended with exit code 2 and one line on stderr, which contains all of these words."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert "Traceback" not in result.output


def set_options(settings: dict[str, object]) -> list[str]:
    """Returns the settings as `--set` options."""
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
