"""`crl-distill share`: runs as archives and on the Hugging Face hub."""

from typing import Annotated

import typer

from distill.cli.console import Checkpoint, Json, pair_table, prepare, show, which

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

Run = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a teacher's or student's run.")]
Repo = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Model repository on the hub.")]
NewRun = Annotated[str, typer.Option(metavar="DIR", help="New folder of the run.")]
Full = Annotated[
    bool,
    typer.Option(
        "--full", help="Everything in RUN, with metrics and the state that --resume needs."
    ),
]


@app.callback()
def share(context: typer.Context) -> None:
    """Packs runs into archives, and pushes and pulls them with the Hugging Face hub."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    prepare()


@app.command()
def pack(
    run: Run,
    out: Annotated[str, typer.Option(metavar="FILE", help="New archive, a .zip.")],
    full: Full = False,
    checkpoint: Checkpoint = "newest",
    json: Json = False,
) -> None:
    """Packs a run's policy and critic into one file, with a model card and checksums.

    \b
    Example:
      crl-distill share pack runs/teacher --out teacher.zip
    """
    from export.share.archive import pack as write

    result = write(run, out, full=full, checkpoint=which(checkpoint))
    show(result, json, lambda: pair_table("packed", result))


@app.command()
def unpack(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Archive that pack wrote.")],
    out: NewRun,
    json: Json = False,
) -> None:
    """Verifies an archive, then writes its run into a new folder. Nothing of it is run.

    \b
    Example:
      crl-distill share unpack teacher.zip --out runs/teacher
    """
    from export.share.archive import unpack as read

    result = read(file, out)
    show(result, json, lambda: pair_table("unpacked", result))


@app.command()
def push(
    run: Run,
    repo: Repo,
    private: Annotated[
        bool, typer.Option("--private", help="Nobody but you may see a new repository.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, created if need be.  [default: the main one]")
    ] = None,
    full: Full = False,
    checkpoint: Checkpoint = "newest",
    json: Json = False,
) -> None:
    """Uploads a run to the Hugging Face hub, in place of the one pushed there before.

    Needs `hf auth login` or HF_TOKEN. HF_ENDPOINT names a mirror.

    \b
    Example:
      crl-distill share push runs/teacher OWNER/NAME --private
    """
    _without_bars()
    from export.share.hub import push as upload

    result = upload(
        run, repo, private=private, revision=revision, full=full, checkpoint=which(checkpoint)
    )
    show(result, json, lambda: pair_table("pushed", result))


@app.command()
def pull(
    repo: Repo,
    out: NewRun,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit.  [default: the main branch]")
    ] = None,
    json: Json = False,
) -> None:
    """Downloads a run from the Hugging Face hub into a new folder, and verifies it. Nothing of it is run.

    \b
    Example:
      crl-distill share pull OWNER/NAME --out runs/teacher
    """
    _without_bars()
    from export.share.hub import pull as download

    result = download(repo, out, revision=revision)
    show(result, json, lambda: pair_table("pulled", result))


def _without_bars() -> None:
    """The hub's client draws a bar for each file."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined] # documented

    disable_progress_bars()
