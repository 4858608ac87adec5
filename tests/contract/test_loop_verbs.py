"""The loop verbs: ``every``, ``poll``, time-outs, ``run_forever``, ``use``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from hisock import Handlers, HiSockServer
from hisock.errors import ClientDisconnected, InvalidOption

from . import Net, Peer, Record, Thread, eventually, turn_until


def test_every_is_called_at_that_pace(net: Net) -> None:
    """On every face, as long as it is turned; what it raises costs only itself."""
    server = net.server()
    client = net.client(server)
    got = {server: Record(), client: Record()}
    for peer, record in got.items():
        peer.every(0.002)(lambda record=record: record("tick"))
    net.turn()
    for record in got.values():
        assert record.take(5) == ["tick"] * 5


def test_every_takes_coroutines_on_servers(net: Net) -> None:
    """One that still runs is not begun again."""
    server, got = net.server(), Record()
    running: list[int] = []

    @server.every(0.001)
    async def tick() -> None:
        running.append(1)
        got(len(running))
        await asyncio.sleep(0.004)
        running.pop()

    net.turn()
    assert got.take(4) == [1] * 4


def test_every_keeps_the_beat(hand: Net) -> None:
    """What was missed is skipped, not made up for."""
    server, got = hand.server(), Record()
    server.every(0.02)(lambda: got(time.monotonic()))
    end = time.monotonic() + 0.1
    eventually(lambda: time.monotonic() > end)
    for _ in range(3):
        server.run(timeout=0)
    assert len(got) == 1


def test_every_that_fails_is_told(net: Net) -> None:
    """To ``on_error``, and it is called again."""
    server, got = net.server(), Record()
    server.on_error(lambda error: got(type(error.__cause__)))

    @server.every(0.002)
    def fail() -> None:
        raise ZeroDivisionError

    net.turn()
    assert got.take(3) == [ZeroDivisionError] * 3


@pytest.mark.parametrize("pace", [0, -1, float("nan"), "1", None, True])
def test_a_pace_is_more_than_nothing(hand: Net, pace: Any) -> None:
    """Anything else is refused where it is written."""
    for peer in (server := hand.server(), hand.client(server)):
        with pytest.raises(InvalidOption):
            peer.every(pace)(lambda: None)


def _sides(net: Net) -> list[tuple[Peer, Any, Any]]:
    """A server and a client to turn by hand, how each turns, and who speaks to it."""
    server = net.server()
    server.on("join")(lambda: None)
    up = net.raw_client(server)
    turn_until(server, lambda: len(server))
    down, client = net.raw_server_for(net.raw_listener())
    client.update(timeout=0.01)
    return [(server, server.run, up), (client, client.update, down)]


def _note(peer: Peer, got: Record, seconds: float = 0.0) -> Callable[..., None]:
    """A handler that keeps its message, and may be busy for a while."""

    def note(message: bytes) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        got(message)

    def note_for_server(who: Any, message: bytes) -> None:
        note(message)

    return note_for_server if isinstance(peer, HiSockServer) else note


def test_every_does_not_end_a_wait(hand: Net) -> None:
    """It is called inside the wait of ``run`` and ``update``."""
    if not hand.server_kind.blocking:
        pytest.skip("a non-blocking turn does not wait")
    for peer, turn, raw in _sides(hand):
        got = Record()
        peer.every(0.002)(lambda got=got: got("tick"))
        peer.on("it")(_note(peer, got))
        turning = Thread(turn)
        got.take(5)
        assert turning.is_alive
        raw.send(b"it ")
        turning.result()


def test_a_turn_waits_no_longer_than_its_timeout(hand: Net) -> None:
    """With nothing to do it returns; what was to be done is done."""
    for peer, turn, raw in _sides(hand):
        got = Record()
        peer.on("it")(_note(peer, got))
        began = time.monotonic()
        turn(timeout=0.05)
        took = time.monotonic() - began
        assert took < 1.0
        assert took >= 0.05 or not hand.server_kind.blocking
        raw.send(b"it ")
        turn_until(peer, got.__len__)


def test_poll_never_waits(hand: Net) -> None:
    """It handles one message at least, more as long as the budget lasts."""
    for peer, _, raw in _sides(hand):
        got = Record()
        peer.on("it")(_note(peer, got))
        assert peer.poll() == 0
        raw.send(*(b"it %d" % number for number in range(10)))
        counts = [eventually(partial(peer.poll, 0))]
        counts += [peer.poll(0), peer.poll(0)]
        assert counts == [1, 1, 1]
        rest = 0
        while rest < 7:
            rest += peer.poll(5.0)
        assert (rest, peer.poll()) == (7, 0)
        assert got.take(10) == [b"%d" % number for number in range(10)]


def test_poll_stops_when_the_budget_is_used_up(hand: Net) -> None:
    """A slow handler is not followed by another."""
    for peer, _, raw in _sides(hand):
        got = Record()

        peer.on("it")(_note(peer, got, 0.004))
        raw.send(b"it ", b"it ", b"it ")
        assert eventually(partial(peer.poll, 0.002)) == 1
        assert peer.poll(0.002) == 1
        assert peer.poll(0.002) == 1


def test_poll_of_a_closed_peer_does_nothing(hand: Net) -> None:
    """As a turn."""
    server = hand.server()
    client = hand.client(server)
    closing = Thread(client.close)
    server.close()
    closing.result()
    assert (server.poll(), client.poll()) == (0, 0)


def test_run_forever_returns_once_it_is_closed(net: Net) -> None:
    """From another thread, on every face."""
    if "threaded" in (net.server_kind.face, net.client_kind.face):
        return  # those turn themselves
    server, got = net.server(), Record()
    server.on("up")(lambda who: server.send_client(who, "down"))
    client = net.client(server, "ann")
    client.on("down")(lambda: got("down"))
    serving, running = Thread(server.run_forever), Thread(client.run_forever)
    client.send("up")
    assert got.next() == "down"
    client.close()
    running.result()
    server.close()
    serving.result()


def test_run_forever_of_a_client_tells_that_the_server_ended_it(net: Net) -> None:
    """Unlike its own ``close``."""
    if net.client_kind.face == "threaded":
        return
    server = net.server()
    client = net.client(server, "ann")
    net.turn(server)
    net.expect_members(server, 1)
    running = Thread(client.run_forever)
    server.disconnect_client("ann", reason="enough")
    with pytest.raises(ClientDisconnected):
        running.result()


def test_run_forever_serves_a_close_inside_a_handler(net: Net) -> None:
    """The usual way to end a program."""
    if net.server_kind.face == "threaded":
        return
    server = net.server()
    server.on("end", **net.may_wait(server))(lambda: server.close())
    serving = Thread(server.run_forever)
    client = net.client(server)
    net.turn(client)
    client.send("end")
    serving.result()


def test_use_registers_what_was_collected(net: Net) -> None:
    """``on``, ``every`` and ``on_error``, as often as one likes."""
    handlers, got = Handlers(), Record()

    @handlers.on("it")
    def it(who: Any, message: int) -> None:
        got(message)

    @handlers.on("slow", threaded=True)
    def slow() -> None:
        got("slow")

    @handlers.on("fail")
    def fail() -> None:
        raise ZeroDivisionError

    @handlers.every(0.002)
    def tick() -> None:
        ticks("tick")

    ticks = Record()
    handlers.on_error(lambda error: got(type(error.__cause__)))
    for _ in range(2):
        server = net.server()
        server.use(handlers)
        client = net.client(server)
        net.turn()
        client.send("it", b"5")
        client.send("slow")
        client.send("fail")
        assert got.take(3) == [5, "slow", ZeroDivisionError]
        assert ticks.next() == "tick"


def test_use_checks_what_was_collected(net: Net) -> None:
    """A function that does not fit is refused where it is used."""
    handlers = Handlers()
    handlers.on("it")(lambda one, two, three: None)
    for peer in (server := net.server(), net.client(server)):
        with pytest.raises(TypeError):
            peer.use(handlers)
