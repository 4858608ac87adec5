"""Threads: every method from any of them, whole frames, nothing lost, no dead ends."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from hisock import ClientInfo, Handlers, HiSockClient, HiSockServer
from hisock.errors import Refused, RemoteError

from . import Net, Record, Thread, turn_until

THREADS = 8
MESSAGES = 60


def _say(number: int, index: int) -> bytes:
    """A message that shows any byte that is not its own."""
    letter = bytes([ord("a") + number])
    return b"%d %d " % (number, index) + letter * (1 + 37 * (index % 7))


def _check(said: list[bytes], threads: int = THREADS, each: int = MESSAGES) -> None:
    """Everything came, whole, and in order for each thread that sent it."""
    assert len(said) == threads * each
    places = dict.fromkeys(range(threads), 0)
    for message in said:
        number = int(message.split()[0])
        assert message == _say(number, places[number])
        places[number] += 1


def _send_from_all(send: Callable[[bytes], object]) -> None:
    """Call ``send`` from eight threads at once."""
    start = threading.Barrier(THREADS)

    def run(number: int) -> None:
        start.wait()
        for index in range(MESSAGES):
            send(_say(number, index))

    for thread in [Thread(run, number) for number in range(THREADS)]:
        thread.result()


@pytest.mark.usefixtures("restless")
def test_frames_to_the_server_never_interleave(net: Net) -> None:
    """Eight threads send on one client; each message comes whole and in order."""
    server, got = net.server(), Record()
    server.on("it")(lambda who, message: got(message))
    client = net.client(server)
    net.turn()
    _send_from_all(lambda message: client.send("it", message))
    _check(got.take(THREADS * MESSAGES))


@pytest.mark.usefixtures("restless")
def test_frames_to_a_client_never_interleave(net: Net) -> None:
    """The same for eight threads that send on one server, to one and to all."""
    server, got = net.server(), Record()
    client = net.client(server, "ann")
    client.on("it")(lambda message: got(message))
    net.turn()
    net.expect_members(server, 1)

    def send(message: bytes) -> None:
        match message[0] % 3:
            case 0:
                server.send_client("ann", "it", message)
            case 1:
                server.send_all_clients("it", message)
            case _:
                server.send_client_raw("ann", b"it " + message)

    _send_from_all(send)
    _check(got.take(THREADS * MESSAGES))


@pytest.mark.usefixtures("restless")
def test_handlers_and_threads_send_at_once(net: Net) -> None:
    """What a handler's batch holds back does not tear what others send."""
    server, got = net.server(), Record()
    client = net.client(server, "ann")
    client.on("it")(lambda message: got(message))
    server.on("echo")(lambda who, message: server.send_client(who, "it", message))
    net.turn()
    net.expect_members(server, 1)

    def send(message: bytes) -> None:
        if message[0] % 2:
            client.send("echo", message)
        else:
            server.send_client("ann", "it", message)

    _send_from_all(send)
    _check(got.take(THREADS * MESSAGES))


@pytest.mark.usefixtures("restless")
def test_batches_and_threads_send_at_once(net: Net) -> None:
    """``with client.batch()`` in one thread loses nothing of the others."""
    server, got = net.server(), Record()
    server.on("it")(lambda who, message: got(message))
    client = net.client(server)
    net.turn()

    def send(message: bytes) -> None:
        if message.startswith(b"0 "):
            with client.batch():
                client.send("it", message)
        else:
            client.send("it", message)

    _send_from_all(send)
    client.send("it", b"fence")
    received = list(iter(got.next, b"fence"))
    _check(received)


@pytest.mark.usefixtures("restless")
def test_clients_come_and_go_while_others_send(net: Net) -> None:
    """Joins and leaves from many threads disturb nobody."""
    server, got = net.server(), Record()
    server.on("leave")(lambda who: got(who["name"]))
    net.turn()

    def visit(number: int) -> None:
        for index in range(3):
            client = net.client(server, name=f"{number}.{index}")
            client.send("hello", b"x" * 100)
            net.end(client)

    visits = [Thread(visit, number) for number in range(4)]
    while any(thread.is_alive for thread in visits):
        server.send_all_clients("news", b"x")
        server.get_all_clients("name")
    for thread in visits:
        thread.result()
    assert sorted(got.take(12)) == [f"{a}.{b}" for a in range(4) for b in range(3)]


def _public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_every_method_of_a_server_from_any_thread(hand: Net) -> None:
    """Also on a server that nobody turns; none of them waits for a turn."""
    server = hand.server()
    server.on("join")(lambda: None)
    raws = [hand.raw_client(server, name, "red") for name in ("ann", "bea", "cleo")]
    turn_until(server, lambda: len(server) == 3)
    # Nobody answers; on the wire of 1.1 nobody could.
    error = TimeoutError if hand.is_compact else Refused

    def in_vain(call: Callable[[], object], refusal: Any = error) -> None:
        with pytest.raises(error if hand.is_compact else refusal):
            call()

    calls: dict[str, Callable[[], object]] = {
        "addr": lambda: server.addr,
        "header_len": lambda: server.header_len,
        "clients": lambda: dict(server.clients),
        "clients_rev": lambda: dict(server.clients_rev),
        "funcs": lambda: dict(server.funcs),
        "on": lambda: server.on("other")(print),
        "get_addr": server.get_addr,
        "get_client": lambda: server.get_client("ann"),
        "get_group": lambda: server.get_group("red"),
        "get_all_clients": server.get_all_clients,
        "client": lambda: server.client("ann"),
        "group": lambda: server.group("red"),
        "stats": server.stats,
        "fingerprint": lambda: server.fingerprint,
        "dashboard_url": lambda: server.dashboard_url,
        "authenticate": lambda: server.authenticate(lambda credentials: True),
        "every": lambda: server.every(60)(print),
        "on_error": lambda: server.on_error(print),
        "on_drop": lambda: server.on_drop(print),
        "on_resume": lambda: server.on_resume(print),
        "use": lambda: server.use(Handlers()),
        "join_group": lambda: server.join_group("ann", "blue"),
        "leave_group": lambda: server.leave_group("ann", "blue"),
        "call_client": lambda: in_vain(
            lambda: server.call_client("bea", "x", timeout=0.01)
        ),
        "call_any": lambda: in_vain(
            lambda: server.call_any("red", "x", timeout=0.01), TypeError
        ),
        "call_group": lambda: list(server.call_group("red", "x", timeout=0.01)),
        "stream_client": lambda: in_vain(
            lambda: next(server.stream_client("bea", "x", timeout=0.01))
        ),
        "send_client": lambda: server.send_client("ann", "one", b"x"),
        "send_client_raw": lambda: server.send_client_raw("ann", b"raw one"),
        "send_group": lambda: server.send_group("red", "group", b"x"),
        "send_group_raw": lambda: server.send_group_raw("red", b"raw group"),
        "send_all_clients": lambda: server.send_all_clients("all", b"x"),
        "disconnect_client": lambda: server.disconnect_client("bea"),
        "disconnect_all_clients": server.disconnect_all_clients,
        "close": server.close,
        "run": server.run,
        "poll": server.poll,
        "run_forever": server.run_forever,
    }
    attributes = {"addr", "header_len"}  # set on the object, not on the class
    assert calls.keys() - attributes == _public(HiSockServer) - attributes
    expected = [b"one x", b"raw one", b"group x", b"raw group", b"all x"]
    for name, call in calls.items():
        if name == "close":
            seen = iter(raws[0].receive, b"$DISCONN$")
            ours = (b"$", b"[")  # what tells of others, and calls
            assert [b for b in seen if b[:1] not in ours] == expected
            for raw in raws:
                raw.close()
        Thread(call).result()
    assert len(server) == 0


def test_every_method_of_a_client_from_any_thread(hand: Net) -> None:
    """Also on a client that nobody turns."""
    server = hand.server()

    @server.on("ask")
    def ask(who: ClientInfo) -> None:
        server.send_client_raw(who, b"answer")
        server.send_client(who, "this", b"one")
        server.send_client_raw(who, b"any")

    hand.turn(server)
    client = hand.client(server, "ann", cache_size=2)

    error = RemoteError if hand.is_compact else Refused

    def in_vain(call: Callable[[], object]) -> None:
        with pytest.raises(error):
            call()

    def in_a_batch() -> None:
        with client.batch():
            client.send("it", b"x")

    calls: dict[str, Callable[[], object]] = {
        "addr": lambda: client.addr,
        "header_len": lambda: client.header_len,
        "name": lambda: client.name,
        "group": lambda: client.group,
        "funcs": lambda: dict(client.funcs),
        "on": lambda: client.on("other")(lambda: None),
        "send": lambda: client.send("ask"),
        "recv_raw": client.recv_raw,
        "recv": lambda: client.recv("this", timeout=5),
        "recv_any": lambda: client.recv_any(timeout=5),
        "wire": lambda: client.wire,
        "call": lambda: in_vain(lambda: client.call("this", timeout=5)),
        "stream": lambda: in_vain(lambda: next(client.stream("this", timeout=5))),
        "every": lambda: client.every(60)(print),
        "on_error": lambda: client.on_error(print),
        "on_drop": lambda: client.on_drop(print),
        "on_resume": lambda: client.on_resume(print),
        "on_session_lost": lambda: client.on_session_lost(print),
        "on_gap": lambda: client.on_gap(print),
        "use": lambda: client.use(Handlers()),
        "raw_send": lambda: client.raw_send(b"raw"),
        "batch": in_a_batch,
        "get_client": lambda: client.get_client("ann"),
        "change_name": lambda: client.change_name("bea"),
        "change_group": lambda: client.change_group(None),
        "get_cache": client.get_cache,
        "get_server_addr": client.get_server_addr,
        "is_connected": lambda: client.is_connected,
        "get_client_addr": client.get_client_addr,
        "close": client.close,
        "update": client.update,
        "poll": client.poll,
        "run_forever": client.run_forever,
    }
    attributes = {"addr", "header_len", "name", "group"}
    assert calls.keys() - attributes == _public(HiSockClient) - attributes
    for call in calls.values():
        Thread(call).result()


def test_sends_on_a_server_that_nobody_turns_leave_at_once(hand: Net) -> None:
    """The next turn may be far away."""
    server = hand.server()
    server.on("join")(lambda: None)
    raw = hand.raw_client(server, "ann")
    turn_until(server, lambda: len(server))
    Thread(server.send_client, "ann", "it", b"x").result()
    assert raw.receive() == b"it x"


def test_a_send_wakes_a_server_that_waits(net: Net) -> None:
    """More than the socket takes at once is written by the turn, without a push."""
    server = net.server()
    client = net.client(server, "ann")
    net.turn(server)
    net.expect_members(server, 1)
    content = bytes(6_000_000)
    sending = Thread(server.send_client_raw, "ann", content)
    assert client.recv_raw() == content
    sending.result()


def test_handlers_do_not_hold_up_other_threads(net: Net) -> None:
    """No lock is held while a handler runs: others look up and send meanwhile."""
    server, got, go_on = net.server(), Record(), threading.Event()
    client = net.client(server, "ann")
    client.on("it")(lambda message: got(message))

    @server.on("hold", **net.may_wait(server))
    def hold() -> None:
        got("held")
        go_on.wait(5)

    net.turn()
    client.send("hold")
    assert got.next() == "held"
    server.send_client("ann", "it", b"x")
    assert got.next() == b"x"
    assert server.get_all_clients("name") == ["ann"]
    go_on.set()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("side", ["server", "client"])
def test_a_signal_handler_may_send_while_a_send_runs(hand: Net, side: str) -> None:
    """It interrupts anywhere; both messages arrive, each once and whole."""
    server, got = hand.server(), Record()
    client = hand.client(server, "ann")
    server.on("it")(lambda who, message: got(message))
    client.on("it")(lambda message: got(message))
    hand.turn()
    hand.expect_members(server, 1)
    send: Callable[[bytes], Any] = (
        (lambda message: client.send("it", message))
        if side == "client"
        else (lambda message: server.send_client("ann", "it", message))
    )
    counter = itertools.count()
    signals = depth = 0

    def interrupt(*_: object) -> None:
        nonlocal signals, depth
        signals, depth = signals + 1, depth + 1
        try:
            send(_say(1, next(counter)))
        finally:
            depth -= 1

    sent = 0
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        # A machine that is busy elsewhere gets no further within each, and so deeper.
        with _Signals(lambda: depth < 10):
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                send(_say(0, sent))
                sent += 1
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert signals > 3
    received = got.take(sent + signals)
    assert [m for m in received if m[:1] == b"0"] == [_say(0, n) for n in range(sent)]
    # A signal may strike in the handler of another, between its number and its send.
    ours = {m for m in received if m[:1] == b"1"}
    assert len(received) == sent + len(ours)
    assert ours == {_say(1, n) for n in range(signals)}


class _Signals:
    """Signals to the main thread, one after the other, from another thread.

    Args:
        may: Whether there may be one more.
    """

    def __init__(self, may: Callable[[], bool]) -> None:
        self._may = may
        self._stop = threading.Event()

    def _run(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not self._stop.wait(0.001):
            if self._may():
                signal.pthread_kill(main, signal.SIGUSR1)

    def __enter__(self) -> None:
        self._thread = Thread(self._run)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.result()
