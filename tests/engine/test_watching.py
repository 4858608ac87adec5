"""What is counted for the dashboard, and what is kept of what clients send."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from msgspec import Raw

from hisock import ClientInfo, HiSockClient, HiSockServer, aio, connect
from hisock.engine.watching import Watching
from hisock.session.events import Messages
from hisock.wire import compact
from hisock.wire.frames import Message, Roster

HOST = "127.0.0.1"


@pytest.fixture
def server() -> Iterator[HiSockServer]:
    """A server that the test turns, with a dashboard."""
    with HiSockServer((HOST, 0), dashboard=True) as server:
        server.on("join")(lambda client: None)
        server.on("leave")(lambda client: None)
        yield server


@pytest.fixture
def watching(server: HiSockServer) -> Watching:
    """What watches it."""
    found = server._engine.watching
    assert found is not None
    return found


@pytest.fixture
def join(server: HiSockServer) -> Iterator[Callable[[str], HiSockClient]]:
    """Makes clients that are there."""
    with ExitStack() as stack:

        def join(name: str) -> HiSockClient:
            client = connect(server.addr, name=name, reconnect=False)
            stack.enter_context(client)
            server.run(5)
            return client

        yield join
        turning(server, stack.close)


def turning(server: HiSockServer, action: Callable[[], None]) -> None:
    """Do what waits for the server, which is turned meanwhile."""
    acting = threading.Thread(target=action)
    acting.start()
    while acting.is_alive():
        server.run(0.01)


def row(watching: Watching, name: str = "ann") -> dict[str, Any]:
    """What is shown of a client."""
    clients = watching.snapshot("", 100)["clients"]
    found: dict[str, Any] = next(each for each in clients if each["name"] == name)
    return found


def test_a_server_without_a_dashboard_counts_nothing() -> None:
    """It has none of what counts."""
    with HiSockServer((HOST, 0)) as server:
        engine = server._engine
        assert engine.watching is None
        assert engine.reports.watch is None
        assert type(engine.outgoing).__name__ == "Post"
        assert type(engine._runner).__name__ == "Runner"
        assert not engine.pace.is_set


def test_each_message_is_counted_once(
    server: HiSockServer, watching: Watching, join: Callable[[str], HiSockClient]
) -> None:
    """However it is sent: alone, with others, answered, to all, droppable."""
    ann = join("ann")
    server.on("echo")(lambda client, number: client.send("echoed", number))
    server.on("double")(lambda client, number: number * 2)
    with ann.batch():
        for number in range(5):
            ann.send("echo", number)
    server.run(5)
    assert [ann.recv("echoed", timeout=5) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert (row(watching)["came"], row(watching)["went"]) == (5, 5)

    server.send_client("ann", "news", 1)
    server.send_all_clients("news", 2)
    server.send_client("ann", "news", 3, when_slow="latest")
    assert row(watching)["went"] == 8

    while not row(watching)["buffer"]:  # until the network takes no more
        before = row(watching)["went"]
        server.send_client("ann", "large", b"x" * 200_000)
    server.send_client("ann", "news", 4, when_slow="latest")
    server.send_client("ann", "news", 5, when_slow="drop_oldest")
    assert row(watching)["went"] == before + 3


def test_each_gets_a_broadcast_counted_once(
    server: HiSockServer, watching: Watching, join: Callable[[str], HiSockClient]
) -> None:
    """At once, and collected with the rest of a batch."""
    names = ["ann", "bob", "cid"]
    clients = [join(name) for name in names]
    server.run(0.01)
    before = [row(watching, name)["went"] for name in names]

    server.send_all_clients("news", 1)
    server.send_all_clients("news", 2, exclude="cid")
    after = [row(watching, name)["went"] for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 2, 1]

    server.on("go")(lambda client: server.send_all_clients("news", 3))
    with clients[0].batch():
        for _ in range(5):
            clients[0].send("go")
    server.run(5)
    assert [row(watching, name)["went"] for name in names] == [n + 5 for n in after]


def test_an_async_server_counts_as_well() -> None:
    """What its handlers send is gathered until the end of a turn of the loop."""

    async def main() -> None:
        async with aio.start_server((HOST, 0), dashboard=True) as server:

            @server.on("echo")
            async def echo(client: Any, number: int) -> None:
                client.send("echoed", number)

            async with aio.connect(server.addr, name="ann", reconnect=False) as ann:
                for number in range(3):
                    ann.send("echo", number)
                    assert await ann.recv("echoed", timeout=5) == number
                watching = server._engine.watching
                assert watching is not None
                assert (row(watching)["came"], row(watching)["went"]) == (3, 3)

    asyncio.run(main())


def test_a_call_inside_a_call_is_counted_and_shown(
    server: HiSockServer, watching: Watching, join: Callable[[str], HiSockClient]
) -> None:
    """It overtakes what waits, so it is not in the batch."""
    ann = join("ann")
    server.on("double")(lambda client, number: number * 2)
    answers: list[int] = []

    @server.on("outer", threaded=True)
    def outer(client: ClientInfo) -> None:
        answers.append(client.call("inner", timeout=5))

    ann.on("inner")(lambda: ann.call("double", 2))
    number = row(watching)["id"]
    watching.tail(number, 0, payload=True)
    ann.send("outer", None)

    def wait() -> None:
        while not answers:
            ann.update(timeout=0.05)

    turning(server, wait)

    assert answers == [4]
    assert row(watching)["came"] == 2
    tail = watching.tail(number, 0, payload=True)
    assert tail is not None
    rows = [(each["command"], each["payload"]) for each in tail["commands"]]
    assert sorted(rows) == [("double", "2"), ("outer", "")]


def test_rates_are_of_the_time_since_the_last_count(
    server: HiSockServer, watching: Watching, join: Callable[[str], HiSockClient]
) -> None:
    """Messages by seconds, for each client and for all."""
    now = watching.clock()
    watching.clock = lambda: now
    ann = join("ann")
    watching._count()
    server.on("say")(lambda client, text: client.send("said", text))
    with ann.batch():
        for number in range(10):
            ann.send("say", number)
    server.run(5)
    now += 2.0
    watching._count()

    snapshot = watching.snapshot("", 100)
    (shown,) = snapshot["clients"]
    assert (shown["rate_in"], shown["rate_out"]) == (5.0, 5.0)
    assert (snapshot["totals"]["in"], snapshot["totals"]["out"]) == (5.0, 5.0)
    assert snapshot["series"]["in"][-2:] == snapshot["series"]["out"][-2:] == [5.0, 5.0]
    assert (shown["since"], snapshot["server"]["uptime"]) == (2, 2)


def test_who_left_is_forgotten(
    server: HiSockServer, watching: Watching, join: Callable[[str], HiSockClient]
) -> None:
    """Nothing is kept of it, however many come and go."""
    ann = join("ann")
    watching.tail(row(watching)["id"], 0, payload=False)
    server.send_client("ann", "news", 1)
    turning(server, ann.close)
    watching._count()

    assert len(server) == 0
    assert not watching._counts
    assert not watching._sent
    assert not watching._tails


def test_a_tail_ends_and_the_oldest_gives_way(
    server: HiSockServer, watching: Watching, join: Callable[[str], HiSockClient]
) -> None:
    """Ten seconds after nobody asked; eight clients are followed at once."""
    now = watching.clock()
    watching.clock = lambda: now
    for number in range(9):
        join(f"client {number}")
        watching.tail(row(watching, f"client {number}")["id"], 0, payload=False)
    assert len(watching._tails) == 8
    now += 9.0
    watching._count()
    assert len(watching._tails) == 8
    now += 2.0
    watching._count()
    assert not watching._tails


def test_pings_are_sent_only_while_somebody_looks(
    server: HiSockServer, watching: Watching, join: Callable[[str], HiSockClient]
) -> None:
    """And then one in five seconds for each client."""
    now = watching.clock()
    watching.clock = lambda: now
    join("ann")
    (link,) = server._engine.registry
    asked: list[float | None] = []
    for seconds in (0.0, 0.0, 4.0, 1.0):
        now += seconds
        link.connection.pinged_at = None
        watching._count()
        asked.append(link.connection.pinged_at)
        watching.snapshot("", 1)

    assert asked == [None, now - 5.0, None, now]


def test_what_is_no_message_is_named_by_its_kind(
    server: HiSockServer, watching: Watching, join: Callable[[str], HiSockClient]
) -> None:
    """Raw content and frames without a command, broken ones too; they are no messages,
    so only the raw one counts."""
    join("ann")
    number = row(watching)["id"]
    watching.tail(number, 0, payload=True)
    (link,) = server._engine.registry
    bodies = [
        compact.encode(Message(None, compact.raw(b"<b>\xff")))[4:],
        compact.encode(Roster(True))[4:],
        b"\x91\xc1",
        compact.encode(Message("bad", Raw(b"\xa2\xff\xfe")))[4:],
    ]
    messages = Messages(bodies, is_packed=True)
    assert list(messages.rest) == bodies
    before = row(watching)["came"]
    watching.handled(link, messages, 0)

    tail = watching.tail(number, 0, payload=True)
    assert tail is not None
    assert [(each["command"], each["payload"]) for each in tail["commands"]] == [
        ("(raw)", "<b>\ufffd"),
        ("(roster)", None),
        ("(malformed)", None),
        ("bad", "(malformed)"),
    ]
    assert row(watching)["came"] == before + 2


def test_a_batch_that_was_cut_short_is_no_trouble(
    server: HiSockServer, watching: Watching, join: Callable[[str], HiSockClient]
) -> None:
    """A handler that disconnects its client ends the batch it is in."""
    ann = join("ann")
    server.on("kick")(lambda client: server.disconnect_client(client))
    with ann.batch():
        for _ in range(3):
            ann.send("kick", None)
    server.run(5)

    assert len(server) == 0
    assert watching.snapshot("", 1)["clients"] == []


def test_an_exception_with_a_text_of_its_own_is_shown_by_its_name(
    server: HiSockServer, watching: Watching, join: Callable[[str], HiSockClient]
) -> None:
    """Even if that text cannot be had."""

    class Broken(Exception):
        """It fails when it is shown."""

        def __str__(self) -> str:
            raise RuntimeError("no text")

    server.on_error(lambda error: None)
    ann = join("ann")

    @server.on("fail")
    def fail(client: Any) -> None:
        raise Broken

    server._engine.reports.raises = True
    ann.send("fail", None)
    with pytest.raises(Broken):
        server.run(5)

    (error,) = watching.snapshot("", 1)["errors"]
    assert (error["text"], error["code"]) == ("Broken", "handler")


def test_the_link_of_a_server_at_a_unix_socket_is_for_a_proxy(tmp_path: Any) -> None:
    """It names this machine's usual port, where the proxy would be."""
    with HiSockServer(f"unix:{tmp_path}/socket", dashboard=True) as server:
        url = str(server.dashboard_url)

    assert url.startswith("http://localhost/dashboard#token=")
