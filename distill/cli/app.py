"""The command line `crl-distill`: its commands, and how errors become one line and an exit code.

The modules beside this one hold one group of commands each. They import what they need when a command runs, so that help
and mistyped options are answered at once.
"""

import contextlib
import os
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from distill.cli import share
from distill.cli.console import print_error
from distill.cli.demo import demo_command
from distill.cli.distill import compare_command, distill_command
from distill.cli.export import export_command, verify_command
from distill.cli.play import evaluate_command, info_command, play_command
from distill.cli.tasks import tasks_command
from distill.cli.train import sweep_command, train_teacher_command

# Typer has carried Click inside since 0.27 and does not export these two.
UsageError: type[Any] = typer.BadParameter.__mro__[1]
ClickException: type[Any] = typer.BadParameter.__mro__[2]

FAILED = 1  # what was asked for could not be done
BAD_INPUT = 2
INTERRUPTED = 130  # by Ctrl-C
STOPPED = 143  # by SIGTERM


class CommandGroup(TyperGroup):
    """Commands that end with one line on stderr and an exit code where they fail."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Runs a command and exits."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except UsageError as error:
            command = error.ctx.command_path if error.ctx else "crl-distill"
            message = error.format_message().rstrip(".")
            _exit_with_error(f"{message}; see {command} --help", BAD_INPUT)
        except ClickException as error:
            _exit_with_error(error.format_message(), error.exit_code)
        except (typer.Abort, KeyboardInterrupt):
            code = INTERRUPTED
        except Exception as error:
            _exit_with_error(*_explain_error(error))
        if code == INTERRUPTED:  # Typer returns it for Ctrl-C inside a command
            _exit_with_error("interrupted; checkpoints already written are intact", INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


def _explain_error(error: Exception) -> tuple[str, int]:
    """Returns the message for the user and the exit code; raises the error again if it is a defect of this software."""
    import jax

    from export.write import ParityError
    from teachers.runs.checkpoint_writer import means_full_disk
    from teachers.runs.errors import DivergedError, InputError, SaveError, StoppedError

    if isinstance(error, InputError):
        return str(error), BAD_INPUT
    if isinstance(error, StoppedError):
        return str(error), STOPPED
    if isinstance(error, ParityError | DivergedError | SaveError):
        return str(error), FAILED
    if isinstance(error, OSError) and means_full_disk(error):
        place = f"writing {error.filename}: " if error.filename else ""
        return (
            f"{place}the disk is full; make room there (checkpoints already written are intact)",
            FAILED,
        )
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; choose another path", BAD_INPUT
    if isinstance(error, jax.errors.JaxRuntimeError) and "memory" in str(error).lower():
        return "the device ran out of memory; lower environments, batch, depth or width", BAD_INPUT
    raise error


def _exit_with_error(message: str, code: int) -> NoReturn:
    print_error(message)
    sys.exit(code)


app = typer.Typer(
    cls=CommandGroup,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def show_help(context: typer.Context) -> None:
    """Trains deep contrastive-RL teachers on MJX, distills them into shallow students, exports these to ONNX."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


# In the order in which help lists them.
app.command("tasks")(tasks_command)
app.command("train-teacher")(train_teacher_command)
app.command("sweep")(sweep_command)
app.command("distill")(distill_command)
app.command("compare")(compare_command)
app.command("export")(export_command)
app.command("verify")(verify_command)
app.command("evaluate")(evaluate_command)
app.command("play")(play_command)
app.command("info")(info_command)
app.command("demo")(demo_command)
app.add_typer(share.app, name="share")


def main() -> None:
    """Runs the command line: the entry point of the console script."""
    try:
        app(prog_name="crl-distill")
    except SystemExit as exit_request:
        if exit_request.code != INTERRUPTED:
            raise
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        # Python's normal exit crashes at times after Ctrl-C, presumably because JAX is still computing. Nothing is left
        # to do in it.
        os._exit(INTERRUPTED)
