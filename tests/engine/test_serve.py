"""The server's engine under interrupts, signals, raising handlers and odd peers."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
import logging
import os
import pickle
import socket
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import hisock
from hisock import (
    Handlers,
    connect,
    start_server,
    start_threaded_server,
    threaded_connect,
)
from hisock.errors import (
    HandlerSignatureError,
    HiSockError,
    ServerClosed,
    UnknownClient,
)
from hisock.server import HiSockServer

from .test_blocking import (
    HOST,
    PATIENCE,
    Raw,
    Task,
    check_order,
    check_repeats,
    eventually,
    interrupt_at,
)

if TYPE_CHECKING:
    from hisock import ClientInfo

needs_posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")


def turn(server: HiSockServer, condition: Callable[[], object], what: str) -> None:
    """Turn a non-blocking server until a condition holds."""

    def holds() -> object:
        server.run()
        return condition()

    eventually(holds, what)


@contextlib.contextmanager
def by_hand(**options: Any) -> Iterator[HiSockServer]:
    """A non-blocking server that the test turns; closed without ado at the end."""
    server = start_server((HOST, 0), blocking=False, **options)
    try:
        yield server
    finally:
        server._engine.close(linger=0.05)


# --- the end -----------------------------------------------------------------------


@needs_posix
@pytest.mark.parametrize("has_client", [False, True])
def test_a_signal_handler_may_close_a_server_that_waits(has_client: bool) -> None:
    """``server.close()`` in a signal handler ends the ``run`` that it interrupted."""
    program = """
    import hisock, os, signal, sys, threading

    server = hisock.start_server(("127.0.0.1", 0))
    signal.signal(signal.SIGTERM, lambda *_: server.close())
    client = hisock.threaded_connect(server.addr) if "with" in sys.argv else None
    if client is not None:
        client.start_client()
    ripe = threading.Event()

    def strike():
        main, looks = threading.main_thread().ident, []
        while len(looks) < 30 or len(set(looks[-30:])) > 1:
            frame = sys._current_frames()[main]
            looks.append((frame.f_code.co_name, frame.f_lasti))
            ripe.wait(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    striker = threading.Thread(target=strike, daemon=True)
    striker.start()
    while not server._engine.is_closed:
        server.run()
    print("ended", flush=True)
    if client is not None:
        client.stop_client()
        client.join()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(
        [*command, "with"] if has_client else command,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", 0)


@needs_posix
def test_a_forked_child_says_nothing_to_its_parents_peers() -> None:
    """``close`` in a forked child lets go of the copies; the parent's sessions live."""
    program = """
    import hisock, os, time

    server = hisock.start_server(("127.0.0.1", 0), blocking=False)
    client = hisock.connect(server.addr, "ann", blocking=False)
    left, answers = [], []
    server.on("leave")(lambda who: left.append(who))
    server.on("ask")(lambda who: server.send_client(who, "answer"))
    client.on("answer")(lambda: answers.append(1))

    def until(holds):
        end = time.monotonic() + 3
        while not holds():
            assert time.monotonic() < end
            server.run()
            client.update()

    until(lambda: len(server) == 1)
    child = os.fork()
    if child == 0:
        {what}.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    client.send("ask")
    until(lambda: answers)
    assert not left
    print("alive", flush=True)
    server._engine.close(linger=0.05)
    client.close()
    """
    for what in ("server", "client"):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program.replace("{what}", what))],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (what, done.stdout, done.stderr) == (what, "alive\n", "")


def test_leave_runs_for_all_although_it_raises() -> None:
    """``close`` runs ``leave`` for every client, also where each one's raises and
    ``errors="raise"``; then nobody is listed."""
    left: list[str] = []
    with contextlib.ExitStack() as clients, by_hand(errors="raise") as server:

        @server.on("leave")
        def fail(who: Any) -> None:
            left.append(who["name"])
            raise ValueError

        names = [f"client {number}" for number in range(8)]
        for name in names:
            clients.enter_context(threaded_connect(server.addr, name))
        turn(server, lambda: len(server) == 8, "all are here")
        with contextlib.suppress(ValueError):
            server.close()
        assert sorted(left) == names
        assert len(server) == 0


def test_who_sends_after_the_end_is_told_of_the_end() -> None:
    """Sending after ``close`` raises ``ServerClosed``, whomever it is for."""
    who: list[Any] = []
    with by_hand() as server, threaded_connect(server.addr, "ann", "red"):
        server.on("join")(who.append)
        turn(server, lambda: who, "a client is here")
        server.close()
        sends: list[Callable[[], None]] = [
            lambda: server.send_client("ann", "news"),
            lambda: server.send_client(who[0], "news"),
            lambda: server.send_client_raw("ann", "news"),
            lambda: server.send_group("red", "news"),
            lambda: server.send_all_clients("news"),
        ]
        for send in sends:
            with pytest.raises(ServerClosed):
                send()


# --- interrupts --------------------------------------------------------------------


def _interrupt_runs(check: Callable[[HiSockServer, Raw, list[bytes]], None]) -> None:
    """Interrupt ``run`` at every place there is, once each, then check.

    Args:
        check: Gets the server, its client, and what its handler saw.
    """
    seen: list[bytes] = []

    def note(who: object, message: bytes) -> None:
        seen.append(message)

    with contextlib.ExitStack() as peers, by_hand() as server:
        server.on("number")(note)
        peer: Raw | None = None
        for number in itertools.count():
            if peer is None:
                peer = peers.enter_context(Raw.join(server.addr))
                turn(server, lambda: len(server) == 1, "it is here")
            seen.clear()
            peer.send(b"number 0", b"number 1", b"number 2")
            with (
                interrupt_at(number, note) as reached,
                contextlib.suppress(KeyboardInterrupt),
            ):
                server.run()
            if not reached:
                break
            try:
                check(server, peer, seen)
            except Exception as error:
                error.add_note(f"interrupted at {reached[0]}")
                raise
            if not len(server):
                peer.sock.close()
                peer = None
    assert number > 10


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_interrupt_anywhere_leaves_run_usable(elsewhere: bool) -> None:
    """Ctrl-C at any place of ``run`` never makes a later one say that one is running,
    on this thread or on another."""
    import asyncio  # it makes a turn do more

    assert asyncio

    def check(server: HiSockServer, peer: Raw, seen: list[bytes]) -> None:
        if elsewhere:
            Task(server.run).result()
        else:
            server.run()

    _interrupt_runs(check)


def test_an_interrupt_costs_no_more_than_what_is_in_hand() -> None:
    """Ctrl-C at any place loses the one message at most that was just taken to its
    handler, and repeats none; in the middle of reading it ends that connection, as no
    byte may follow."""

    def check(server: HiSockServer, peer: Raw, seen: list[bytes]) -> None:
        peer.throw(b"number 3")
        turn(server, lambda: b"3" in seen or not len(server), "all of them")
        if len(server):
            check_order(seen)

    _interrupt_runs(check)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_is_behind_a_failed_handler_is_handled_next(
    error: type[BaseException],
) -> None:
    """What leaves ``run`` costs the message whose handler raised it, not the rest of
    its batch, nor what other clients said."""
    seen: list[tuple[str, int]] = []
    with by_hand(errors="raise") as server:

        @server.on("number")
        def note(who: Any, message: int) -> None:
            seen.append((who["name"], message))
            if (who["name"], message) == ("ann", 3):
                raise error

        said = [b"number %d" % each for each in range(6)]
        with Raw.join(server.addr, "ann") as ann, Raw.join(server.addr, "bob") as bob:
            turn(server, lambda: len(server) == 2, "both are here")
            ann.send(*said)
            bob.send(*said)
            with pytest.raises(error):
                turn(server, lambda: len(seen) == 12, "an error")
            turn(server, lambda: len(seen) == 12, "the rest")
    for name in ("ann", "bob"):
        assert [each for who, each in seen if who == name] == list(range(6))


@pytest.mark.parametrize("event", ["join", "leave"])
def test_an_interrupted_event_happens_once(event: str) -> None:
    """A ``join`` or ``leave`` handler that Ctrl-C ended is not run again, and what the
    client said after its hello is handled."""
    runs: list[str] = []
    said: list[bytes] = []
    with by_hand() as server:

        @server.on(event)
        def interrupted(who: Any) -> None:
            runs.append(who["name"])
            raise KeyboardInterrupt

        server.on("it")(lambda who, message: said.append(message))
        with Raw.join(server.addr, "ann", b"it 1", b"it 2") as peer:
            if event == "join":
                with pytest.raises(KeyboardInterrupt):
                    turn(server, lambda: False, "an interrupt")
            turn(server, lambda: len(said) == 2, "what it said")
            peer.sock.shutdown(socket.SHUT_WR)
            if event == "leave":
                with pytest.raises(KeyboardInterrupt):
                    turn(server, lambda: False, "an interrupt")
            turn(server, lambda: not len(server), "it is gone")
        turn(server, lambda: not server._engine.pump.links, "its socket is closed")
        assert runs == ["ann"]
        assert said == [b"1", b"2"]


def test_the_others_are_told_although_a_handler_raised() -> None:
    """A ``join`` or ``leave`` handler that raises does not keep the other clients from
    hearing who came and went (``errors="raise"``)."""
    heard: list[str] = []
    raised: list[ValueError] = []
    with by_hand(errors="raise") as server:

        def fail(who: Any) -> None:
            if who["name"] == "bad":
                raise ValueError

        server.on("join")(fail)
        server.on("leave")(fail)
        with connect(server.addr, "watch", blocking=False) as watch:
            watch.on("client_connect")(lambda who: heard.append("+" + who["name"]))
            watch.on("client_disconnect")(lambda who: heard.append("-" + who["name"]))

            def has_heard(*what: str) -> bool:
                try:
                    server.run()
                except ValueError as error:
                    raised.append(error)
                watch.update()
                return heard == list(what)

            eventually(lambda: has_heard() and len(server) == 1, "it watches")
            with Raw.join(server.addr, "bad"):
                eventually(lambda: has_heard("+bad"), "the first")
                with Raw.join(server.addr, "good"):
                    eventually(lambda: has_heard("+bad", "+good"), "the second")
            all_of_it = ("+bad", "+good", "-good", "-bad")
            eventually(lambda: has_heard(*all_of_it), "their ends")
            assert len(raised) == 2
            server._engine.close(linger=0.05)


# --- odd peers and users -------------------------------------------------------------


def test_a_socket_that_the_user_closed() -> None:
    """Closing the socket that ``get_client`` gives ends that client at most: the next
    one, on the same descriptor, is served."""
    with by_hand() as server:
        server.on("ask")(lambda who: server.send_client_raw(who, "answer"))
        with Raw.join(server.addr, "ann"):
            turn(server, lambda: len(server) == 1, "ann is here")
            for name in ("bob", "eve"):
                with Raw.join(server.addr, name, b"ask") as peer:
                    if name == "bob":  # is accepted next, on this descriptor
                        server.get_client("ann")["socket"].close()
                    asked = Task(partial(peer.take_until, b"answer"))
                    turn(server, partial(asked.ends, 0), f"{name} is served")
                    asked.result()
            with contextlib.suppress(HiSockError):
                server.send_client("ann", "news")
            server.run()


def test_a_half_closed_slow_reader_costs_no_time() -> None:
    """A peer that says it is done but does not take what waits for it is waited for
    without a busy loop."""
    left = threading.Event()
    with start_threaded_server((HOST, 0)) as server:
        server.on("big")(lambda who: server.send_client(who, "it", bytes(14_000_000)))
        server.on("leave")(lambda who: left.set())
        with Raw.join(server.addr, "slow", b"big") as peer:
            assert peer.sock.recv(1)
            peer.sock.shutdown(socket.SHUT_WR)
            assert left.wait(PATIENCE)
            before = time.process_time()
            threading.Event().wait(0.8)  # of the second that it is given
            assert time.process_time() - before < 0.3


def test_many_lengths_cost_no_memory() -> None:
    """What clients send of many different lengths leaves nothing behind for each."""
    clients = 10
    lengths = range(2, 402)
    with by_hand() as server, contextlib.ExitStack() as all_of_them:
        seen = [0]

        def count(who: object) -> None:
            seen[0] += 1

        server.on("x")(count)
        peers = [
            all_of_them.enter_context(Raw.join(server.addr)) for _ in range(clients + 1)
        ]
        turn(server, lambda: len(server) == clients + 1, "all are here")
        bodies = [b"x ".ljust(length) for length in lengths]

        def talk(peer: Raw) -> None:
            seen[0] = 0
            peer.send(*bodies)
            turn(server, lambda: seen[0] == len(bodies), "all is handled")

        talk(peers[0])  # what is kept for all of them
        tracemalloc.start()
        try:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for peer in peers[1:]:
                talk(peer)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown / clients < 4096


def test_the_log_does_not_fill_with_what_cannot_be_converted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of 2,000 messages of the wrong type a few lines tell, and how many."""
    with caplog.at_level(logging.WARNING, "hisock"), by_hand() as server:
        done: list[object] = []

        @server.on("add")
        def add(who: object, message: int) -> None: ...

        server.on("done")(done.append)
        with Raw.join(server.addr, "ann", *([b"add nothing"] * 2000), b"done"):
            turn(server, lambda: done, "all of them")
    check_repeats(caplog)


def test_a_client_of_another_server_is_unknown() -> None:
    """What a handler of one server got names nobody on another."""
    who: list[Any] = []
    with by_hand() as one, by_hand() as other:
        one.on("join")(who.append)
        with Raw.join(one.addr, "ann") as peer:
            turn(one, lambda: who, "a client is here")
            calls: list[Callable[[], object]] = [
                lambda: other.get_client(who[0]),
                lambda: other.send_client(who[0], "news"),
                lambda: other.send_client_raw(who[0], "news"),
                lambda: other.disconnect_client(who[0]),
            ]
            for call in calls:
                with pytest.raises(UnknownClient):
                    call()
            one.send_client(who[0], "of one")
            assert peer.take() == b"of one "
            assert one.get_client(who[0])["name"] == "ann"


def test_a_copied_client_is_a_dictionary() -> None:
    """A deep copy of a client, or what is pickled, is a plain ``dict``."""
    who: list[Any] = []
    with by_hand() as server:
        server.on("join")(who.append)
        with Raw.join(server.addr, "ann"):
            turn(server, lambda: who, "a client is here")
            for copied in (
                copy.deepcopy(who[0]),
                pickle.loads(pickle.dumps(who[0])),
                copy.deepcopy({"players": who})["players"][0],
            ):
                assert type(copied) is dict
                assert copied == dict(who[0])
                assert copied["name"] == "ann"


# --- warnings ------------------------------------------------------------------------


def test_warnings_point_at_the_line_of_the_user() -> None:
    """Every warning of a server shows the line that called it, not one of ours."""
    with (
        by_hand() as server,
        Raw.join(server.addr, "twin"),
        Raw.join(server.addr, "twin"),
    ):
        turn(server, lambda: len(server) == 2, "both are here")
        address = server.get_all_clients("ip")[0]
        server.on("again")(lambda client: None)
        handlers = Handlers()
        handlers.on("again")(lambda client, message: None)
        calls: list[Callable[[], object]] = [
            lambda: server.send_client(address, "force_disconnect"),
            lambda: server.send_group("g", "client_connect"),
            lambda: server.send_all_clients("client_disconnect"),
            lambda: server.send_client("twin", "news"),
            lambda: server.send_client_raw("twin", "news"),
            lambda: server.get_client("twin"),
            lambda: server.client("twin"),
            lambda: server.join_group("twin", "team"),
            lambda: server.leave_group("twin", "team"),
            lambda: server.group("g").send("news", exclude="twin"),
            lambda: server.group("g").send("news", exclude=["twin"]),
            lambda: server.send_group("g", "news", exclude=("twin",)),
            lambda: server.send_all_clients("news", exclude={"twin"}),
            lambda: list(server.call_group("g", "news", exclude="twin")),
            lambda: list(server.group("g").call("news", exclude="twin")),
            lambda: next(iter(server)).send("force_disconnect"),
            lambda: server.on("again")(print),
            lambda: server.use(handlers),
            lambda: server.disconnect_client("twin"),
        ]
        for call in calls:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                call()
            line = call.__code__.co_firstlineno
            assert [(each.filename, each.lineno) for each in caught] == [
                (__file__, line)
            ]


# --- registering ---------------------------------------------------------------------


def test_hints_on_the_client_may_be_text() -> None:
    """A handler may say of its client what it is, also where the name is imported for
    type checkers alone, or with its module."""
    with by_hand() as server:

        @server.on("one")
        def one(client: hisock.ClientInfo) -> None: ...

        @server.on("two")
        def two(client: ClientInfo) -> None: ...

        @server.on("three")
        def three(client: hisock.types.ClientInfo, message: int) -> None: ...

        @server.on("join")
        def join(client: ClientInfo) -> None: ...

        assert list(server.funcs) == ["one", "two", "three", "join"]
        assert server.funcs["three"]["type_hint"]["msg"] is int


def test_a_generator_is_no_handler_of_an_event() -> None:
    """A function that would only make a generator is refused where it is registered,
    however it is wrapped; one that handles a command answers streams."""

    def generates(client: object) -> Iterator[int]:
        yield 1

    class Generates:
        def __call__(self, client: object) -> Iterator[int]:
            yield 1

    with by_hand() as server:
        generators: list[Callable[..., Any]] = [
            generates,
            partial(generates),
            Generates(),
        ]
        for event in ("join", "leave", "message", "name_change", "group_change"):
            for function in generators:
                with pytest.raises(HandlerSignatureError, match="is a generator"):
                    server.on(event)(function)
        assert not server.funcs
        for number, function in enumerate(generators):
            server.on(f"it {number}")(function)
        assert len(server.funcs) == len(generators)


def test_on_without_parentheses_says_how_it_is_written() -> None:
    """``@server.on`` without a command says what to write."""
    with by_hand() as server:

        def hello(client: object) -> None: ...

        with pytest.raises(HiSockError, match=r'\bon\("\w+"\)'):
            server.on(hello)  # type: ignore[arg-type]  # the mistake
