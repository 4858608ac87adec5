"""``hisock demo``: a server and three clients talk through real sockets, visibly.

The same server has a page for browsers, and with ``--serve`` goes on having it.
"""

from __future__ import annotations

__all__ = ("demo",)

import json
import queue
import time
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from hisock import (
    ClientInfo,
    HiSockClient,
    HiSockError,
    ThreadedHiSockServer,
    connect,
    get_local_ip,
    iptup_to_str,
    start_threaded_server,
)
from hisock.cli.board import PAGES, Board

#: Seconds that any single step may take before the demo counts as failed.
_PATIENCE = 5.0
#: The groups of the demo's own clients; visitors of the page are in others.
_GROUPS = ("red", "blue")
#: Hosts that mean every interface of this machine: by which it reaches itself.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_STYLES = {"server": "bold cyan", "ann": "green", "bob": "yellow", "cho": "magenta"}


class _Stage:
    """Prints what happens, who by who, from any thread."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._step = 0
        self._events: queue.Queue[str] = queue.Queue()

    def title(self, text: str) -> None:
        self._step += 1
        self._console.print(f"\n[bold]{self._step}. {text}[/bold]")

    def says(self, who: str, text: str) -> None:
        style = _STYLES.get(who, "yellow")
        self._console.print(Text(f"{who:>9}  ", style), Text(text), sep="")

    def code(self, text: str) -> None:
        self._console.print(Text(f"{'':11}{text}", "dim"))

    def happened(self, event: str, client: ClientInfo) -> None:
        """The server's thread saw something that the main thread waits for."""
        if client["group"] in _GROUPS:
            self._events.put(event)

    def expect(self, event: str) -> None:
        """Wait until the server's thread saw exactly this, next."""
        seen = self._events.get(timeout=_PATIENCE)
        if seen != event:
            raise RuntimeError(f"expected {event!r}, saw {seen!r}")


def demo(
    serve: Annotated[
        bool, typer.Option("--serve", help="Keep the page open until Ctrl-C.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 lets your network in.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")
    ] = 0,
) -> None:
    """Start a server, connect three clients, let them talk, and show each step.

    The server also has a page: a whiteboard that all who open it share.
    """
    stage = _Stage()
    try:
        server = start_threaded_server((host, port), pages=PAGES)
    except (HiSockError, OSError) as error:
        raise typer.BadParameter(f"cannot listen at {host}:{port}: {error}") from error
    _prepare(server, stage)
    with server:
        stage.says("server", f"listens at {iptup_to_str(server.addr)}")
        stage.says("server", f"has a whiteboard for browsers at {_link(server)}")
        clients = _join(server, stage)
        _talk(server, stage, *clients)
        _change(server, stage, *clients)
        for client in clients:
            client.close()
        stage.title("Done")
        stage.code("The same in two files of your own: README.md, five-minute start.")
        if serve:
            _keep_serving(server, stage)
        else:
            stage.code("The whiteboard closes now; hisock demo --serve keeps it open.")


def _reachable(server: ThreadedHiSockServer) -> tuple[str, int]:
    """Where this machine reaches the server."""
    host, port = server.addr[:2]
    return _EVERYWHERE.get(host, host), port


def _link(server: ThreadedHiSockServer) -> str:
    return f"http://{iptup_to_str(_reachable(server))}/"


def _keep_serving(server: ThreadedHiSockServer, stage: _Stage) -> None:
    """Leave the whiteboard open until Ctrl-C."""
    stage.title("The whiteboard stays open, until Ctrl-C")
    stage.says("server", f"open {_link(server)} in two windows")
    host, port = server.addr[:2]
    if host in _EVERYWHERE:
        phone = iptup_to_str((get_local_ip(), port))
        stage.says("server", f"on a phone in your network http://{phone}/")
    else:
        stage.code(f"for phones in your network: --host 0.0.0.0 --port {port}")
    try:
        while True:  # Windows cannot interrupt a join()
            time.sleep(1)
    except KeyboardInterrupt:
        stage.says("server", "closes")


def _prepare(server: ThreadedHiSockServer, stage: _Stage) -> None:
    """The server's handlers: all that this demo has for a server."""
    board = Board()
    server.use(board.handlers)

    @server.every(1 / 30)
    def show_pointers() -> None:
        board.show_pointers(server)

    @server.on_error
    def failed(error: HiSockError) -> None:
        # Who closes the page misses the last pointers of the others, and nothing else.
        if error.code != "undelivered":
            stage.says("server", f"reports: {error}")

    @server.on("join")
    def joined(client: ClientInfo) -> None:
        stage.says("server", f"{client['name']} joined group {client['group']}")
        server.send_client(client, "welcome", f"hello {client['name']}!")
        stage.happened("join", client)

    @server.on("say")
    def say(client: ClientInfo, message: str) -> None:
        stage.says("server", f"{client['name']} says {message!r} to {client['group']}")
        server.send_group(client["group"], "said", [client["name"], message])
        stage.happened("say", client)

    @server.on("square")
    def square(client: ClientInfo, number: int) -> None:
        server.send_client_raw(client, number**2)
        stage.happened("square", client)

    @server.on("average")
    def average(client: ClientInfo, numbers: list[float]) -> float:
        return sum(numbers) / len(numbers)

    @server.on("countdown")
    def countdown(client: ClientInfo, start: int) -> Iterator[int]:
        yield from range(start, 0, -1)

    @server.on("name_change")
    def renamed(client: ClientInfo, old: str, new: str) -> None:
        stage.says("server", f"{old} is now called {new}")
        stage.happened("rename", client)

    @server.on("leave")
    def left(client: ClientInfo) -> None:
        stage.says("server", f"{client['name']} left; {len(server)} still here")
        stage.happened("leave", client)


def _join(
    server: ThreadedHiSockServer, stage: _Stage
) -> tuple[HiSockClient, HiSockClient, HiSockClient]:
    stage.title("Three clients join, with names and groups")
    stage.code('connect(addr, name="ann", group="red")')
    return (
        _client(server, stage, "ann", "red"),
        _client(server, stage, "bob", "red"),
        _client(server, stage, "cho", "blue"),
    )


def _client(
    server: ThreadedHiSockServer, stage: _Stage, name: str, group: str
) -> HiSockClient:
    client = connect(_reachable(server), name=name, group=group)

    @client.on("welcome")
    def welcome(message: str) -> None:
        stage.says(name, f"got the command welcome with {message!r}")

    @client.on("said")
    def said(message: list) -> None:  # type: ignore[type-arg]  # as a user writes it
        who, what = message
        stage.says(client.name or "", f"hears {who} say {what!r}")

    @client.on("news")
    def news(message: str) -> None:
        stage.says(client.name or "", f"reads {message!r}")

    stage.expect("join")
    client.update()
    return client


def _talk(
    server: ThreadedHiSockServer,
    stage: _Stage,
    ann: HiSockClient,
    bob: HiSockClient,
    cho: HiSockClient,
) -> None:
    stage.title("A command goes to the server, and from there to a group")
    stage.code('ann.send("say", "anyone up for a game?")')
    ann.send("say", "anyone up for a game?")
    stage.expect("say")
    ann.update()
    bob.update()

    stage.title("A question and a raw answer, without a command")
    stage.code('cho.send("square", 12); cho.recv_raw()')
    cho.send("square", 12)
    answer = cho.recv_raw()
    stage.expect("square")
    stage.says("cho", f"got {json.loads(answer)}")

    stage.title("A call: what the handler returns is the answer")
    stage.code('cho.call("average", [1, 2, 6], type=float)')
    mean = cho.call("average", [1, 2, 6], type=float)
    stage.says("cho", f"is told {mean}")

    stage.title("A stream: what a generator yields, as it comes")
    stage.code('for number in bob.stream("countdown", 3): ...')
    stage.says("bob", f"reads {list(bob.stream('countdown', 3))}")

    stage.title("Everybody at once")
    stage.code('server.send_all_clients("news", "the game begins")')
    server.send_all_clients("news", "the game begins")
    for client in (ann, bob, cho):
        client.update()


def _change(
    server: ThreadedHiSockServer,
    stage: _Stage,
    ann: HiSockClient,
    bob: HiSockClient,
    cho: HiSockClient,
) -> None:
    stage.title("A client takes another name, and is found by it")
    stage.code('bob.change_name("rob"); server.send_client("rob", "news", ...)')
    bob.change_name("rob")
    stage.expect("rename")
    server.send_client("rob", "news", "nice name")
    bob.update()

    stage.title("A client leaves, and the others are told")
    stage.code("cho.close()")
    for client in (ann, bob):
        _tell_of_leaving(client, stage)
    cho.close()
    stage.expect("leave")
    for client in (ann, bob):
        client.update()


def _tell_of_leaving(client: HiSockClient, stage: _Stage) -> None:
    @client.on("client_disconnect")
    def left(other: ClientInfo) -> None:
        stage.says(client.name or "", f"is told that {other['name']} left")
