"""`crl-distill share`: runs as archives and on the Hugging Face hub."""

from typing import Annotated

import typer

from distill.cli.console import prepare_process, print_result
from distill.cli.options import Checkpoint, Json, parse_checkpoint
from distill.cli.tables import pair_table

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

Run = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a teacher's or student's run.")]
Repo = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Model repository on the hub.")]
NewRun = Annotated[str, typer.Option(metavar="DIR", help="New folder of the run.")]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help="Include everything in RUN, with metrics and the state that --resume needs.",
    ),
]


@app.callback()
def show_help(context: typer.Context) -> None:
    """Packs runs into archives, and pushes and pulls them with the Hugging Face hub."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("pack")
def pack_command(
    run: Run,
    out: Annotated[str, typer.Option(metavar="FILE", help="New archive, a .zip.")],
    full: Full = False,
    checkpoint: Checkpoint = "newest",
    as_json: Json = False,
) -> None:
    """Packs a run's policy and critic into one file, with a model card and checksums.

    \b
    Example:
      crl-distill share pack runs/teacher --out teacher.zip
    """
    prepare_process()
    from export.share.archive import pack

    result = pack(run, out, full=full, checkpoint=parse_checkpoint(checkpoint))
    print_result(result, as_json, lambda: pair_table("packed", result))


@app.command("unpack")
def unpack_command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Archive written by pack.")],
    out: NewRun,
    as_json: Json = False,
) -> None:
    """Verifies an archive, then writes its run into a new folder. No code in it is executed.

    \b
    Example:
      crl-distill share unpack teacher.zip --out runs/teacher
    """
    prepare_process(computes=False)
    from export.share.archive import unpack

    result = unpack(file, out)
    print_result(result, as_json, lambda: pair_table("unpacked", result))


@app.command("push")
def push_command(
    run: Run,
    repo: Repo,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository visible to its owner only.")
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option(help="Branch, created where it does not exist.  [default: the main branch]"),
    ] = None,
    full: Full = False,
    checkpoint: Checkpoint = "newest",
    as_json: Json = False,
) -> None:
    """Uploads a run to the Hugging Face hub, where it replaces the one pushed before.

    Needs `hf auth login` or HF_TOKEN. HF_ENDPOINT names a mirror.

    \b
    Example:
      crl-distill share push runs/teacher OWNER/NAME --private
    """
    prepare_process()
    _disable_progress_bars()
    from export.share.hub import push

    result = push(
        run,
        repo,
        private=private,
        revision=revision,
        full=full,
        checkpoint=parse_checkpoint(checkpoint),
    )
    print_result(result, as_json, lambda: pair_table("pushed", result))


@app.command("pull")
def pull_command(
    repo: Repo,
    out: NewRun,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit.  [default: the main branch]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Downloads a run from the Hugging Face hub into a new folder, and verifies it. No code in it is executed.

    \b
    Example:
      crl-distill share pull OWNER/NAME --out runs/teacher
    """
    prepare_process(computes=False)
    _disable_progress_bars()
    from export.share.hub import pull

    result = pull(repo, out, revision=revision)
    print_result(result, as_json, lambda: pair_table("pulled", result))


def _disable_progress_bars() -> None:
    """Keeps the hub's client from drawing a progress bar for each file."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined] # documented

    disable_progress_bars()
