"""Every frame at every point of a conversation: accepted, or the end of it."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hisock.errors import RemoteProtocolError
from hisock.session.connection import Connection
from hisock.session.events import Closed, Event, Messages, Opened
from hisock.session.states import State
from hisock.types import Limits
from hisock.wire import compact
from hisock.wire.classic import decode_control, encode_frame
from hisock.wire.frames import (
    Ack,
    Bye,
    Cancel,
    Compact,
    Credit,
    End,
    Failure,
    Gap,
    Groups,
    Item,
    Joined,
    Left,
    Message,
    PackedFrame,
    Ping,
    Pong,
    Refusal,
    Regroup,
    Rename,
    Reply,
    Request,
    Roster,
    Welcome,
)

from .talk import (
    ADA,
    HI,
    NEW_ADA,
    STAGES,
    START,
    WELCOME,
    frame,
    in_stage,
    split,
)

PACKED: list[PackedFrame] = [
    Message("a", HI),
    Message(None, HI, 5),
    Request(1, "a", HI),
    Request(2, "a", HI, 64),
    Reply(1, HI),
    Failure(2, "a", "b"),
    Item(1, HI),
    End(2),
    Credit(1, 5),
    Cancel(2),
    Rename("x"),
    Regroup(None),
    Roster(True),
    Joined({}),
    Left({}),
    Gap(1),
    Groups([], []),
    Ack(1),
    Ping(1),
    Pong(1),
    Bye(),
]
CLASSIC: list[bytes] = [
    *(b"", b"hi", b"$", b"$CHNAME$", b"$CHGROUP$ x", b"$GETCLT$ Ada", b"$DH_NUMS$"),
    *(b"$USRCLOSE$", b"$DISCONN$", b"$CLTCONN$ {}", b"$CLTDISCONN$ {}", b"$NOTLS$"),
    *(b"$COMPACT$", b"$COMPACT$ x", b"$REFUSED$ {}", b"$REFUSED$", b"$WELCOME$"),
    *(encode_frame(WELCOME), encode_frame(Welcome(3)), encode_frame(NEW_ADA)),
    *(encode_frame(ADA), encode_frame(Compact()), encode_frame(Refusal("a", "b", 1))),
]
INPUTS: Final = [
    *map(frame, CLASSIC),
    *map(compact.encode, PACKED),
    *(b"$CHNAME$", b"$CHGROUP$", b"garbage", b"\x00" * 8, b"\xff" * 8, b"1" * 65),
    *(compact.header(2) + b"\x91\x7f", compact.header(2) + b"\x91\x06"),
    compact.header(300) + b"\x91" * 300,
]


def check_reaction(connection: Connection, events: list[Event]) -> None:
    """Events are known, the end is the last, and the goodbye can be read."""
    kinds = [type(event) for event in events]
    assert {Opened, Messages, Closed} >= set(kinds)
    assert Closed not in kinds[:-1]
    assert connection.is_open is (connection.state is State.OPEN)
    for event in events:
        if isinstance(event, Messages):
            for body in event.bodies:
                read_body(body, is_packed=event.is_packed)


def read_body(body: bytes, *, is_packed: bool) -> None:
    """Look into a body as the engine does when its turn comes."""
    try:
        if is_packed:
            compact.decode(body)
        else:
            decode_control(body, by_client=True)
            decode_control(body, by_client=False)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize("data", INPUTS, ids=lambda data: repr(data)[:40])
@pytest.mark.parametrize("stage", STAGES)
def test_every_frame_in_every_stage(stage: str, data: bytes) -> None:
    """Each frame at each point is accepted, or ends it; it never raises."""
    connection = in_stage(stage)
    was_over = stage in ("closing", "closed")
    before = connection.state

    events = connection.feed(data, START)

    check_reaction(connection, events)
    ended = [event for event in events if isinstance(event, Closed)]
    if was_over:
        assert (events, connection.state) == ([], before)
    else:
        assert bool(ended) is (connection.state in (State.CLOSING, State.CLOSED))


@given(
    st.sampled_from(STAGES),
    st.lists(st.sampled_from(INPUTS) | st.binary(max_size=40), max_size=12),
    st.data(),
)
def test_any_frames_in_any_stage(
    stage: str, pieces: list[bytes], data: st.DataObject
) -> None:
    """Any frames and bytes, cut anywhere: one end at most, nothing after it."""
    connection = in_stage(stage)
    stream = b"".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    events: list[Event] = []
    for piece in split(stream, cuts):
        new = connection.feed(piece, START)
        for event in new:
            if isinstance(event, Opened) and event.hello.proto:
                connection.serve(event.hello.name, event.hello.group, START)
        events += new

    check_reaction(connection, events)
    kinds = [type(event) for event in events]
    assert kinds.count(Opened) <= 1


def test_a_goodbye_is_not_broken_by_what_comes_behind_it() -> None:
    """Bytes that are no WebSocket end a connection that has said goodbye already."""
    connection = Connection(Limits(), 0.0, header_len=4, is_packed=True)
    connection.close("enough", 0.0)

    events = connection.violated(RemoteProtocolError("no WebSocket"), 0.0)

    assert (events, connection.state) == ([], State.CLOSED)
