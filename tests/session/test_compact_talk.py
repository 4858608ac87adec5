"""Two peers' conversation on the compact wire: calls, goodbyes, ends, clocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.spelled import spelled

from hisock.errors import Overloaded, RemoteProtocolError, SessionLost
from hisock.session.connection import LINGER, Connection, milliseconds
from hisock.session.events import Closed, Event
from hisock.session.states import State
from hisock.types import Limits
from hisock.wire import compact
from hisock.wire.frames import (
    PROTO,
    Ack,
    Bye,
    Cancel,
    Credit,
    End,
    Failure,
    Groups,
    Hello,
    Item,
    Message,
    PackedFrame,
    Ping,
    Pong,
    Regroup,
    Rename,
    Reply,
    Request,
    Roster,
    Welcome,
)

from .talk import (
    HI,
    START,
    WELCOME,
    WOKEN,
    Talk,
    fed,
    flat,
    frame,
    goodbye,
    ids_of,
    in_stage,
    packed,
    requests_of,
    said,
    split,
)


@pytest.mark.parametrize("by_client", [True, False])
def test_a_ping_gets_its_pong(by_client: bool) -> None:
    """Each ping is answered with its number, at once, and nobody is told."""
    side = in_stage("compact client" if by_client else "compact server")
    for number in (0, -1, 127, 2**63 - 1):
        side.needs_attention = False
        assert fed(side, [compact.encode(Ping(number))]) == []
        assert side.needs_attention
        assert side.take_bytes() == compact.encode(Pong(number))


def test_pings_that_come_together_have_one_pong() -> None:
    """A flood of them is counted, and cannot be made one of answers (T20, T27)."""
    side = in_stage("compact server")
    ping = compact.encode(Ping(1))
    count = 1024 * 1024 // len(ping)
    began = time.perf_counter()

    side.feed(ping * count + compact.encode(Ping(2)), START)

    assert time.perf_counter() - began < 3
    assert side.take_bytes() == compact.encode(Pong(2))
    assert side.idle_talk == count + 1


@pytest.mark.parametrize("quiet", [Pong(1), Ack(5)])
def test_pongs_and_acks_say_nothing(quiet: Pong | Ack) -> None:
    """They are taken note of, and nobody is told."""
    side = in_stage("compact client")
    side.needs_attention = False

    assert fed(side, [compact.encode(quiet)]) == []
    assert (side.take_bytes(), side.needs_attention) == (b"", False)


def test_an_answer_does_not_wait_for_messages() -> None:
    """Replies, credit and cancellations act while they are read."""
    client = in_stage("compact client")
    requests = client.requests
    assert requests is not None
    call, stream = requests.ask("sum"), requests.ask("tail", is_stream=True)
    requests.announce(Request(2, "x", HI, 1))
    theirs = requests.begin(2)
    assert theirs is not None
    answers: list[PackedFrame] = [
        Reply(call.id, HI),
        Item(stream.id, HI),
        End(stream.id),
        Credit(2, 5),
        Cancel(2),
        Failure(99, "late", ""),
    ]
    data = packed("a", b"1") + b"".join(map(compact.encode, answers))

    assert fed(client, [data]) == [(True, packed("a", b"1")[4:])]
    assert ([*call.answers], [*stream.answers]) == ([bytes(HI)], [bytes(HI)])
    assert (theirs.credit, theirs.is_over, requests.late) == (6, True, 1)


@pytest.mark.parametrize("by_client", [True, False])
def test_a_request_is_known_when_it_is_read(by_client: bool) -> None:
    """It waits behind the messages before it, but is open from here on."""
    stage, first = ids_of(by_client)
    side = in_stage(stage)
    said: list[PackedFrame] = [
        Message("a", HI),
        Request(first, "b", HI),
        Message("c", HI),
        Request(first + 2, "d", HI, 64),
    ]

    told = fed(side, [b"".join(map(compact.encode, said))])

    assert told == [(True, compact.encode(frame)[4:]) for frame in said]
    known = requests_of(side).answering
    assert [*known] == [first, first + 2]
    call, stream = known.values()
    assert (call.command, call.is_stream, call.credit) == ("b", False, 0)
    assert (stream.command, stream.is_stream, stream.credit) == ("d", True, 64)
    assert requests_of(side).begin(first + 2) is stream  # in any order
    assert requests_of(side).begin(first) is call


@pytest.mark.parametrize("in_one_read", [True, False])
@pytest.mark.parametrize("by_client", [True, False])
def test_what_steers_a_request_overtakes_its_turn(
    by_client: bool, in_one_read: bool
) -> None:
    """A cancellation or credit acts while the request itself still waits."""
    stage, first = ids_of(by_client)
    side = in_stage(stage)
    said: list[PackedFrame] = [
        Message("a", HI),
        Request(first, "b", HI),
        Request(first + 2, "c", HI, 2),
        Request(first + 4, "d", HI),
        Cancel(first),
        Credit(first + 2, 5),
    ]
    pieces = [*map(compact.encode, said)]

    told = fed(side, [b"".join(pieces)] if in_one_read else pieces)

    assert told == [(True, compact.encode(frame)[4:]) for frame in said[:4]]
    call, stream, other = (
        requests_of(side).begin(first + number) for number in (0, 2, 4)
    )
    assert call is not None
    assert stream is not None
    assert other is not None
    assert (call.is_over, stream.is_over, other.is_over) == (True, False, False)
    assert stream.credit == 7
    assert side.is_open


@pytest.mark.parametrize("by_client", [True, False])
def test_too_many_requests_are_refused_at_their_turn(by_client: bool) -> None:
    """They are told in order like the others, and cost the peer nothing else."""
    stage, first = ids_of(by_client)
    side = in_stage(stage, Limits(requests=1))
    said: list[PackedFrame] = [
        Request(first, "a", HI),
        Request(first + 2, "b", HI),
        Message("c", HI),
        Cancel(first + 2),
    ]

    told = fed(side, [b"".join(map(compact.encode, said))])

    assert told == [(True, compact.encode(frame)[4:]) for frame in said[:3]]
    assert requests_of(side).begin(first) is not None
    assert requests_of(side).begin(first + 2) is None
    assert side.is_open


@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize("wrong", ["again", "smaller", "of the other side", "refused"])
def test_an_id_that_is_not_new_is_a_violation(by_client: bool, wrong: str) -> None:
    """Told while it is read, with the reason; what came before it counts."""
    stage, first = ids_of(by_client)
    side = in_stage(stage, Limits(requests=1))
    said: list[PackedFrame] = [
        Message("a", HI),
        Request(first + 2, "b", HI),
        Request(first + 4, "c", HI),
    ]
    number = {
        "again": first + 2,
        "smaller": first,
        "of the other side": first + 5,
        "refused": first + 4,
    }[wrong]
    before = fed(side, [b"".join(map(compact.encode, said))])
    theirs = requests_of(side).answering[first + 2]

    *_, closed = fed(side, [compact.encode(Request(number, "d", HI))])

    assert before == [(True, compact.encode(frame)[4:]) for frame in said]
    told = f"the id {number} of a request is not new, or not the sender's"
    assert isinstance(closed, Closed)
    assert closed.reason == told
    assert isinstance(closed.error, RemoteProtocolError)
    assert goodbye(side) == Bye(5, told)
    assert theirs.is_over
    assert requests_of(side).begin(number) is None  # so nothing of it runs


def test_a_broken_request_is_a_violation() -> None:
    """Its id is needed at once, so what is wrong with it is told at once."""
    server = in_stage("compact server")
    body = b"\x94\x02\x00\xa1c\xc0"

    before, *_, closed = fed(
        server, [packed("a", b"1") + compact.header(len(body)) + body]
    )

    assert before == (True, packed("a", b"1")[4:])
    assert isinstance(closed, Closed)
    assert closed.reason.startswith("a frame is broken: ")
    assert requests_of(server).answering == {}


def test_what_waits_for_its_turn() -> None:
    """All else is told in order, packed, and the connection does not look into it."""
    server = in_stage("compact server")
    frames: list[PackedFrame] = [
        Message("a", HI),
        Request(1, "b", HI),
        Rename("x"),
        Regroup(None),
        Roster(True),
        Groups(["a"], []),
        Bye(),
    ]
    data = b"".join(map(compact.encode, frames)) + compact.header(2) + b"\x91\x7f"

    told = fed(server, [data])

    assert told == [
        *((True, compact.encode(frame)[4:]) for frame in frames),
        (True, b"\x91\x7f"),
    ]
    assert server.is_open


LARGE: Final = packed("large", bytes(range(256)) * 2048)


def fed_in_place(side: Connection, stream: bytes) -> list[object]:
    """What a stream tells, every byte through ``room`` that has one."""
    events: list[Event] = []
    at = 0
    while at < len(stream):
        room = side.room
        if room is None:
            piece = stream[at : at + 65_536]
            events += side.feed(piece, START)
            at += len(piece)
        else:
            count = min(len(room), 50_000, len(stream) - at)
            room[:count] = stream[at : at + count]
            events += side.feed(count, START)
            at += count
    return flat(events)


@pytest.mark.parametrize("by_client", [True, False])
def test_a_large_message_is_received_in_place(by_client: bool) -> None:
    """What comes through ``room`` is told as if it had been fed; so is all around."""
    stage, number = ids_of(by_client)
    small: list[PackedFrame] = [Ping(1), Request(number, "b", HI), Cancel(number)]
    stream = b"".join([packed("a", b"1"), LARGE, *map(compact.encode, small), LARGE])
    in_place, by_feeding = in_stage(stage), in_stage(stage)

    told = fed_in_place(in_place, stream)

    assert told == fed(by_feeding, split(stream, range(0, len(stream), 65_536)))
    assert told == [
        (True, packed("a", b"1")[4:]),
        (True, LARGE[4:]),
        (True, compact.encode(Request(number, "b", HI))[4:]),
        (True, LARGE[4:]),
    ]
    for side in (in_place, by_feeding):
        assert side.room is None
        assert side.take_bytes() == compact.encode(Pong(1))
        assert requests_of(side).answering[number].is_over


@pytest.mark.parametrize("end", ["eof", "lost", "close"])
def test_an_end_takes_the_room_away(end: str) -> None:
    """Inside a large message too; what still comes of it is thrown away."""
    server = in_stage("compact server")
    server.feed(LARGE[:65_536], START)
    room = server.room
    assert room is not None

    (closed,) = ENDS[end](server)

    assert isinstance(closed, Closed)
    assert server.room is None
    assert server.feed(1000, START) == []
    assert server.feed(LARGE[65_536:], START) == []


def test_a_large_frame_that_is_none_is_a_violation() -> None:
    """It is refused when it is whole, in place or not; what came before it counts."""
    broken = compact.header(300_000) + b"\x91\xc0".ljust(300_000, b"\x01")
    stream = packed("a", b"1") + broken
    for feed in (fed_in_place, lambda side, data: fed(side, split(data, [65_536]))):
        server = in_stage("compact server")
        before, closed = feed(server, stream)
        assert before == (True, packed("a", b"1")[4:])
        assert isinstance(closed, Closed)
        assert isinstance(closed.error, RemoteProtocolError)
        assert goodbye(server) == Bye(5, closed.reason)
        assert server.room is None


@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [
        *(compact.header(0), compact.header(2) + b"\xc0\xc0"),
        *(compact.header(2) + b"\x91\x06", compact.header(3) + b"\x92\x21\xc0"),
        compact.header(3) + b"\x92\x20\xff",
    ],
    ids=spelled,
)
def test_a_violation_on_the_compact_wire(by_client: bool, wrong: bytes) -> None:
    """What was right before it counts; the goodbye has code 5 and says why."""
    side = in_stage(
        "compact client" if by_client else "compact server", Limits(message=100)
    )
    before, closed = fed(side, [packed("a", b"1") + wrong])

    assert before == (True, packed("a", b"1")[4:])
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, RemoteProtocolError)
    assert Bye(5, closed.reason) == goodbye(side)
    assert (side.state, side.deadline) == (State.CLOSING, START + LINGER)
    assert fed(side, [compact.encode(Ping(1))]) == []
    assert side.take_bytes() == b""


@pytest.mark.parametrize("by_client", [True, False])
def test_a_frame_over_the_limit(by_client: bool) -> None:
    """It is a violation with a code of its own, told at the header."""
    side = in_stage(
        "compact client" if by_client else "compact server", Limits(message=100)
    )
    before, closed = fed(side, [packed("a", b"1") + compact.header(101)])

    assert before == (True, packed("a", b"1")[4:])
    assert isinstance(closed, Closed)
    assert closed.reason == "a frame of 101 bytes was announced, the limit is 100"
    assert isinstance(closed.error, RemoteProtocolError)
    assert Bye(6, closed.reason) == goodbye(side)


def test_an_answer_of_the_wrong_kind_is_a_violation() -> None:
    """A stream's item for a call ends the connection; the caller hears of it."""
    client = in_stage("compact client")
    assert client.requests is not None
    call = client.requests.ask("sum")

    (closed,) = fed(client, [compact.encode(Item(call.id, HI))])

    assert isinstance(closed, Closed)
    assert closed.reason == "Item is no answer to 'sum'"
    assert isinstance(call.failure, SessionLost)
    assert goodbye(client) == Bye(5, "Item is no answer to 'sum'")


@pytest.mark.parametrize("by_client", [True, False])
def test_a_goodbye_on_the_compact_wire(by_client: bool) -> None:
    """It has a code and the reason, or is the one that was given; once."""
    stage = "compact client" if by_client else "compact server"
    plain_end, own = in_stage(stage), in_stage(stage)

    assert plain_end.close("done", START) == [Closed("done")]
    assert own.close("done", START, Bye(17, "later", 500)) == [Closed("done")]
    assert (goodbye(plain_end), goodbye(own)) == (Bye(0, "done"), Bye(17, "later", 500))
    assert (plain_end.take_bytes(), own.take_bytes()) == (b"", b"")


def test_a_goodbye_between_welcome_and_confirmation() -> None:
    """What a server writes after its welcome is compact, the goodbye too."""
    server = in_stage("welcoming")
    server.close("done", START)

    (closing,) = fed(
        Talk().client, [said(WELCOME, by_client=False) + server.take_bytes()]
    )

    assert closing == (True, compact.encode(Bye(0, "done"))[4:])


def test_a_goodbye_that_was_given_on_the_classic_wire() -> None:
    """The classic wire has room for the word alone."""
    for stage, word in (("asking", b"$USRCLOSE$"), ("classic server", b"$DISCONN$")):
        side = in_stage(stage)
        side.close("done", START, Bye(17, "later", 500))
        assert side.take_bytes() == frame(word)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("x" * 5000, "x" * 1024),
        ("no file \udcff", "no file ?"),
        ("gr\u00fcn", "gr\u00fcn"),
    ],
    ids=range(3),
)
def test_no_reason_is_too_much_for_a_goodbye(reason: str, text: str) -> None:
    """A long reason is cut; what is not Unicode in it is replaced; it always leaves."""
    server = in_stage("compact server")

    assert server.close(reason, START) == [Closed(reason)]
    assert goodbye(server) == Bye(0, text)


@pytest.mark.parametrize("end", ["eof", "lost"])
@pytest.mark.parametrize("bye", [Bye(2, "taken"), Bye(16, "soon", 500), Bye(1, "out")])
def test_an_end_right_behind_a_goodbye_has_its_reason(end: str, bye: Bye) -> None:
    """A client is told why, though the goodbye itself still waits for its turn."""
    client, server = in_stage("compact client"), in_stage("compact server")
    for side in (client, server):
        side.feed(compact.encode(bye), START)
    (told,) = ENDS[end](client)
    assert isinstance(told, Closed)
    assert told.reason == bye.text
    assert told.is_cut == (bye.retry_ms is not None)
    code = None if told.error is None else told.error.code
    assert code == {1: None, 2: "replaced", 16: "going_away"}[bye.code]

    (told,) = ENDS[end](server)  # what a stranger says is not repeated
    assert isinstance(told, Closed)
    assert bye.text not in told.reason
    assert told.error is None


ENDS: dict[str, Callable[[Connection], list[Event]]] = {
    "eof": lambda side: side.feed_eof(START),
    "lost": lambda side: side.lost("reset", START),
    "close": lambda side: side.close("done", START),
    "violation": lambda side: side.feed(b"\x00" * 4, START),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("by_client", [True, False])
def test_an_end_fails_what_is_open(by_client: bool, end: str) -> None:
    """Whoever waits for an answer is woken, and hears that the session is lost."""
    side = in_stage("compact client" if by_client else "compact server")
    requests = requests_of(side)
    call, stream = requests.ask("sum"), requests.ask("tail", is_stream=True)
    number = 2 if by_client else 1
    requests.announce(Request(number, "x", HI))
    theirs = requests.begin(number)
    assert theirs is not None
    woken: list[str] = []

    def wake() -> None:
        woken.append(WOKEN)

    call.wake = stream.wake = theirs.wake = wake
    (closed,) = ENDS[end](side)

    assert isinstance(closed, Closed)
    for asked in (call, stream):
        assert isinstance(asked.failure, SessionLost)
        assert str(asked.failure) == f"no answer came: {closed.reason}"
        assert asked.is_done
    assert theirs.is_over
    assert woken == [WOKEN] * 3
    ENDS["lost"](side)
    assert woken == [WOKEN] * 3


@pytest.mark.parametrize("by_client", [True, False])
def test_the_limit_of_open_requests(by_client: bool) -> None:
    """Limits.requests holds on both sides, each with its own ids."""
    side = in_stage(
        "compact client" if by_client else "compact server", Limits(requests=1)
    )
    requests = requests_of(side)
    mine, theirs = (1, 2) if by_client else (2, 1)

    assert requests.ask("a").id == mine
    with pytest.raises(Overloaded):
        requests.ask("b")
    for number in (theirs, theirs + 2):
        requests.announce(Request(number, "a", HI))
    assert requests.begin(theirs) is not None
    assert requests.begin(theirs + 2) is None


# --- the peer's clock ------------------------------------------------------------


@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize("their_now", [0, 5_000, 100_000, 10**9])
def test_a_deadline_of_the_peers_clock(by_client: bool, their_now: int) -> None:
    """Whatever the peer's clock shows, a deadline on it is over a moment after it."""
    talk = Talk()
    if by_client:
        side = talk.client
        fed(side, [said(Welcome(PROTO, now=their_now), by_client=False)])
    else:
        side = talk.server
        fed(side, [said(Hello(None, None, PROTO, their_now), by_client=True)])
    ttl = their_now + 250  # a quarter of a second, which a float holds exactly
    steps = [START, START + 0.25, START + 0.251, START + 0.2525, START + 10]

    assert [side.is_expired(ttl, now) for now in steps] == [
        *(False, False, False),
        *(True, True),
    ]
    assert not side.is_expired(None, START + 10**6)


def test_without_a_clock_nothing_expires() -> None:
    """A peer that has not told its time cannot set a deadline either."""
    for stage in ("hello", "asking", "classic client", "classic server"):
        assert not in_stage(stage).is_expired(0, START + 10**6)


@given(st.floats(0, 10**6), st.integers(0, 2**52), st.integers(0, 10**6))
def test_a_life_time_is_never_cut_short(now: float, their_now: int, life: int) -> None:
    """Rounding of clocks never makes a deadline come too early."""
    side = Talk().server
    side.feed(said(Hello(None, None, PROTO, their_now), by_client=True), now)

    assert not side.is_expired(their_now + life, now + life / 1000)
    assert side.is_expired(their_now + life, now + life / 1000 + 0.003)


@pytest.mark.parametrize("readings", [(5_000, 4_000), (4_000, 5_000), (5_000, 5_000)])
def test_the_smaller_offset_holds(readings: tuple[int, int]) -> None:
    """Of two readings of the peer's clock the one that came faster is believed."""
    side = Talk().server
    for their_now in readings:
        side._learn_clock(their_now, START)
    latest = max(readings)

    assert not side.is_expired(latest, START)
    assert side.is_expired(latest - 250, START)


def test_milliseconds_are_whole() -> None:
    """The wire writes a point in time as whole milliseconds."""
    assert [milliseconds(now) for now in (0.0, 0.0015, 100.25)] == [0, 1, 100_250]
