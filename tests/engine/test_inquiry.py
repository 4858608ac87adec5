"""What a server asks its clients, on the wire: raw peers answer, late or never."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from hisock import Limits, RemoteError, RequestTimeout, start_server
from hisock.errors import (
    ConversionError,
    Overloaded,
    SessionLost,
    UnknownClient,
    UnknownGroup,
    WouldDeadlock,
)
from hisock.server import HiSockServer

from .packed import CANCEL, CREDIT, END, FAILURE, ITEM, MESSAGE, REPLY, REQUEST, Packed
from .test_blocking import HOST, Raw, Task, eventually
from .test_serve import turn


class Room:
    """A server that nobody turns, and raw clients of it."""

    def __init__(self, stack: ExitStack, **options: Any) -> None:
        self._stack = stack
        self.server = stack.enter_context(
            start_server((HOST, 0), blocking=False, **options)
        )

    def peer(self, name: str, group: str = "g") -> Packed:
        """A raw client that has joined."""
        before = len(self.server)
        peer = Packed.call_at(self.server.addr, name, group)
        self._stack.enter_context(peer)

        def is_here() -> bool:
            self.server.run()
            return len(self.server) > before

        eventually(is_here, "it joins")
        peer.agree()
        self._settle(name)
        return peer

    def _settle(self, name: str) -> None:
        link = self.server._members.look_up(name)
        turn(self.server, lambda: link.connection.is_agreed, "both have agreed")

    def old(self, name: str, group: str = "g") -> Raw:
        """A raw client of 1.1."""
        before = len(self.server)
        peer = self._stack.enter_context(Raw.join(self.server.addr, name))
        turn(self.server, lambda: len(self.server) > before, "it joins")
        return peer


@pytest.fixture
def room() -> Iterator[Room]:
    """Nobody is here yet."""
    with ExitStack() as stack:
        yield Room(stack)


# --- a call ------------------------------------------------------------------------


def test_a_call_needs_nobody_who_turns(room: Room) -> None:
    """The waiting thread reads for itself; other messages stay for the next turn."""
    ann, got = room.peer("ann"), list[Any]()
    room.server.on("note")(lambda client, message: got.append(message))
    calling = Task(lambda: room.server.call_client("ann", "add", [1, 2]))

    kind, number, command, content, stream, ttl, within = ann.next()
    ann.put([MESSAGE, "note", 1], [REPLY, number, 3])

    assert (kind, command, content, stream, within) == (REQUEST, "add", [1, 2], 0, None)
    assert isinstance(ttl, int)
    assert number % 2 == 0
    assert calling.result() == 3
    assert got == []
    turn(room.server, lambda: got, "the message is handled")


def test_a_call_beside_a_turn(room: Room) -> None:
    """While another thread turns it only waits, and handlers run meanwhile."""
    ann, got = room.peer("ann"), list[Any]()
    room.server.on("note")(lambda client, message: got.append(message))
    room.server._blocking = True
    turning = Task(room.server.run_forever)
    calling = Task(lambda: room.server.call_client("ann", "add"))

    number = ann.next()[1]
    ann.put([MESSAGE, "note", 1])
    eventually(lambda: got, "the handler runs")
    ann.put([REPLY, number, "sum"])

    assert calling.result() == "sum"
    closing = Task(room.server.close)
    ann.reset()
    closing.result()
    turning.result()


def test_a_turn_that_comes_meanwhile_takes_over(room: Room) -> None:
    """``run`` in another thread is not refused because a call pumps: it turns, and the
    call goes on waiting."""
    ann, got = room.peer("ann"), list[Any]()
    room.server.on("note")(lambda client, message: got.append(message))
    calling = Task(lambda: room.server.call_client("ann", "add"))
    number = ann.next()[1]
    calling.settle()
    ann.put([MESSAGE, "note", 1])

    def is_handled() -> bool:
        room.server.run()
        return bool(got)

    eventually(is_handled, "the handler runs in this thread")
    ann.put([REPLY, number, "sum"])
    assert calling.result() == "sum"


def test_a_late_answer_is_dropped_and_counted(room: Room) -> None:
    """Who gave up says so; an answer on its way is nobody's message."""
    ann = room.peer("ann")
    calling = Task(lambda: room.server.call_client("ann", "add", timeout=0.05))
    number = ann.next()[1]
    with pytest.raises(RequestTimeout, match="no answer to 'add' came from"):
        calling.result()

    assert ann.next() == [CANCEL, number]
    ann.put([REPLY, number, 3])
    turn(room.server, lambda: room.server.stats()["late_replies"] == 1, "it is counted")
    assert room.server.stats()["open_calls"] == 0


@pytest.mark.parametrize(
    ("failure", "code", "message", "data"),
    [
        (["full", "no seat", [1]], "full", "no seat", [1]),
        (["handler_failed", ""], "handler_failed", "the handler of 'add' failed", None),
    ],
)
def test_a_failure_is_the_callers_error(
    room: Room, failure: list[Any], code: str, message: str, data: Any
) -> None:
    """With the code, the words and the data of the other side."""
    ann = room.peer("ann")
    calling = Task(lambda: room.server.call_client("ann", "add"))
    ann.put([FAILURE, ann.next()[1], *failure])

    with pytest.raises(RemoteError) as caught:
        calling.result()

    error = caught.value
    assert (error.code, error.message, error.data) == (code, message, data)


def test_an_answer_of_another_type(room: Room) -> None:
    """Is a conversion's error, in the thread that asked."""
    ann = room.peer("ann")
    calling = Task(lambda: room.server.call_client("ann", "add", type=int))
    ann.put([REPLY, ann.next()[1], "three"])

    with pytest.raises(ConversionError, match="expected int, got 'three'"):
        calling.result()


@pytest.mark.parametrize("how", ["reset", "goodbye", "disconnected"])
def test_a_client_that_goes_ends_its_calls(room: Room, how: str) -> None:
    """At once, whoever ended it; nobody waits for the time-out."""
    ann = room.peer("ann")
    calling = Task(lambda: room.server.call_client("ann", "add", timeout=None))
    ann.next()
    if how == "reset":
        ann.reset()
    elif how == "goodbye":
        ann.put([35, 0, "enough", None])
        ann.sock.shutdown(1)
    else:
        room.server.disconnect_client("ann", reason="enough")

    if how == "goodbye":  # a goodbye waits for its turn, behind what was said before
        calling.settle()
        turn(room.server, lambda: len(room.server) == 0, "it leaves")
    with pytest.raises(SessionLost):
        calling.result()


def test_closing_ends_calls(room: Room) -> None:
    """A thread that waits for an answer is not left behind."""
    ann = room.peer("ann")
    calling = Task(lambda: room.server.call_client("ann", "add", timeout=None))
    ann.next()
    closing = Task(room.server.close)
    ann.reset()
    closing.result()

    with pytest.raises(SessionLost):
        calling.result()


def test_waiting_where_nothing_can_come_is_refused(room: Room) -> None:
    """A plain handler that calls, on the thread that would have to read the answer,
    gets an error with the cure, and nothing is sent."""
    ann, told = room.peer("ann"), list[str]()

    @room.server.on("ask")
    def ask(client: Any) -> None:
        for call in (
            lambda: client.call("add"),
            lambda: client.stream("add"),
            lambda: room.server.call_any("g", "add"),
            lambda: room.server.call_group("g", "add"),
        ):
            with pytest.raises(WouldDeadlock) as caught:
                call()
            told.append(str(caught.value))

    ann.put([MESSAGE, "ask", None])
    turn(room.server, lambda: len(told) == 4, "it is refused")

    assert all("threaded=True" in each for each in told)
    assert ann.is_quiet()


def test_a_threaded_handler_may_wait(room: Room) -> None:
    """And its call carries the number of the one it serves, so that the other side
    answers it at once."""
    ann = room.peer("ann")

    @room.server.on("ask", threaded=True)
    def ask(client: Any, message: int) -> int:
        answer: int = client.call("add", message, type=int)
        return answer * 2

    ann.put([REQUEST, 1, "ask", 5])
    frames: list[list[Any]] = []

    def has_come() -> bool:
        room.server.run()
        if not ann.is_quiet():
            frames.append(ann.next())
        return bool(frames)

    eventually(has_come, "the call comes")
    kind, number, command, content, _, _, within = frames.pop()
    assert (kind, command, content, within) == (REQUEST, "add", 5, 1)
    ann.put([REPLY, number, 6])
    eventually(has_come, "the reply comes")

    assert frames == [[REPLY, 1, 12]]


def test_too_many_open_calls_are_refused() -> None:
    """At the limit the next is refused at once, the others go on."""
    with ExitStack() as stack:
        room = Room(stack, limits=Limits(requests=2))
        ann = room.peer("ann")
        calls = [Task(lambda: room.server.call_client("ann", "add")) for _ in "ab"]
        numbers = [ann.next()[1] for _ in calls]

        with pytest.raises(Overloaded, match="2 calls and streams wait"):
            room.server.call_client("ann", "add")

        ann.put(*([REPLY, number, number] for number in numbers))
        assert sorted(call.result() for call in calls) == numbers


# --- a group -----------------------------------------------------------------------


def test_a_group_answers_as_it_can(room: Room) -> None:
    """Replies come as they come; who failed and who stayed silent is told after."""
    peers = {name: room.peer(name) for name in ("ann", "ben", "cid")}
    room.old("old")
    answers = room.server.call_group("g", "vote", "now", timeout=0.3)
    numbers = {name: peer.next()[1] for name, peer in peers.items()}

    peers["ben"].put([REPLY, numbers["ben"], "yes"])
    first = next(answers)
    peers["ann"].put([FAILURE, numbers["ann"], "busy", "later"])
    rest = list(answers)

    assert (first[0]["name"], first[1]) == ("ben", "yes")
    assert rest == []
    assert [client["name"] for client in answers.missing] == ["cid"]
    failed = {client["name"]: error.code for client, error in answers.failed}
    assert failed == {"old": "classic_wire", "ann": "busy"}
    assert peers["cid"].next() == [CANCEL, numbers["cid"]]
    assert list(answers) == []


def test_a_group_may_be_left_early(room: Room) -> None:
    """Leaving the ``with`` cancels what is still open."""
    ann, ben = room.peer("ann"), room.peer("ben")
    with room.server.call_group("g", "vote", timeout=None) as answers:
        ann.put([REPLY, ann.next()[1], "yes"])
        number = ben.next()[1]
        assert next(answers)[1] == "yes"

    assert ben.next() == [CANCEL, number]
    assert [client["name"] for client in answers.missing] == ["ben"]
    assert room.server.stats()["open_calls"] == 0


def test_some_of_a_group_are_left_out(room: Room) -> None:
    """By ``exclude``; a group of nobody has no replies."""
    ann, ben = room.peer("ann"), room.peer("ben")
    with room.server.call_group("g", "vote", exclude=["ann"]) as answers:
        ben.put([REPLY, ben.next()[1], "yes"])
        assert [(client["name"], reply) for client, reply in answers] == [
            ("ben", "yes")
        ]

    assert ann.is_quiet()
    assert list(room.server.call_group("nobody", "vote")) == []
    with pytest.raises(UnknownClient):
        room.server.call_group("g", "vote", exclude="nobody")


def test_content_that_cannot_be_sent_asks_nobody(room: Room) -> None:
    """The mistake is the caller's, before the first of the group is asked."""
    ann, ben = room.peer("ann"), room.peer("ben")
    with pytest.raises(TypeError):
        room.server.call_group("g", "vote", object())

    assert ann.is_quiet()
    assert ben.is_quiet()
    assert room.server.stats()["open_calls"] == 0


def test_a_job_goes_to_the_idlest(room: Room) -> None:
    """The fewest open calls, the oldest of those; never to a client of 1.1."""
    room.old("old")
    workers = {name: room.peer(name) for name in ("ann", "ben", "cid")}

    def work() -> Any:
        return room.server.call_any("g", "job")

    jobs: list[Task] = []
    numbers: dict[str, list[int]] = {name: [] for name in workers}
    for name in ("ann", "ben", "cid", "ann"):
        jobs.append(Task(work))
        numbers[name].append(workers[name].next()[1])
    workers["ben"].put([REPLY, numbers["ben"].pop(), "done"])
    assert jobs.pop(1).result() == "done"
    jobs.append(Task(work))
    numbers["ben"].append(workers["ben"].next()[1])

    for name, peer in workers.items():
        peer.put(*([REPLY, number, name] for number in numbers[name]))
    assert sorted(job.result() for job in jobs) == ["ann", "ann", "ben", "cid"]
    with pytest.raises(UnknownGroup):
        room.server.call_any("nobody", "job")


# --- a stream ----------------------------------------------------------------------


def test_a_stream_gives_credit_as_it_is_read(room: Room) -> None:
    """64 items ahead, and again as many as were read once half of them are."""
    ann = room.peer("ann")
    with room.server.stream_client("ann", "count", 100) as items:
        kind, number, command, content, credit, _, _ = ann.next()
        assert (kind, command, content, credit) == (REQUEST, "count", 100, 64)
        ann.put(*([ITEM, number, each] for each in range(64)))

        assert [next(items) for _ in range(31)] == list(range(31))
        assert ann.is_quiet()
        assert next(items) == 31
        assert ann.next() == [CREDIT, number, 32]

        assert [next(items) for _ in range(32)] == list(range(32, 64))
        assert ann.next() == [CREDIT, number, 32]

        ann.put([ITEM, number, 64], [END, number])
        assert list(items) == [64]
    assert ann.is_quiet()


def test_a_stream_that_is_closed_is_cancelled(room: Room) -> None:
    """Once; what still comes of it is dropped."""
    ann = room.peer("ann")
    items = room.server.stream_client("ann", "count")
    number = ann.next()[1]
    ann.put([ITEM, number, 0], [ITEM, number, 1])
    assert next(items) == 0

    items.close()
    items.close()

    assert ann.next() == [CANCEL, number]
    ann.put([ITEM, number, 2], [END, number])
    assert list(items) == []
    turn(room.server, lambda: room.server.stats()["late_replies"] == 2, "dropped")
    assert ann.is_quiet()


def test_a_stream_that_stalls_times_out(room: Room) -> None:
    """The time-out is for each item; then it is cancelled."""
    ann = room.peer("ann")
    items = room.server.stream_client("ann", "count", timeout=0.05)
    number = ann.next()[1]
    ann.put([ITEM, number, 0])
    assert next(items) == 0

    with pytest.raises(RequestTimeout, match=r"no item of 'count' came within 0\.05 s"):
        next(items)

    assert ann.next() == [CANCEL, number]
    assert list(items) == []


def test_a_stream_that_fails_fails_behind_its_items(room: Room) -> None:
    """What came before the failure is read first; then it is over."""
    ann = room.peer("ann")
    items = room.server.stream_client("ann", "count", type=int)
    number = ann.next()[1]
    ann.put([ITEM, number, 1], [FAILURE, number, "full", "no seat"])

    assert next(items) == 1
    with pytest.raises(RemoteError, match="full: no seat"):
        next(items)
    assert list(items) == []


def test_a_stream_beyond_its_credit_ends_the_client(room: Room) -> None:
    """More than 64 items unread are against the rules; the others are not harmed."""
    ann, ben = room.peer("ann"), room.peer("ben")
    items = room.server.stream_client("ann", "count")
    number = ann.next()[1]
    ann.put(*([ITEM, number, each] for each in range(65)))

    turn(room.server, lambda: len(room.server) == 1, "ann is ended")
    with pytest.raises(SessionLost):
        list(items)
    calling = Task(lambda: room.server.call_client("ben", "add"))
    ben.put([REPLY, ben.next()[1], 1])
    assert calling.result() == 1


def test_a_forgotten_stream_is_cancelled(room: Room) -> None:
    """Garbage collection closes what nobody reads any more."""
    ann = room.peer("ann")
    items = room.server.stream_client("ann", "count")
    number = ann.next()[1]

    del items

    assert ann.next() == [CANCEL, number]


# --- many at once ------------------------------------------------------------------


def test_many_threads_call_many_clients(room: Room) -> None:
    """Each gets the answer to its own question, turned or not."""
    names = ("ann", "ben", "cid")
    peers = {name: room.peer(name) for name in names}
    wrong: list[Any] = []
    each = 50

    def answer(peer: Packed) -> None:
        for _ in range(2 * each):
            _, number, _, content, *_ = peer.next()
            peer.put([REPLY, number, content])

    def ask(server: HiSockServer, name: str, first: int) -> None:
        for number in range(first, first + each):
            reply = server.call_client(name, "echo", [name, number])
            if reply != [name, number]:
                wrong.append((name, number, reply))

    answering = [threading.Thread(target=answer, args=(p,)) for p in peers.values()]
    asking = [
        Task(lambda name=name, first=first: ask(room.server, name, first))  # type: ignore[misc]  # defaults
        for name in names
        for first in (0, 1000)
    ]
    for thread in answering:
        thread.start()
    end = time.monotonic() + 5
    while not all(task.ends(0) for task in asking) and time.monotonic() < end:
        room.server.run()
    for task in asking:
        task.result()
    for thread in answering:
        thread.join()

    assert wrong == []
