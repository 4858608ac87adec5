"""The client's engine under threads, interrupts, slow peers and endings."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import re
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Self

import pytest

from hisock import (
    HiSockClient,
    Limits,
    connect,
    start_threaded_server,
    threaded_connect,
)
from hisock.errors import (
    ClientDisconnected,
    HiSockError,
    Overloaded,
    ServerNotRunning,
    WouldBlock,
)
from hisock.server import ThreadedHiSockServer

HOST = "127.0.0.1"
#: Seconds after which what was promised counts as broken.
PATIENCE = 5.0


# --- helpers ---------------------------------------------------------------------


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds, or fail with what was expected."""
    end = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}"
        pause.wait(0.001)


def updated(client: HiSockClient, condition: Callable[[], object], what: str) -> None:
    """Turn a non-blocking client until a condition holds."""

    def holds() -> object:
        client.update()
        return condition()

    eventually(holds, what)


class Task:
    """A call on a thread that does not keep a failed test from ending."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._results: list[Any] = []
        self._errors: list[BaseException] = []

        def work() -> None:
            try:
                self._results.append(call())
            except BaseException as error:
                self._errors.append(error)

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def ends(self, within: float = PATIENCE) -> bool:
        """Whether the call ends in time."""
        self._thread.join(within)
        return not self._thread.is_alive()

    def result(self, within: float = PATIENCE) -> Any:
        """What it returned; raises what it did."""
        assert self.ends(within), f"no end within {within:g} s"
        for error in self._errors:
            raise error
        return self._results[0]

    def settle(self) -> None:
        """Wait until the thread waits for something, or has ended."""
        looks: list[object] = []

        def stands_still() -> bool:
            frame = sys._current_frames().get(self._thread.ident or 0)
            looks.append(frame and (id(frame), frame.f_lasti))
            return len(looks) >= 20 and len(set(looks[-20:])) == 1

        eventually(stands_still, "the thread waits")


def frame(body: bytes, header_len: int = 16) -> bytes:
    """A body with its header."""
    return str(len(body)).ljust(header_len).encode() + body


def hello(name: str = "raw", group: str = "g") -> bytes:
    """The frame that a client begins with."""
    return frame(
        b'$CLTHELLO$ {"name": "%b", "group": "%b"}'
        % tuple(each.encode() for each in (name, group))
    )


class Raw:
    """A socket that says whatever the test says, and never waits for ever."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock

    @classmethod
    def join(cls, address: tuple[str, int], name: str = "raw", *said: bytes) -> Self:
        """A raw client that has said hello, and more in the same write."""
        peer = cls(socket.create_connection(address, PATIENCE))
        peer.sock.sendall(hello(name) + b"".join(map(frame, said)))
        return peer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.sock.close()

    def send(self, *bodies: bytes) -> None:
        """Write messages, all at once."""
        self.sock.sendall(b"".join(map(frame, bodies)))

    def throw(self, *bodies: bytes) -> None:
        """Write what the other side may cut off."""
        with contextlib.suppress(OSError):
            self.send(*bodies)

    def take(self) -> bytes:
        """The next body."""
        return self._exactly(int(self._exactly(16)))

    def take_until(self, wanted: bytes) -> None:
        """Take bodies until this one."""
        while self.take() != wanted:
            pass

    def _exactly(self, size: int) -> bytes:
        taken = bytearray()
        while len(taken) < size:
            piece = self.sock.recv(size - len(taken))
            assert piece, f"it ended after {bytes(taken)!r:.80}"
            taken += piece
        return bytes(taken)

    def reset(self) -> None:
        """End with a reset in place of a clean end."""
        option = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        self.sock.close()


@contextlib.contextmanager
def served(
    *, blocking: bool = False, buffer: int | None = None, **options: Any
) -> Iterator[tuple[HiSockClient, Raw]]:
    """Our client, and the raw end of its connection with the hello taken off.

    It plays a server of 1.1.

    Args:
        blocking: As ``connect``.
        buffer: Bytes that the raw end's system keeps of what it has not read.
        options: More for ``connect``.
    """
    with socket.socket() as listener:
        listener.settimeout(PATIENCE)
        if buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        listener.bind((HOST, 0))
        listener.listen()
        with (
            connect(
                listener.getsockname(), "us", blocking=blocking, **options
            ) as client,
            Raw(listener.accept()[0]) as server,
        ):
            assert server.take().startswith(b"$CLTHELLO$ ")
            assert server.take() == b"$DH_NUMS$"
            server.send(b"$NOTLS$")

            def is_agreed() -> bool:
                client.poll(0.0)
                return client.wire == "classic"

            eventually(is_agreed, "the client knows which wire is spoken")
            yield client, server
            # So that the client need not wait until it believes in the end.
            server.sock.close()


@contextlib.contextmanager
def interrupt_at(
    number: int, but_not_in: Callable[..., Any] | None = None
) -> Iterator[list[str]]:
    """Raise a ``KeyboardInterrupt`` where CPython could, the ``number``-th place.

    It looks for signals where a function of Python begins and where one of C has
    returned, and that is where a profiler is told.

    Args:
        number: Places to let pass before.
        but_not_in: A function in which the places do not count.

    Yields:
        A list that gets the name of the place when it is reached.
    """
    left = number
    reached: list[str] = []
    skipped = (but_not_in and but_not_in.__code__, interrupt_at.__wrapped__.__code__)  # type: ignore[attr-defined]  # functools.wraps

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal left
        code = frame.f_code
        if event not in ("call", "c_return") or code in skipped:
            return
        if "hisock" not in code.co_filename or code.co_filename == __file__:
            return
        left -= 1
        if left < 0 and not reached:
            what = f" after {argument.__name__}" if event == "c_return" else ""
            reached.append(f"{code.co_qualname}:{frame.f_lineno}{what}")
            raise KeyboardInterrupt

    gc.disable()  # an exception in a finalizer of something else goes nowhere
    sys.setprofile(profile)
    try:
        yield reached
    finally:
        sys.setprofile(None)
        gc.enable()


@pytest.fixture
def server() -> Iterator[ThreadedHiSockServer]:
    """A server in its own thread."""
    with start_threaded_server((HOST, 0)) as made:
        yield made


# --- the end -----------------------------------------------------------------------


@pytest.mark.parametrize("blocking", [True, False])
def test_who_only_sends_hears_of_the_end(blocking: bool) -> None:
    """A client that never calls ``update`` learns from ``send`` that nobody is there,
    and ``is_connected`` tells, too."""
    with start_threaded_server((HOST, 0)) as server:
        client = connect(server.addr, blocking=blocking, reconnect=False)
    with client:

        def is_told() -> bool:
            try:
                client.send("position", "1")
            except ClientDisconnected:
                return True
            return False

        eventually(is_told, "a send raises")
        assert not client.is_connected
        with pytest.raises(ClientDisconnected):
            client.raw_send("more")


@pytest.mark.parametrize("blocking", [True, False])
def test_is_connected_tells_after_a_send(blocking: bool) -> None:
    """``while client.is_connected: client.send(...)`` ends when the server does."""
    with start_threaded_server((HOST, 0)) as server:
        client = connect(server.addr, blocking=blocking, reconnect=False)
    with client:

        def is_over() -> bool:
            with contextlib.suppress(ClientDisconnected):
                client.send("position", "1")
            return not client.is_connected

        eventually(is_over, "is_connected is false")


def test_a_close_in_a_batch_does_not_wait_for_a_server_that_is_behind() -> None:
    """``close`` takes about a second, even with a full outbox and inside a batch."""
    with served(blocking=True, buffer=4096, limits=Limits(outbox=1000)) as (client, _):
        sender = Task(lambda: client.send("big", bytes(15_000_000)))
        eventually(lambda: client._engine.link.outbox.size, "it is behind")
        began = time.monotonic()

        def close() -> None:
            with contextlib.suppress(HiSockError), client.batch():
                client.send("small", b"x")
                client.close()

        closing = Task(close)
        assert closing.ends(3.0)
        assert time.monotonic() - began < 2.0
        with contextlib.suppress(HiSockError):
            sender.result()


def test_a_peer_that_resets_at_once() -> None:
    """Whenever a reset comes while a client connects, the error is one of ours."""
    outcomes: set[type[HiSockError]] = set()
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(PATIENCE)
        for number in itertools.count():
            left = number
            has_called = False

            def reset_later(frame: FrameType, event: str, argument: Any) -> None:
                nonlocal left, has_called
                name = getattr(argument, "__name__", "")
                has_called = has_called or (event, name) == ("c_return", "connect")
                left -= has_called
                if left == -1:
                    Raw(listener.accept()[0]).reset()

            client: HiSockClient | None = None
            sys.setprofile(reset_later)
            try:
                client = connect(listener.getsockname(), reconnect=False)
            except (ServerNotRunning, ClientDisconnected) as error:
                outcomes.add(type(error))
            finally:
                sys.setprofile(None)
            if left >= 0:
                Raw(listener.accept()[0]).reset()
            if client is not None:
                with client, pytest.raises(ClientDisconnected):
                    client.update()
                outcomes.add(ClientDisconnected)
            if left >= 0:
                break
    assert outcomes


# --- batches -----------------------------------------------------------------------


def test_a_batch_that_failed_does_not_swallow_what_comes_later() -> None:
    """A batch that finds the connection ended raises, and so does what follows."""
    with start_threaded_server((HOST, 0)) as server:
        client = connect(server.addr, reconnect=False)
    with client:
        with pytest.raises(ClientDisconnected):
            client.update()
        with pytest.raises(ClientDisconnected), client.batch():
            client.send("one")
        with pytest.raises(ClientDisconnected):
            client.send("two")


def test_a_batch_without_room_does_not_swallow_what_comes_later() -> None:
    """A batch for which there is no room raises; what is sent later, with room, goes
    out at once."""
    limits = Limits(outbox=1000)
    with served(buffer=4096, limits=limits) as (client, server):
        client.send("big", bytes(12_000_000))
        with pytest.raises(WouldBlock), client.batch():
            client.send("in the batch")

        reading = Task(server.take)
        updated(client, lambda: reading.ends(0), "the server reads")
        client.send("later")
        server.take_until(b"later ")


def test_update_in_a_batch_sends_it_first() -> None:
    """What was sent in a batch before ``update`` is on its way when that waits."""
    with served() as (client, server), client.batch():
        client.send("question")
        client.update()
        assert server.take() == b"question "


def test_update_in_a_batch_gets_the_answer(server: ThreadedHiSockServer) -> None:
    """A blocking ``update`` in a batch waits for the answer to what the batch asks."""
    answers: list[bytes] = []
    server.on("question")(lambda who: server.send_client(who, "answer", b"42"))
    with connect(server.addr) as client:
        client.on("answer")(answers.append)

        def ask() -> None:
            with client.batch():
                client.send("question")
                client.update()

        asking = Task(ask)
        assert asking.ends(1.5)
        assert answers == [b"42"]


# --- handlers ----------------------------------------------------------------------


def test_an_update_without_patience_handles_what_is_there() -> None:
    """``update(timeout=0)`` of a client that may wait reads all the same."""
    with served(blocking=True) as (client, server):
        got: list[bytes] = []
        client.on("it")(got.append)
        server.send(b"it 1", b"it 2")

        def is_handled() -> bool:
            client.update(timeout=0)
            return len(got) == 2

        eventually(is_handled, "both are handled")
        began = time.monotonic()
        client.update(timeout=0)
        client.update(timeout=-1)
        assert time.monotonic() - began < 0.5
    assert got == [b"1", b"2"]


def test_a_time_beyond_what_systems_count(server: ThreadedHiSockServer) -> None:
    """A month, or a year, is a time like any other, in whatever waits."""
    server.on("echo")(lambda client, message: message)
    month = 31 * 86400.0
    with connect(server.addr, "us") as client:
        client.on("it")(lambda: None)
        assert client.call("echo", 1, timeout=month) == 1
        server.send_client("us", "news", 2)
        assert client.recv("news", timeout=month) == 2
        server.send_client("us", "it")
        client.update(timeout=12 * month)


@pytest.mark.parametrize("packed", [False, True], ids=["classic", "compact"])
def test_the_cache_has_what_a_handler_failed_on_on_every_wire(packed: bool) -> None:
    """Commands, raw content that begins with one, and what ``"*"`` got."""
    wires = None if packed else ("classic",)
    with (
        start_threaded_server((HOST, 0), wires=wires) as server,
        connect(server.addr, "us", cache_size=10) as client,
    ):

        def fail(*_: object) -> None:
            raise ValueError

        client.on("bad")(fail)
        client.on("*")(fail)
        eventually(lambda: len(server) == 1, "it joins")
        server.send_client("us", "bad", b"1")
        server.send_client_raw("us", b"bad 2")
        server.send_client("us", "other", b"3")
        for _ in range(3):
            with pytest.raises(ValueError):  # noqa: PT011  # the handler's own
                client.update()
        cached = [each["content"] for each in client.get_cache()]

    assert cached == [b"bad 1", b"bad 2", b"other 3"]


def test_the_cache_has_what_a_handler_failed_on() -> None:
    """``get_cache`` has every message that came, whatever its handler did."""
    with served(cache_size=10) as (client, server):

        def fail() -> None:
            raise ValueError

        said: list[bytes] = []
        client.on("bad")(fail)
        client.on("good")(said.append)
        server.send(b"bad 1", b"good 2")

        def both() -> bool:
            with contextlib.suppress(ValueError):
                client.update()
            return bool(said)

        eventually(both, "the good one is handled")
        assert [each["content"] for each in client.get_cache()] == [b"bad 1", b"good 2"]


def test_what_is_behind_an_interrupted_handler_is_handled_next() -> None:
    """Ctrl-C in a handler costs that message alone, not the rest of its batch."""
    with served() as (client, server):
        seen: list[int] = []

        def note(message: int) -> None:
            seen.append(message)
            if message == 3:
                raise KeyboardInterrupt

        client.on("number")(note)
        server.send(*(b"number %d" % each for each in range(10)))
        with pytest.raises(KeyboardInterrupt):
            updated(client, lambda: False, "an interrupt")
        assert seen == [0, 1, 2, 3]

        updated(client, lambda: len(seen) == 10, "the rest")
        assert seen == list(range(10))


def _interrupt_updates(
    check: Callable[[HiSockClient, Raw, list[bytes]], None],
) -> None:
    """Interrupt ``update`` at every place there is, once each, then check.

    Args:
        check: Gets the client, its server, and what its handler saw.
    """
    with contextlib.ExitStack() as all_of_them:
        client: HiSockClient | None = None
        for number in itertools.count():
            if client is None:
                once = served(reconnect=False)
                client, server = all_of_them.enter_context(once)
                seen: list[bytes] = []

                def note(message: bytes, seen: list[bytes] = seen) -> None:
                    seen.append(message)

                client.on("number")(note)
            seen.clear()
            server.send(*(b"number %d" % each for each in range(3)))
            with (
                interrupt_at(number, note) as reached,
                contextlib.suppress(KeyboardInterrupt, ClientDisconnected),
            ):
                client.update()
            if not reached:
                break
            try:
                check(client, server, seen)
            except ClientDisconnected:
                client = None
            except Exception as error:
                error.add_note(f"interrupted at {reached[0]}")
                raise
    assert number > 10


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_interrupt_anywhere_leaves_update_usable(elsewhere: bool) -> None:
    """Ctrl-C at any place of ``update`` never makes a later one say that one is
    running, on this thread or on another."""
    import asyncio  # it makes a turn do more

    assert asyncio

    def check(client: HiSockClient, server: Raw, seen: list[bytes]) -> None:
        if elsewhere:
            Task(client.update).result()
        else:
            client.update()

    _interrupt_updates(check)


def test_an_interrupt_costs_no_more_than_what_is_in_hand() -> None:
    """Ctrl-C at any place loses the one message at most that was just taken to its
    handler, and repeats none; in the middle of reading it ends the connection, as no
    byte may follow."""

    def check(client: HiSockClient, server: Raw, seen: list[bytes]) -> None:
        server.send(b"number 3")
        updated(client, lambda: b"3" in seen, "all of them")
        check_order(seen)

    _interrupt_updates(check)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_interrupt_of_a_receive_costs_one_message_at_most(elsewhere: bool) -> None:
    """Ctrl-C at any place of ``recv_raw`` loses the one message at most that was about
    to be returned; what was read and not looked at ends the connection."""
    with contextlib.ExitStack() as all_of_them:
        client: HiSockClient | None = None
        for number in itertools.count():
            if client is None:
                once = served(blocking=True, reconnect=False)
                client, server = all_of_them.enter_context(once)
            got: list[bytes] = []
            server.send(b"0", b"1", b"2")
            with (
                interrupt_at(number) as reached,
                contextlib.suppress(KeyboardInterrupt),
            ):
                got.append(client.recv_raw())
            if not reached:
                break
            if client._engine.link.is_torn:  # it ends, though nothing more comes
                with pytest.raises(ClientDisconnected):
                    client.recv_raw()
                client = None
                continue
            server.send(b"3")
            receive = partial(Task, client.recv_raw) if elsewhere else client.recv_raw
            try:
                while b"3" not in got:
                    came = receive()
                    got.append(came if isinstance(came, bytes) else came.result())
                check_order(got)
            except ClientDisconnected:
                client = None
            except Exception as error:
                error.add_note(f"interrupted at {reached[0]}")
                raise
    assert number > 10


def check_order(seen: list[bytes]) -> None:
    """Of the messages 0 to 3 one may be missing; none came twice or too early."""
    assert seen == sorted(set(seen))
    assert len(seen) >= 3


# --- sending -------------------------------------------------------------------------


@pytest.mark.parametrize("connected", [connect, threaded_connect])
def test_a_send_goes_on_as_soon_as_there_is_room(
    connected: Callable[..., HiSockClient],
) -> None:
    """A send that waits goes on when there is room, not at the next tenth of a second;
    also while a thread of the client waits on the same socket."""
    with (
        socket.create_server((HOST, 0)) as listener,
        # Nobody here acknowledges anything.
        connected(listener.getsockname(), resume_window=0) as client,
        Raw(listener.accept()[0]) as server,
    ):
        size = 15 << 20

        def read() -> None:
            place = bytearray(1 << 20)
            left = 8 * size
            while left > 0:
                left -= server.sock.recv_into(place)
            server.sock.shutdown(socket.SHUT_RDWR)

        reading = Task(read)
        content = bytes(size)
        began = time.monotonic()
        for _ in range(8):
            client.send("it", content)
        assert time.monotonic() - began < 1.0
        reading.result()


def test_a_peer_that_answers_before_it_reads_on() -> None:
    """While a send waits the client reads, also where ``Limits.queue`` is off (0)."""
    with served(blocking=True, buffer=8192, limits=Limits(queue=0)) as (client, server):
        client.on("echo")(lambda message: None)

        def echo() -> None:
            for _ in range(20):
                server.send(b"echo " + server.take())

        def send() -> None:
            for _ in range(20):
                client.send("it", bytes(1_000_000))

        echoing, sending = Task(echo), Task(send)
        is_done = sending.ends(2.0)
        if not is_done:
            server.sock.close()
        assert is_done
        eventually(lambda: client._engine.run(wait=False) and echoing.ends(0), "echoes")
        echoing.result()


# --- receiving -----------------------------------------------------------------------


def test_the_queue_is_measured_in_bytes_of_its_messages() -> None:
    """More than ``Limits.queue`` bytes that have a handler end a ``recv_raw``, however
    large the single message is."""
    with served(blocking=True, limits=Limits(queue=1 << 20)) as (client, server):
        client.on("big")(lambda message: None)
        big = b"big " + bytes(1 << 19)
        sending = Task(lambda: server.throw(*([big] * 16), b"done"))
        with pytest.raises(Overloaded):
            Task(client.recv_raw).result()
        server.sock.shutdown(socket.SHUT_RDWR)
        assert sending.ends()


def _receive_behind(count: int) -> float:
    """Seconds of work for ``recv_raw`` to find a message behind many with a handler."""
    with served(blocking=True, limits=Limits(queue=0)) as (client, server):
        client.on("it")(lambda message: None)
        data = frame(b"it " + bytes(1000)) * count + frame(b"end")
        sending = Task(lambda: server.sock.sendall(data))
        began = time.thread_time()
        assert client.recv_raw() == b"end"
        taken = time.thread_time() - began
        sending.result()
        return taken


def test_receiving_behind_many_messages_costs_each_of_them_once() -> None:
    """Fifteen times as many messages cost ``recv_raw`` about fifteen times as much,
    not the square of that."""
    few = min(_receive_behind(1_000) for _ in range(3))
    many = min(_receive_behind(15_000) for _ in range(2))
    assert many < 60 * few + 0.05


def test_the_log_does_not_fill_with_dropped_messages(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of 2,000 messages that nobody receives a few lines tell, and how many."""
    with (
        caplog.at_level(logging.WARNING, "hisock"),
        served(limits=Limits(unclaimed_messages=10)) as (client, server),
    ):
        done: list[bytes] = []
        client.on("done")(done.append)
        server.send(*([b"position 1"] * 2000), b"done")
        updated(client, lambda: done, "all of them")
    check_repeats(caplog)


def check_repeats(caplog: pytest.LogCaptureFixture) -> None:
    """There are some lines, few, and one has a count of many."""
    lines = [record.getMessage() for record in caplog.records]
    assert 1 <= len(lines) <= 20, lines[:30]
    counts = [
        int(number.replace(",", ""))
        for line in lines
        for number in re.findall(r"(?<![\w.])\d[\d,]*(?![\w.])", line)
    ]
    assert any(100 <= count <= 2000 for count in counts), lines


# --- warnings ------------------------------------------------------------------------


def test_a_warning_points_at_the_line_that_sends(server: ThreadedHiSockServer) -> None:
    """Who sends under the name of an event is shown the own line, not one of ours."""
    with connect(server.addr) as client, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        client.send("join", "x")
    assert [each.filename for each in caught] == [__file__]
