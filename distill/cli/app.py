"""The command line `crl-distill`: its commands, and how errors become one line and an exit code.

The modules beside this one hold one group of commands each. They import what they need when a command runs, so that help
and mistyped options are answered at once.
"""

import os
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from distill.cli import share
from distill.cli.demo import demo_command
from distill.cli.distill import compare_command, distill_command
from distill.cli.errors import BAD_INPUT, FAILED, INTERRUPTED, OUTPUT_CLOSED, explain_error
from distill.cli.export import export_command, verify_command
from distill.cli.play import evaluate_command, info_command, play_command
from distill.cli.tasks import tasks_command
from distill.cli.terminal import (
    discard,
    is_closed,
    prepare_streams,
    print_error,
    print_traceback,
)
from distill.cli.train import sweep_command, train_teacher_command

# Typer has carried Click inside since 0.27 and does not export these two.
UsageError: type[Any] = typer.BadParameter.__mro__[1]
ClickException: type[Any] = typer.BadParameter.__mro__[2]


class CommandGroup(TyperGroup):
    """Commands that end with one line on stderr and an exit code where they fail."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Runs a command and exits."""
        prepare_streams()
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
        except SystemExit as exit_request:
            # Typer exits so where a pipe breaks, whichever it is.
            broken = exit_request.__context__
            if not isinstance(broken, BrokenPipeError):
                raise
            if not is_closed(sys.stdout):
                _exit_with_error(*explain_error(broken))
            discard(sys.stdout)
            code = OUTPUT_CLOSED
        except Exception as error:
            _exit_with_error(*explain_error(error))
        if code == INTERRUPTED:  # Typer returns it for Ctrl-C inside a command
            _exit_with_error("interrupted; checkpoints already written are intact", INTERRUPTED)
        _exit(code if isinstance(code, int) else 0)


def _exit_with_error(message: str, code: int) -> NoReturn:
    print_error(message)
    _exit(code)


def _exit(code: int) -> NoReturn:
    """Writes what is left of the results, and exits."""
    try:
        sys.stdout.flush()
    except OSError as error:
        discard(sys.stdout)
        if code == 0 and isinstance(error, BrokenPipeError):
            code = OUTPUT_CLOSED
        elif code == 0:
            print_error(f"cannot write the results on stdout: {error.strerror}")
            code = FAILED
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
    """Trains deep contrastive-RL teachers in MuJoCo, distills them into shallow students, exports these to ONNX."""
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
    sys.excepthook = print_traceback
    try:
        app(prog_name="crl-distill")
    except SystemExit as exit_request:
        if exit_request.code != INTERRUPTED:
            raise
        # Python's normal exit crashes at times after Ctrl-C, presumably because JAX is still computing. Nothing is left
        # to do in it.
        os._exit(INTERRUPTED)
