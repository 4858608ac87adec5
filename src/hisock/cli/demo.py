"""``hisock demo``: a server and three clients talk through real sockets, visibly."""

from __future__ import annotations

__all__ = ("demo",)

import json
import queue
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from hisock import (
    ClientInfo,
    HiSockClient,
    ThreadedHiSockServer,
    connect,
    start_threaded_server,
)

#: Seconds that any single step may take before the demo counts as failed.
_PATIENCE = 5.0
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

    def happened(self, event: str) -> None:
        """The server's thread saw something that the main thread waits for."""
        self._events.put(event)

    def expect(self, event: str) -> None:
        """Wait until the server's thread saw exactly this, next."""
        seen = self._events.get(timeout=_PATIENCE)
        if seen != event:
            raise RuntimeError(f"expected {event!r}, saw {seen!r}")


def demo() -> None:
    """Start a server, connect three clients, let them talk, and show each step."""
    stage = _Stage()
    server = start_threaded_server(("127.0.0.1", 0))
    _prepare(server, stage)
    with server:
        stage.says("server", f"listens at {server.addr[0]}:{server.addr[1]}")
        clients = _join(server, stage)
        _talk(server, stage, *clients)
        _change(server, stage, *clients)
        for client in clients:
            client.close()
    stage.title("Done")
    stage.code("Now the same in two files of your own: README.md, five-minute start.")


def _prepare(server: ThreadedHiSockServer, stage: _Stage) -> None:
    """The server's handlers: all that this demo has for a server."""

    @server.on("join")
    def joined(client: ClientInfo) -> None:
        stage.says("server", f"{client['name']} joined group {client['group']}")
        server.send_client(client, "welcome", f"hello {client['name']}!")
        stage.happened("join")

    @server.on("say")
    def say(client: ClientInfo, message: str) -> None:
        stage.says("server", f"{client['name']} says {message!r} to {client['group']}")
        server.send_group(client["group"], "said", [client["name"], message])
        stage.happened("say")

    @server.on("square")
    def square(client: ClientInfo, number: int) -> None:
        server.send_client_raw(client, number**2)
        stage.happened("square")

    @server.on("average")
    def average(client: ClientInfo, numbers: list[float]) -> float:
        return sum(numbers) / len(numbers)

    @server.on("countdown")
    def countdown(client: ClientInfo, start: int) -> Iterator[int]:
        yield from range(start, 0, -1)

    @server.on("name_change")
    def renamed(client: ClientInfo, old: str, new: str) -> None:
        stage.says("server", f"{old} is now called {new}")
        stage.happened("rename")

    @server.on("leave")
    def left(client: ClientInfo) -> None:
        stage.says("server", f"{client['name']} left; {len(server)} still here")
        stage.happened("leave")


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
    client = connect(server.addr, name=name, group=group)

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
