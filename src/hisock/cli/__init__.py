"""The command line: one file a sub-command, using the library like any user."""

from __future__ import annotations

__all__ = ("app", "main")

import typer

from hisock.cli.demo import demo
from hisock.cli.serve import serve
from hisock.constants import __version__

app = typer.Typer(
    name="hisock",
    help="Networking between Python programs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(serve)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hisock {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False,
        "--version",
        callback=_show_version,
        is_eager=True,
        help="Print the version and end.",
    ),
) -> None:
    """Networking between Python programs."""


def main() -> None:
    """What the ``hisock`` command runs."""
    app()
