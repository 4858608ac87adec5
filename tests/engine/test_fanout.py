"""What is sent to many at once, seen from the other ends of their sockets."""

from __future__ import annotations

import itertools
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from types import CodeType, FrameType
from typing import Any

import pytest

from hisock.engine import fanout
from hisock.engine.fanout import FanOut, FanOuts
from hisock.engine.link import Link
from hisock.engine.post import FLUSH_SIZE, Post
from hisock.engine.threads import StateLock
from hisock.session.events import Messages
from hisock.session.resume import ACK_SIZE, Replay

from .test_blocking import Raw, Task, eventually, frame
from .test_post import Scene

_MANY = 5


class Crowd(Scene):
    """Links that have joined, each with a session, and a fan-out to all of them."""

    def __init__(self, stack: ExitStack, size: int = _MANY) -> None:
        super().__init__(stack)
        self.pairs = [self.link() for _ in range(size)]
        self.links = [link for link, _ in self.pairs]
        self.others = [other for _, other in self.pairs]
        for link in self.links:
            link.writer = "ours"
            link.connection.is_open = True
            link.replay = link.outbox.replay = Replay()
            link.look_at = 2**20
        self.fan = FanOut(self.links, self.lock.changes)

    def say(self, *bodies: bytes) -> None:
        """Send to all of them, one after another."""
        for body in bodies:
            frames = {"ours": frame(body)}
            self.lock.share(self.post.fan_out, self.fan, frames)

    def batch(self, *handlers: Callable[[], object], more: int = 1) -> None:
        """Run handlers as an engine does for messages of which more wait."""
        messages = Messages([b"message"] * (len(handlers) + more))
        self.post.current = messages
        self.post.note_time()

        def run() -> None:
            for handler, _ in zip(handlers, messages.rest, strict=False):
                handler()

        self.turn.run(run)
        self.post.current = None
        self.post.flush()

    @property
    def numbers(self) -> list[int]:
        """How many messages to each have a number."""
        return [link.replay.last for link in self.links if link.replay is not None]

    def waiting(self, link: Link) -> bytes:
        """What is still to be written to one of them."""
        size = link.outbox.size
        link.replay = link.outbox.replay = None
        parts = []
        while link.outbox.size:
            parts.append(bytes(link.outbox.head()))
            link.outbox.advance(len(parts[-1]), time.monotonic())
        assert sum(map(len, parts)) <= size
        return b"".join(parts)


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crowd]:
    """Five that listen; nothing is overdue, however slow the machine is."""
    monkeypatch.setattr("hisock.engine.post.COALESCE", 60.0)
    with ExitStack() as stack:
        yield Crowd(stack)


def _has_got(peer: Raw) -> bytes:
    peer.sock.setblocking(False)
    try:
        return peer.sock.recv(2**20)
    except BlockingIOError:
        return b""
    finally:
        peer.sock.settimeout(5)


def test_all_of_them_get_it_at_once(crowd: Crowd) -> None:
    """And it has its number with each, and nothing has changed by it."""
    changes = crowd.lock.changes

    crowd.say(b"one", b"two")

    assert [[o.take(), o.take()] for o in crowd.others] == [[b"one", b"two"]] * _MANY
    assert crowd.numbers == [2] * _MANY
    assert crowd.lock.changes == changes == crowd.fan.changes
    assert not crowd.behind


def test_each_kind_gets_its_own(crowd: Crowd) -> None:
    """Links of several writers are in one fan-out; those with no session, too."""
    crowd.links[0].writer = "old"
    crowd.links[0].replay = crowd.links[0].outbox.replay = None
    fan = FanOut(crowd.links, crowd.lock.changes)
    frames = {"ours": frame(b"new"), "old": frame(b"old")}

    crowd.lock.share(crowd.post.fan_out, fan, frames)

    assert fan.writers == {"ours", "old"}
    assert [o.take() for o in crowd.others] == [b"old"] + [b"new"] * (_MANY - 1)


@pytest.mark.parametrize("mischief", ["full", "torn", "closed", "unheard"])
def test_with_whom_something_is_wrong_is_looked_at(crowd: Crowd, mischief: str) -> None:
    """A link that cannot just be written to is left to the careful way."""
    odd = crowd.links[2]
    if mischief == "full":
        odd.outbox.append(frame(b"before"))
    elif mischief == "torn":
        odd.is_torn = True
    elif mischief == "closed":
        odd.connection.is_open = False
    else:
        assert odd.replay is not None
        odd.replay.size = odd.look_at + 1

    fan = FanOut(crowd.links, crowd.lock.changes)

    assert fan.others == [odd]
    assert set(fan.links) == set(crowd.links)
    if mischief == "full":
        crowd.fan = fan
        crowd.say(b"it")
        assert [crowd.others[2].take() for _ in range(2)] == [b"before", b"it"]


def test_after_a_change_all_are_looked_at_again(crowd: Crowd) -> None:
    """What holds no longer is not relied on."""
    gone = crowd.links[0]
    crowd.lock.run(gone.lose_for, "it is gone")

    crowd.say(b"it")

    assert [o.take() for o in crowd.others[1:]] == [b"it"] * (_MANY - 1)
    assert crowd.numbers == [0] + [1] * (_MANY - 1)


@pytest.mark.parametrize("more", [0, 1])
def test_a_batch_leaves_in_one_piece(crowd: Crowd, more: int) -> None:
    """What handlers of one batch send to many is collected, and numbered when it
    leaves: with what the last of them sends, or behind it."""
    seen: list[Any] = []

    def say(body: bytes) -> Callable[[], None]:
        def handler() -> None:
            seen.append([_has_got(crowd.others[0]), crowd.numbers[0]])
            crowd.say(body)

        return handler

    crowd.batch(say(b"one"), say(b"two"), say(b"three"), more=more)

    assert seen == [[b"", 0]] * 3
    whole = b"".join(frame(body) for body in (b"one", b"two", b"three"))
    assert [_has_got(other) for other in crowd.others] == [whole] * _MANY
    assert crowd.numbers == [3] * _MANY
    assert all(link.outbox.frames is None for link in crowd.links)
    assert [len(x.replay.blocks or ()) for x in crowd.links if x.replay] == [1] * _MANY
    assert not crowd.post.unsent
    assert crowd.lock.settle is None


@pytest.mark.parametrize("by_thread", [False, True])
def test_what_is_sent_to_one_of_them_keeps_its_place(
    crowd: Crowd, by_thread: bool
) -> None:
    """Between two broadcasts of a batch; another thread's send takes along what was
    before it."""
    first = crowd.links[0]

    def whisper() -> None:
        crowd.post.send(first, frame(b"only you"))

    def handler() -> None:
        crowd.say(b"one")
        if by_thread:
            Task(whisper).result()
            assert crowd.others[0].take() == b"one"
            assert crowd.others[0].take() == b"only you"
        else:
            whisper()
        crowd.say(b"two")

    crowd.batch(handler)

    heard = [] if by_thread else [b"one", b"only you"]
    assert [crowd.others[0].take() for _ in [*heard, 1]] == [*heard, b"two"]
    assert [[o.take(), o.take()] for o in crowd.others[1:]] == [[b"one", b"two"]] * 4
    assert crowd.numbers == [3] + [2] * 4


def test_two_fan_outs_keep_the_order(crowd: Crowd) -> None:
    """Who is in two groups hears them in the order in which they were sent to."""

    def handler() -> None:
        both = FanOut(crowd.links[:4], crowd.lock.changes)
        crowd.say(b"one")
        crowd.lock.share(crowd.post.fan_out, both, {"ours": frame(b"two")})
        crowd.say(b"three")

    crowd.batch(handler)

    heard = [[o.take() for _ in range(3)] for o in crowd.others[:4]]
    assert heard == [[b"one", b"two", b"three"]] * 4
    assert [crowd.others[4].take() for _ in range(2)] == [b"one", b"three"]


def test_much_does_not_wait_for_the_end_of_the_batch(crowd: Crowd) -> None:
    """From ``FLUSH_SIZE`` bytes on it is written."""
    half = bytes(FLUSH_SIZE // 2 - 20)
    seen: list[Any] = []

    def handler() -> None:
        crowd.fan.room = 2**20
        crowd.say(half)
        seen.append(_has_got(crowd.others[0]))
        crowd.say(half, b"a little more of it than fits")
        seen.append(crowd.others[0].take())

    crowd.batch(handler)

    assert seen == [b"", half]


def test_after_so_much_somebody_looks_for_acknowledgements(crowd: Crowd) -> None:
    """Many small ones are looked after like one large one."""
    for link in crowd.links:
        link.look_at = ACK_SIZE // 2
    crowd.fan = FanOut(crowd.links, crowd.lock.changes)
    body = bytes(1000)
    told = itertools.takewhile(lambda _: not crowd.behind, itertools.count(1))

    for _ in told:
        crowd.say(body)
        for other in crowd.others:
            other.take()

    assert set(crowd.behind) == set(crowd.links)
    assert crowd.numbers == [ACK_SIZE // 2 // len(frame(body)) + 1] * _MANY


def test_who_takes_only_a_part_gets_the_rest(crowd: Crowd) -> None:
    """A slow one holds up nobody, loses nothing, and is told of."""
    slow, other = crowd.links[1], crowd.others[1]
    body = bytes(60_000)
    count = 0
    while not crowd.behind:
        crowd.fan.room = 2**20
        crowd.say(body)
        count += 1
        for each in (*crowd.others[:1], *crowd.others[2:]):
            assert each.take() == body
    assert crowd.behind == [slow]
    assert crowd.numbers == [count] * _MANY or crowd.numbers[1] == count - 1
    assert crowd.fan.changes != crowd.lock.changes

    crowd.say(b"afterwards")
    reading = Task(lambda: [other.take() for _ in range(count + 1)])

    def is_read() -> bool:
        crowd.lock.run(slow.flush)
        return reading.ends(0)

    eventually(is_read, "all of it")
    assert reading.result() == [body] * count + [b"afterwards"]


@pytest.mark.parametrize("in_batch", [False, True])
def test_who_breaks_takes_nobody_along(crowd: Crowd, in_batch: bool) -> None:
    """Wherever it stands among them."""
    for number in (0, 2, _MANY - 1):
        crowd.links[number].sock.close()

    if in_batch:
        crowd.batch(lambda: crowd.say(b"one", b"two"))
    else:
        crowd.say(b"one", b"two")

    for number in (1, 3):
        assert [crowd.others[number].take() for _ in range(2)] == [b"one", b"two"]
    assert set(crowd.behind) == {crowd.links[n] for n in (0, 2, _MANY - 1)}


# --- Ctrl-C --------------------------------------------------------------------------

_CODES = {
    function.__code__
    for kind in (fanout.FanOut, fanout._Kind, Post, StateLock)
    for function in vars(kind).values()
    if hasattr(function, "__code__")
    and function.__name__
    in {
        "fan_out",
        "write",
        "collect",
        "flush",
        "settle",
        "_pour",
        "_recover",
        "_flush",
        "_flush_fan",
        "_settle",
    }
} | {fanout._take_back.__code__}


class _Striker:
    """Raises ``KeyboardInterrupt`` at one instruction of some functions."""

    def __init__(self, place: int, codes: set[CodeType]) -> None:
        self._left = place
        self._codes = codes
        self.has_struck = False

    def __call__(self, action: Callable[..., object], *arguments: Any) -> None:
        before = sys.gettrace()
        # CPython 3.12 asks only here whether anybody wants to see instructions.
        sys._getframe().f_trace_opcodes = True
        try:
            sys.settrace(self._strike)
            action(*arguments)
        except KeyboardInterrupt:
            assert self.has_struck
        finally:
            sys.settrace(before)

    def _strike(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code not in self._codes:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not self.has_struck:
            self._left -= 1
            if self._left < 0:
                self.has_struck = True
                raise KeyboardInterrupt
        return self._strike


def _check(crowd: Crowd, sent: list[bytes]) -> None:
    """Each has, or will get, what was sent, in order and once; all but the last, where
    Ctrl-C struck in its sending. A torn link gets it again on its next socket."""
    assert not crowd.lock.is_busy
    crowd.post.flush()
    for link, other in crowd.pairs:
        if link.is_torn or not link.connection.is_open:
            continue
        number = link.replay.last if link.replay is not None else 0
        came = _has_got(other)
        got = came + crowd.waiting(link)
        assert got in (b"".join(sent), b"".join(sent[:-1]))
        assert number == sum(came.count(each) for each in sent)
    assert sum(link.is_torn for link in crowd.links) <= 1


def _strikes(*, is_worse: bool = False) -> Iterator[tuple[Crowd, _Striker]]:
    """A fresh crowd for each place at which Ctrl-C may strike."""
    for place in itertools.count():
        with ExitStack() as stack:
            crowd = Crowd(stack, 3)
            if is_worse:  # one is gone
                crowd.links[1].sock.shutdown(socket.SHUT_WR)
            striker = _Striker(place, _CODES)
            yield crowd, striker
            if not striker.has_struck:
                assert place > 100, "it was struck at each place"
                return


@pytest.mark.parametrize("is_worse", [False, True])
def test_f4_ctrl_c_in_a_fan_out(is_worse: bool) -> None:
    """Wherever it strikes, each has the message or will get it, or nobody sent it."""
    data = frame(b"news")
    for crowd, strike in _strikes(is_worse=is_worse):
        strike(crowd.say, b"news")
        _check(crowd, [data])


def test_f4_ctrl_c_in_a_batch_of_fan_outs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was collected before is not lost, nor sent twice."""
    monkeypatch.setattr("hisock.engine.post.COALESCE", 60.0)
    sent = [frame(b"one"), frame(b"two"), frame(b"three")]
    for crowd, strike in _strikes():

        def handler(crowd: Crowd = crowd, strike: _Striker = strike) -> None:
            crowd.say(b"one", b"two")
            strike(crowd.say, b"three")
            strike(crowd.post.flush)

        crowd.batch(handler)
        _check(crowd, sent)


def test_f4_ctrl_c_while_each_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, where a send to one of them comes in between."""
    monkeypatch.setattr("hisock.engine.post.COALESCE", 60.0)
    for crowd, strike in _strikes():

        def handler(crowd: Crowd = crowd, strike: _Striker = strike) -> None:
            crowd.say(b"one", b"two")
            assert crowd.lock.settle is not None
            strike(crowd.lock.run, lambda: None)

        crowd.batch(handler)
        crowd.say(b"three")
        _check(crowd, [frame(b"one"), frame(b"two"), frame(b"three")])


# --- which there are ------------------------------------------------------------------


def test_one_is_made_once_and_serves_until_something_changes(crowd: Crowd) -> None:
    """And is not made for a few, nor where there is a change before each send."""
    asked: list[str | None] = []

    def members(group: str | None) -> list[Link]:
        asked.append(group)
        return crowd.links[:2] if group == "few" else crowd.links

    fans = FanOuts()
    first = fans.find("all", 1, members)
    assert first is not None
    assert [fans.find("all", 1, members) for _ in range(9)] == [first] * 9
    assert asked == ["all"]
    second = fans.find("all", 2, members)
    assert second is not None
    assert second is not first
    assert asked == ["all", "all"]
    assert fans.find("few", 2, members) is None
    found = [fans.find("all", changes, members) for changes in range(3, 103)]
    assert 3 <= sum(fan is not None for fan in found) <= 12
    fans.clear()
    assert fans.find("all", 200, members) is not None


def test_it_is_not_made_where_most_have_to_be_looked_at(crowd: Crowd) -> None:
    """As where all encrypt: it would be made in vain before each send."""
    for link in crowd.links[1:]:
        link.is_torn = True
    asked: list[str | None] = []

    def members(group: str | None) -> list[Link]:
        asked.append(group)
        return crowd.links

    fans = FanOuts()
    assert [fans.find(None, 1, members) for _ in range(100)] == [None] * 100
    assert len(asked) < 10


# --- what changes on the way of others ------------------------------------------------


def _stuff(link: Link, other: Raw) -> bytes:
    """A message that its socket takes in part only."""
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    other.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    return bytes(2**18)


def _hear(crowd: Crowd, number: int) -> bytes:
    """All that one of them was sent, the rest of it included."""
    link, other = crowd.pairs[number]
    came = [_has_got(other)]

    def is_written() -> bool:
        came.append(_has_got(other))
        crowd.lock.run(link.flush)
        return not link.outbox.size

    eventually(is_written, "all of it")
    link.sock.shutdown(socket.SHUT_WR)
    return b"".join([*came, *iter(partial(other.sock.recv, 2**20), b"")])


def _make_room(other: Raw) -> bytes:
    """Take in all that its socket has, so that there is room for a little more."""
    came = [other.sock.recv(1)]
    while more := _has_got(other):
        came.append(more)
    return b"".join(came)


def test_f4_a_send_in_part_is_heeded_from_its_very_write() -> None:
    """Wherever Ctrl-C strikes in it, or another thread's turn comes: nothing that is
    sent to many gets into the middle of it."""
    for place in itertools.count():
        with ExitStack() as stack:
            crowd = Crowd(stack, 3)
            link, other = crowd.pairs[0]
            body = _stuff(link, other)
            strike = _Striker(place, {Post.send.__code__})

            strike(crowd.post.send, link, frame(body))
            if crowd.lock.is_busy:  # between two stores, where no signal comes
                continue
            is_torn, before = link.is_torn, b""
            if link.outbox.size:
                before = _make_room(other)
            crowd.say(b"news")

            if not is_torn:
                heard = before + _hear(crowd, 0)
                assert heard in (frame(body) + frame(b"news"), frame(b"news")), place
            if not strike.has_struck:
                assert place > 20
                return


def test_who_can_be_written_to_again_is_in_step_with_other_groups(
    crowd: Crowd,
) -> None:
    """One that had to be looked at when the first of two fan-outs was made, and not
    any more at the second: what the first leaves half written, the second heeds."""
    link, other = crowd.pairs[0]
    body = _stuff(link, other)
    assert link.replay is not None
    link.look_at = -1  # it is to acknowledge something
    first = FanOut(crowd.links, crowd.lock.changes)
    link.look_at = 2**30  # it has, which is nothing unusual
    second = FanOut(crowd.links, crowd.lock.changes)
    first.room = second.room = 2**30
    assert first.others == [link]
    assert not second.others

    crowd.fan = first
    crowd.say(body)
    assert crowd.behind == [link]
    before = _make_room(other)
    crowd.fan = second
    crowd.say(b"news")

    assert before + _hear(crowd, 0) == frame(body) + frame(b"news")


def test_f4_ctrl_c_around_one_that_takes_a_part() -> None:
    """Wherever it strikes, what is sent to many next does not get into the middle."""
    codes = {
        function.__code__
        for function in (Post.fan_out, Post._see_to, fanout._Kind._recover)
    }
    for place in itertools.count():
        with ExitStack() as stack:
            crowd = Crowd(stack, 3)
            link, other = crowd.pairs[1]
            body = _stuff(link, other)
            crowd.fan.room = 2**30
            strike = _Striker(place, codes)

            strike(crowd.say, body)
            is_torn, before = link.is_torn, b""
            if link.outbox.is_begun and not is_torn:
                before = _make_room(other)
            crowd.say(b"news")

            if not is_torn:
                heard = before + _hear(crowd, 1)
                assert heard in (frame(body) + frame(b"news"), frame(b"news"))
            if not strike.has_struck:
                assert place > 100
                return
