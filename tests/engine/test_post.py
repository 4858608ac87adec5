"""When what handlers send leaves, seen from the other end of a socket."""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from types import FrameType
from typing import Any

import pytest

from hisock.engine.link import Link
from hisock.engine.post import COALESCE, FLUSH_SIZE, Post
from hisock.engine.threads import StateLock, Turn
from hisock.hub.outbox import Outbox
from hisock.session.connection import Connection
from hisock.session.events import Messages
from hisock.session.resume import Replay
from hisock.types import Limits

from .test_blocking import HOST, Raw, Task, eventually, frame, interrupt_at


class Scene:
    """A post with its lock and turn, and links whose other ends are raw."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.lock = StateLock()
        self.turn = Turn("run")
        self.ready: list[Link] = []
        self.behind: list[Link] = []
        self.post = Post(self.lock, self.turn, self.ready, self.behind.append)

    def link(self) -> tuple[Link, Raw]:
        """A link and its other end."""
        with socket.create_server((HOST, 0)) as listener:
            other = Raw(socket.create_connection(listener.getsockname()))
            sock, address = listener.accept()
        self._stack.enter_context(other)
        self._stack.callback(sock.close)
        sock.setblocking(False)
        connection = Connection(Limits(), time.monotonic(), header_len=16)
        return Link(sock, connection, Outbox(0), address), other

    def run(self, link: Link, other: Raw, *handlers: Callable[[], object]) -> None:
        """Run one handler for each of as many messages, as an engine does."""
        other.send(*(b"message" for _ in handlers))

        def has_come() -> bool:
            self.lock.run(link.read)
            return sum(len(e.bodies) for e in self._messages(link)) == len(handlers)

        eventually(has_come, "the messages")
        self.turn.run(self._run, link, iter(handlers))

    def _messages(self, link: Link) -> list[Messages]:
        return [event for event in link.inbox if isinstance(event, Messages)]

    def _run(self, link: Link, handlers: Iterator[Callable[[], object]]) -> None:
        for messages in self._messages(link):
            self.post.current = messages
            self.post.note_time()
            for _ in messages.rest:
                next(handlers)()
            self.post.current = None
        link.inbox.clear()
        self.post.flush()

    def write(self, link: Link, body: bytes) -> None:
        """What a send does."""
        self.lock.run(self.post.write, link, frame(body))


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A post without links yet."""
    with ExitStack() as stack:
        yield Scene(stack)


def _has_mail(peer: Raw) -> bool:
    peer.sock.setblocking(False)
    try:
        return bool(peer.sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        peer.sock.settimeout(5)


def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be overdue, however slow the machine is."""
    monkeypatch.setattr("hisock.engine.post.COALESCE", 60.0)


def test_outside_a_handler_it_leaves_at_once(scene: Scene) -> None:
    """A send that no handler made does not wait for anything."""
    link, other = scene.link()
    scene.write(link, b"now")

    assert other.take() == b"now"
    assert not scene.post.unsent


def test_it_waits_for_the_rest_of_the_batch(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While further messages wait, what handlers send is collected; the last one's
    send takes all of it along, in order."""
    _at_once(monkeypatch)
    link, other = scene.link()
    seen: list[bool] = []

    def say(body: bytes) -> Callable[[], None]:
        def handler() -> None:
            seen.append(_has_mail(other))
            scene.write(link, body)

        return handler

    scene.run(link, other, say(b"one"), say(b"two"), say(b"three"))

    assert seen == [False, False, False]
    assert [other.take() for _ in range(3)] == [b"one", b"two", b"three"]
    assert not scene.post.unsent
    assert not link.outbox.size


def test_the_end_of_a_batch_writes_what_waits(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first handlers sent leaves, though the last one sends nothing; to every
    link that something is for."""
    _at_once(monkeypatch)
    link, other = scene.link()
    second, its_other = scene.link()

    def both() -> None:
        scene.write(link, b"one")
        scene.write(second, b"two")

    scene.run(link, other, both, lambda: None)

    assert other.take() == b"one"
    assert its_other.take() == b"two"


def test_the_only_message_does_not_wait(scene: Scene) -> None:
    """A handler with nothing behind its message writes at once: a ping is prompt."""
    link, other = scene.link()
    seen: list[bytes] = []

    def handler() -> None:
        scene.write(link, b"pong")
        seen.append(other.take())

    scene.run(link, other, handler)

    assert seen == [b"pong"]


def test_it_waits_for_other_links_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last message of a link is not the last of a turn if other links wait."""
    _at_once(monkeypatch)
    link, other = scene.link()
    scene.ready += [link, scene.link()[0]]
    seen: list[bool] = []

    def handler() -> None:
        scene.write(link, b"it")
        seen.append(_has_mail(other))

    scene.run(link, other, handler)

    assert seen == [False]
    assert other.take() == b"it"


def test_other_threads_do_not_wait(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A send of another thread leaves at once while a batch of handlers runs, behind
    what those have sent to the same link."""
    _at_once(monkeypatch)
    link, other = scene.link()
    seen: list[list[bytes]] = []

    def handler() -> None:
        scene.write(link, b"of a handler")
        Task(lambda: scene.write(link, b"of a thread")).result()
        seen.append([other.take(), other.take()])

    scene.run(link, other, handler, lambda: None)

    assert seen == [[b"of a handler", b"of a thread"]]
    assert not _has_mail(other)


def test_much_does_not_wait(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """From ``FLUSH_SIZE`` bytes for one link on they are written."""
    _at_once(monkeypatch)
    link, other = scene.link()
    half = bytes(FLUSH_SIZE // 2)
    seen: list[Any] = []

    def handler() -> None:
        scene.write(link, half)
        seen.append(_has_mail(other))
        scene.write(link, half)
        seen.append([other.take(), other.take()])

    scene.run(link, other, handler, lambda: None)

    assert seen == [False, [half, half]]


@pytest.mark.parametrize("by_sending", [True, False])
def test_what_is_due_does_not_wait(scene: Scene, by_sending: bool) -> None:
    """After ``COALESCE`` seconds what waits leaves: with the next send, or when the
    engine asks between two handlers."""
    link, other = scene.link()
    second, _ = scene.link()
    seen: list[bytes] = []

    def handler() -> None:
        scene.write(link, b"it")
        end = time.monotonic() + 2 * COALESCE
        while time.monotonic() < end:
            pass
        if by_sending:
            scene.write(second, b"something else")
        else:
            scene.post.flush_due()
        seen.append(other.take())

    scene.run(link, other, handler, lambda: None)

    assert seen == [b"it"]


def test_who_is_gone_hears_no_more(scene: Scene) -> None:
    """A send to a link whose end has begun does nothing, and is no error."""
    link, other = scene.link()
    link.connection.close("it is over", time.monotonic())

    scene.write(link, b"too late")
    scene.lock.run(link.settle)

    assert other.take() == b"$USRCLOSE$"
    assert not scene.behind


def test_who_ends_meanwhile_takes_nobody_along(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that breaks with something collected for it is told of; the others get
    what is theirs."""
    _at_once(monkeypatch)
    link, other = scene.link()
    broken, its_other = scene.link()

    def handler() -> None:
        scene.write(broken, b"for nobody")
        scene.write(link, b"for you")
        its_other.reset()

    scene.run(link, other, handler, lambda: None)

    assert other.take() == b"for you"
    assert scene.behind == [broken]
    assert not scene.post.unsent


def test_who_is_behind_is_told_of(scene: Scene) -> None:
    """A link that did not take everything is named, so that somebody sees to it."""
    link, other = scene.link()
    big = bytes(15_000_000)
    scene.write(link, b"small")
    assert not scene.behind

    scene.write(link, big)
    assert scene.behind == [link]

    reading = Task(lambda: [other.take(), other.take()])

    def is_read() -> bool:
        scene.lock.run(link.flush)
        return reading.ends(0)

    eventually(is_read, "all of it")
    assert reading.result() == [b"small", big]


def test_each_of_many_gets_what_there_is_for_its_writer(scene: Scene) -> None:
    """A broadcast goes to all at once; for whom there is nothing, nothing comes."""
    pairs = [scene.link() for _ in range(4)]
    frames: dict[Any, bytes | None] = {"ours": frame(b"a"), "old": frame(b"b")}
    frames["none"] = None
    for (link, _), writer in zip(pairs, ("ours", "old", "none", "ours"), strict=True):
        link.writer = writer
        link.connection.is_open = True

    scene.lock.run(scene.post.write_many, [link for link, _ in pairs], frames)

    assert [pairs[n][1].take() for n in (0, 1, 3)] == [b"a", b"b", b"a"]
    assert not _has_mail(pairs[2][1])


def test_a_broadcast_waits_for_the_rest_of_the_batch(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a send to one; behind what waits already it keeps its place."""
    _at_once(monkeypatch)
    link, other = scene.link()
    link.writer = "ours"
    seen: list[bool] = []

    def say(body: bytes) -> Callable[[], None]:
        def handler() -> None:
            seen.append(_has_mail(other))
            frames = {"ours": frame(body)}
            scene.lock.run(scene.post.write_many, [link], frames)

        return handler

    scene.run(link, other, say(b"one"), say(b"two"), say(b"three"))

    assert seen == [False, False, False]
    assert [other.take() for _ in range(3)] == [b"one", b"two", b"three"]


def test_who_is_gone_does_not_keep_a_broadcast_from_others(scene: Scene) -> None:
    """A socket that fails ends its own link alone."""
    (gone, _), (link, other) = scene.link(), scene.link()
    for each in (gone, link):
        each.writer = "ours"
        each.connection.is_open = True
    gone.sock.close()

    scene.lock.run(scene.post.write_many, [gone, link], {"ours": frame(b"a")})

    assert other.take() == b"a"
    assert gone in scene.behind


def _struck(place: int, action: Callable[..., object], *arguments: Any) -> bool:
    """Call it; whether Ctrl-C struck at such an instruction of ``write_many``."""
    left = place

    def strike(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code is not Post.write_many.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return strike

    before = sys.gettrace()
    # CPython 3.12 asks only here whether anybody wants to see instructions.
    sys._getframe().f_trace_opcodes = True
    try:
        sys.settrace(strike)
        action(*arguments)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def _has_got(peer: Raw) -> bytes:
    peer.sock.setblocking(False)
    try:
        return peer.sock.recv(65536)
    except BlockingIOError:
        return b""


def test_f4_ctrl_c_in_a_broadcast() -> None:
    """Wherever it strikes, each link has written what has a number there, or is torn,
    so that it is cut and what has one is written again."""
    data = frame(b"news")
    for place in itertools.count():
        with ExitStack() as stack:
            scene = Scene(stack)
            pairs = [scene.link() for _ in range(3)]
            for link, _ in pairs:
                link.writer = "ours"
                link.connection.is_open = True
                link.replay = link.outbox.replay = Replay()
                link.look_at = 2**20
            arguments = scene.post.write_many, [link for link, _ in pairs]
            was_struck = _struck(place, scene.lock.run, *arguments, {"ours": data})

            torn = [link.is_torn for link, _ in pairs]
            numbers = [link.replay.last for link, _ in pairs if link.replay]
            got = [_has_got(other) for _, other in pairs]
            assert sum(torn) <= 1
            assert not scene.lock.is_busy
            for is_torn, number, came in zip(torn, numbers, got, strict=True):
                assert came == number * data or (is_torn and not came)
            assert numbers == sorted(numbers, reverse=True)
            if not was_struck:
                break
    assert place > 100, "it was struck at each place"
    assert numbers == [1, 1, 1]


def _is_free(lock: StateLock) -> bool:
    """Whether this thread could take it."""
    is_free = lock.take(False)
    if is_free:
        lock.give()
    return is_free


def test_an_interrupt_anywhere_gives_the_lock_back(scene: Scene) -> None:
    """Wherever Ctrl-C strikes a send, another thread can send afterwards."""
    data = frame(b"news")
    for place in itertools.count():
        link, other = scene.link()
        link.connection.is_open = True
        with (
            interrupt_at(place) as reached,
            contextlib.suppress(KeyboardInterrupt),
        ):
            scene.post.send(link, data)
        if not reached:
            break
        assert not scene.lock.is_busy, reached
        assert Task(partial(_is_free, scene.lock)).result(), reached
        assert _has_got(other) in (b"", data), reached
    assert place > 3


def test_an_interrupt_anywhere_in_a_send_leaves_nothing_to_the_next(
    scene: Scene,
) -> None:
    """One that strikes a read later on is not taken for one of that send: what was
    read is lost, and so is the link."""
    data = frame(bytes(8_000_000))
    for place in itertools.count():
        link, _ = scene.link()
        with (
            interrupt_at(place) as reached,
            contextlib.suppress(KeyboardInterrupt),
        ):
            scene.lock.run(link.send, data)
        if not reached:
            break
        if not link.is_torn:
            link.is_torn = True  # as in the middle of a read
            assert not link.mend(), reached
    assert place > 3


def test_a_session_that_begins_while_a_send_waits_for_the_lock(scene: Scene) -> None:
    """What is sent then is of the new session, and counts in it."""
    link, other = scene.link()
    link.replay, replay = Replay(), Replay()
    with scene.lock.reading:
        sending = Task(lambda: scene.post.send(link, frame(b"it")))
        sending.settle()
        link.replay = replay
    sending.result()

    assert other.take() == b"it"
    assert replay.last == 1


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="Windows has none")
def test_an_interrupt_of_the_wait_for_the_lock(scene: Scene) -> None:
    """Ctrl-C while another thread has the lock comes out as itself, and the lock stays
    with that thread."""
    link, other = scene.link()
    link.connection.is_open = True
    main = threading.get_ident()
    held, struck, ended = threading.Event(), threading.Event(), threading.Event()

    def strike(*_: object) -> None:
        if not struck.is_set():
            struck.set()
            raise KeyboardInterrupt

    def is_sending() -> bool:
        return sys._current_frames()[main].f_code is Post.send.__code__

    def hold() -> None:
        with scene.lock.reading:
            held.set()
            eventually(is_sending, "it waits for the lock")
            while not struck.wait(0.01):
                signal.pthread_kill(main, signal.SIGUSR1)
            assert ended.wait(5)

    before = signal.signal(signal.SIGUSR1, strike)
    try:
        holding = Task(hold)
        assert held.wait(5)
        with pytest.raises(KeyboardInterrupt):
            scene.post.send(link, frame(b"one"))
    finally:
        signal.signal(signal.SIGUSR1, before)
        ended.set()
    holding.result()
    scene.post.send(link, frame(b"two"))
    assert other.take() == b"two"
