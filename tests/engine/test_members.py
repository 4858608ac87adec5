"""Who is on a server, and what is sent to them, seen by raw peers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from hisock import Limits
from hisock.engine.waiting import deadline
from hisock.errors import InvalidOption, SendTimeout, ServerClosed, UnknownClient

from .packed import MESSAGE, Packed
from .test_blocking import Task
from .test_inquiry import Room
from .test_serve import turn

ROSTER, JOINED, LEFT = 11, 12, 13


@pytest.fixture
def room() -> Iterator[Room]:
    """Nobody is here yet."""
    with ExitStack() as stack:
        yield Room(stack)


def test_a_life_time_is_a_moment_of_this_machines_clock() -> None:
    """In milliseconds, as the wire has it."""
    before = time.monotonic()
    until = deadline(2.5)
    after = time.monotonic()

    assert 1000 * before + 2499 <= until <= 1000 * after + 2501
    with pytest.raises(InvalidOption):
        deadline(0)


@pytest.mark.parametrize(
    "who",
    [
        lambda ann: "ann",
        lambda ann: ann,
        lambda ann: ann["ip"],
        lambda ann: "{}:{}".format(*ann["ip"]),
        lambda ann: dict(ann),
        lambda ann: ["ann"],
        lambda ann: ("ann",),
        lambda ann: {"ann"},
        lambda ann: frozenset({ann}),
        lambda ann: [ann["ip"], ann],
    ],
    ids=[
        "name",
        "client",
        "address",
        "address as text",
        "dictionary",
        "list",
        "tuple",
        "set",
        "set of clients",
        "several ways",
    ],
)
def test_whoever_is_left_out_hears_nothing(
    room: Room, who: Callable[[Any], Any]
) -> None:
    """However it is named; the others do."""
    ann, ben = room.peer("ann"), room.peer("ben")
    excluded = who(room.server.client("ann"))
    room.server.send_all_clients("it", 1, exclude=excluded)
    room.server.send_group("g", "it", 2, exclude=excluded)
    room.server.group("g").send("it", 3, exclude=excluded)
    room.server.send_all_clients("it", "all")

    assert [ben.next()[2] for _ in range(4)] == [1, 2, 3, "all"]
    assert ann.next() == [MESSAGE, "it", "all"]


def test_leaving_out_nobody_known_sends_nothing(room: Room) -> None:
    """A mistake is told before anybody gets anything."""
    ann = room.peer("ann")
    with pytest.raises(UnknownClient):
        room.server.send_all_clients("it", 1, exclude=["ann", "nobody"])

    assert ann.is_quiet()


def test_what_one_cannot_be_told_costs_the_others_nothing(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    """They get it, in order with the rest; the log says who did not, now and then."""
    ann, old = room.peer("ann"), room.old("old")
    with caplog.at_level(logging.ERROR, "hisock.server"):
        for number in range(10):
            room.server.send_all_clients("it", {"n": number, "b": b""})
        room.server.send_all_clients("it", b"last")

    assert [ann.next()[2] for _ in range(10)] == [
        {"n": number, "b": b""} for number in range(10)
    ]
    assert ann.next()[2] == b"last"
    old.take_until(b"it last")
    assert len(caplog.records) == 2
    assert "cannot reach {'ip'" in caplog.text
    assert "'old'" in caplog.text


def test_who_asks_for_the_roster_is_told_who_came_since(room: Room) -> None:
    """Those who joined after it, also if it asked a moment late; and who leaves."""
    room.peer("before")
    ann = room.peer("ann")
    room.peer("after")
    ann.put([ROSTER, True])
    link = room.server._members.look_up("ann")
    turn(room.server, lambda: link.wants_roster, "it asked")
    late = room.peer("late")

    kind, info = ann.next()
    assert (kind, info["name"]) == (JOINED, "after")
    assert info.keys() == {"ip", "name", "group"}
    kind, info = ann.next()
    assert (kind, info["name"]) == (JOINED, "late")
    late.reset()
    turn(room.server, lambda: len(room.server) == 3, "it leaves")
    assert ann.next()[1]["name"] == "late"

    ann.put([ROSTER, False])
    turn(room.server, lambda: not link.wants_roster, "it wants no more")
    room.peer("unheard")
    assert ann.is_quiet()


def test_a_server_that_tells_nobody() -> None:
    """With ``roster=False`` whoever asks hears nothing all the same."""
    with ExitStack() as stack:
        room = Room(stack, roster=False)
        ann = room.peer("ann")
        ann.put([ROSTER, True])
        link = room.server._members.look_up("ann")
        turn(room.server, lambda: link.wants_roster, "it asked")
        room.peer("ben").reset()
        turn(room.server, lambda: len(room.server) == 1, "it leaves")
        assert ann.is_quiet()


def test_a_send_outside_a_turn_waits_for_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As long as the peer takes something now and then; else it says so, and what was
    accepted comes whole."""
    monkeypatch.setattr("hisock.engine.members.STALL", 0.2)
    with ExitStack() as stack:
        room = Room(stack, limits=Limits(outbox=64 * 1024))
        ann = room.peer("ann")
        sent = 0

        def flood() -> None:
            nonlocal sent
            while True:
                room.server.send_client("ann", "it", b"%06d" % sent + bytes(64 * 1024))
                sent += 1

        sending = Task(flood)
        with pytest.raises(SendTimeout, match="took nothing for"):
            sending.result()
        numbers = Task(lambda: [ann.next()[2][:6] for _ in range(sent)])
        turn(room.server, lambda: numbers.ends(0), "all of it comes")
        assert numbers.result() == [b"%06d" % number for number in range(sent)]


def test_nothing_is_sent_after_the_end(room: Room) -> None:
    """Neither to one, to a group nor to all, however they are meant."""
    room.peer("ann")
    ann, red = room.server.client("ann"), room.server.group("g")
    closing = Task(room.server.close)
    closing.result(3.0)

    calls: list[Callable[[], object]] = [
        lambda: room.server.send_client("ann", "it"),
        lambda: room.server.send_all_clients("it"),
        lambda: room.server.send_group("g", "it"),
        lambda: red.send("it"),
        lambda: ann.send("it"),
    ]
    for call in calls:
        with pytest.raises((ServerClosed, UnknownClient)):
            call()
    assert len(red) == 0
    assert list(red) == []


def test_a_packed_peer_is_described_like_any(room: Room) -> None:
    """With what its hello said."""
    peer = room.peer("ann", "team")
    assert isinstance(peer, Packed)
    assert room.server.client("ann").wire == "compact"
    assert room.server.get_client("ann")["group"] == "team"
