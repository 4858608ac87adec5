"""``hisock serve``: a server that passes on what its clients say; no code needed."""

from __future__ import annotations

__all__ = ("serve",)

from contextlib import suppress
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from hisock import ClientInfo, HiSockError, HiSockServer, start_server, utils

_EVERYWHERE = ("", "0.0.0.0", "::")

_ADDRESS = typer.Argument("127.0.0.1:6969", help="Where; :6969 is every interface.")
_PAGES = typer.Option(None, "--pages", help="A folder of web pages to serve, too.")
_DASHBOARD = typer.Option(
    False, "--dashboard", help="Show a dashboard to browsers on this machine."
)


def serve(
    address: str = _ADDRESS, pages: Path | None = _PAGES, dashboard: bool = _DASHBOARD
) -> None:
    """Run a server that passes every command on to the others in the same room.

    A room is a group; the clients without one are in a room together. The others get
    the command and its content as they were sent, and nothing of who sent them. A call
    is passed on as well, and answered with None. Ctrl-C ends it.
    """
    console = Console(highlight=False, soft_wrap=True)
    try:
        server = start_server(address, pages=pages, dashboard=dashboard)
    except HiSockError as error:
        typer.echo(f"hisock serve: {error}", err=True)
        raise typer.Exit(2) from error
    with server:
        _prepare(server, console)
        _tell_addresses(server, console, has_pages=pages is not None)
        server.run_forever()
    console.print("closed")


def _prepare(server: HiSockServer, console: Console) -> None:
    @server.on("join")
    def joined(client: ClientInfo) -> None:
        console.print(_line("joined", client))

    @server.on("leave")
    def left(client: ClientInfo) -> None:
        console.print(_line("left", client))

    @server.on("*")
    def pass_on(client: ClientInfo, command: str, content: object) -> None:
        # What cannot be sent, ``$command$`` say, is for its sender to know.
        with suppress(HiSockError):
            room = client["group"]
            if room is not None:
                server.group(room).send(command, content, exclude=client)
                return
            elsewhere = [other for other in server if other["group"] is not None]
            server.send_all_clients(command, content, exclude=[client, *elsewhere])


def _line(what: str, client: ClientInfo) -> Text:
    """What happened to whom. Their words are text, and what is in them is seen."""
    name, group = client["name"], client["group"]
    who = "somebody without a name" if name is None else _seen(name)
    room = "" if group is None else f", in {_seen(group)}"
    return Text(f"{what:>9}  {who}{room}")


def _seen(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def _tell_addresses(server: HiSockServer, console: Console, *, has_pages: bool) -> None:
    """Where clients and browsers find it."""
    where: list[str] = []
    if isinstance(server.addr, tuple):
        host, port = server.addr
        hosts = [host]
        if host in _EVERYWHERE:
            hosts = list(dict.fromkeys([utils.get_local_ip(), "127.0.0.1"]))
        where = [
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts
        ]
    for place in where or [str(server.addr)]:
        console.print(Text(f"{'clients':>9}  {place}"))
    for place in where:
        console.print(Text(f"{'web':>9}  ws://{place}"))
        if has_pages:
            console.print(Text(f"{'pages':>9}  http://{place}/"))
    if server.dashboard_url is not None:
        console.print(Text(f"{'dashboard':>9}  {server.dashboard_url}"))
    console.print(Text("Ctrl-C ends it.", "dim"))
