"""What waits to be written to one peer, and when that peer is too slow."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from itertools import count
from types import NoneType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.test_blocking import interrupt_at

from hisock.hub.loose import Loose
from hisock.hub.outbox import HARD_FACTOR, STALL, Outbox, Plain, Waiting
from hisock.session.resume import Block, Replay, numbered
from hisock.wire import compact
from hisock.wire.frames import Ack, Pong

START = 100.0


def filled(bound: int, *frames: Waiting) -> Outbox:
    """An outbox with frames in it."""
    outbox = Outbox(bound)
    for frame in frames:
        outbox.append(frame)
    return outbox


def kept(*frames: Waiting, bound: int = 0) -> tuple[Outbox, Replay]:
    """The same of a peer with a session, and what it has not acknowledged."""
    outbox = filled(bound, *frames)
    outbox.replay = Replay()
    return outbox, outbox.replay


def message(content: object) -> bytes:
    """A small message as it is on the wire."""
    frame = compact.Writer(0).message("a", content)
    assert isinstance(frame, bytes)
    return frame


def write(outbox: Outbox, most: int = sys.maxsize) -> bytes:
    """Write up to so many bytes; what was written."""
    written = b""
    while outbox.size and most > 0:
        part = bytes(outbox.head())[:most]
        outbox.advance(len(part), START)
        written += part
        most -= len(part)
    return written


def test_frames_go_out_in_order() -> None:
    """Small frames are joined for one write, and leave as they came."""
    outbox = filled(0, b"one", Block(2, b"two"), b"three")

    assert outbox.head() == b"onetwothree"
    outbox.advance(4, START)
    assert bytes(outbox.head()) == b"wothree"
    outbox.append(b"four")
    assert bytes(outbox.head()) == b"wothree"  # which was begun
    outbox.advance(7, START)
    assert outbox.head() == b"four"
    outbox.advance(4, START)
    assert outbox.size == 0


def test_what_has_no_number_is_written_alone() -> None:
    """Acknowledgements and marks keep their place, and are joined with no frame."""
    outbox = filled(0, b"one", b"two", Plain(b"ack"), b"three", b"four", Plain(b"bye"))
    heads = []
    while outbox.size:
        heads.append(outbox.head())
        outbox.advance(len(heads[-1]), START)

    assert heads == [b"onetwo", b"ack", b"threefour", b"bye"]


def test_a_single_frame_is_not_copied() -> None:
    """One frame alone is written from where it stands."""
    frame = b"x" * 100
    outbox = filled(0, frame)

    assert frame is outbox.head()


def test_a_large_frame_is_not_joined() -> None:
    """What is large enough for a write of its own is not copied together."""
    large = b"x" * 256 * 1024
    outbox = filled(0, large, b"small")

    assert large is outbox.head()
    outbox.advance(len(large), START)
    assert outbox.head() == b"small"


def test_a_large_frame_in_parts_is_written_part_by_part() -> None:
    """No part is copied, and nothing is written in between."""
    parts = (b"head", b"x" * 300 * 1024, b"end")
    outbox = filled(0, b"before", parts, b"after")
    outbox.put_first(b"pong")
    heads = []
    while outbox.size:
        heads.append(outbox.head())
        outbox.advance(len(heads[-1]), START)

    assert heads == [b"pong", b"before", *parts, b"after"]
    assert heads[3] is parts[1]


def test_joining_ends_when_it_is_worth_no_more() -> None:
    """Thousands of small frames are not all joined for a write that takes a few."""
    outbox = filled(0, *[b"x" * 1024] * 1000)

    assert len(outbox.head()) == 256 * 1024
    assert outbox.size == 1000 * 1024


some_bytes = st.binary(min_size=1, max_size=300 * 1024)


@given(
    st.lists(
        st.one_of(
            some_bytes,
            st.tuples(some_bytes, some_bytes),
            st.builds(Block, st.just(3), some_bytes),
            st.integers(0, 400_000),
        ),
        max_size=30,
    )
)
def test_no_byte_is_lost_or_doubled(
    steps: list[bytes | tuple[bytes, ...] | Block | int],
) -> None:
    """Whatever is appended and taken in whatever sizes: out comes what went in."""
    outbox = Outbox(0)
    sent = bytearray()
    written = bytearray()
    for step in steps:
        if not isinstance(step, int):
            outbox.append(step)
            sent += b"".join(step) if isinstance(step, tuple) else data_of(step)
        elif outbox.size:
            part = bytes(outbox.head())[:step]
            written += part
            outbox.advance(len(part), START)
        assert len(sent) - len(written) == outbox.size
    while outbox.size:
        head = bytes(outbox.head())
        written += head
        outbox.advance(len(head), START)

    assert sent == written


def data_of(waiting: bytes | Block) -> bytes:
    """The bytes of it."""
    return waiting.data if isinstance(waiting, Block) else waiting


def test_an_empty_outbox_has_no_head() -> None:
    """And a size that an interrupt left behind is counted anew."""
    outbox = Outbox(0)
    outbox.size = 5

    assert outbox.head() == b""
    assert outbox.size == 0


def test_what_is_forgotten_is_gone() -> None:
    """``clear`` leaves nothing: no bytes, no deadline."""
    outbox = filled(10, b"x" * 20)
    outbox.check(START)
    outbox.clear()

    assert (outbox.size, outbox.deadline, outbox.is_full) == (0, None, False)
    assert outbox.check(START + STALL) is None


def test_an_idle_outbox_costs_little() -> None:
    """A connection that sends nothing keeps no queue."""
    outbox = Outbox(0)

    assert sys.getsizeof(outbox) < 128
    assert not hasattr(outbox, "__dict__")
    assert {type(held) for held in gc.get_referents(outbox)} <= {type, int, NoneType}


@pytest.mark.parametrize(
    ("bound", "size", "full"),
    [(0, 10**6, False), (10, 0, False), (10, 9, False), (10, 10, True), (10, 11, True)],
)
def test_the_bound(bound: int, size: int, full: bool) -> None:
    """At the bound it is full; 0 is no bound."""
    outbox = filled(bound, b"x" * size) if size else Outbox(bound)

    assert full is outbox.is_full


def test_without_a_bound_nobody_is_slow() -> None:
    """0 switches the check off."""
    outbox = filled(0, b"x" * 10**6)

    assert outbox.check(START) is None
    assert outbox.check(START + 10**6) is None
    assert outbox.deadline is None


def test_below_the_bound_nobody_is_slow() -> None:
    """A peer that has less than the bound waiting may take its time."""
    outbox = filled(10, b"x" * 9)

    assert outbox.check(START) is None
    assert outbox.check(START + 10**6) is None


def test_a_peer_that_takes_nothing_is_slow_after_a_while() -> None:
    """10 s over the bound without a byte taken end it, and the text says so."""
    outbox = filled(10, b"x" * 10)

    assert outbox.check(START) is None
    assert outbox.deadline == START + STALL
    assert outbox.check(START + 9.999) is None
    assert outbox.check(START + 10) == "slow consumer: it took nothing for 10 s"


def test_a_peer_that_takes_a_byte_gets_more_time() -> None:
    """The 10 s count from the last byte that was taken."""
    outbox = filled(10, b"x" * 30)
    outbox.check(START)
    outbox.head()
    outbox.advance(1, START + 9)

    assert outbox.deadline == START + 9 + STALL
    assert outbox.check(START + 18.9) is None
    assert outbox.check(START + 19) is not None


def test_a_peer_below_the_bound_again_is_fine() -> None:
    """Who comes below the bound has no deadline; the next time counts anew."""
    outbox = filled(10, b"x" * 12)
    outbox.check(START)
    outbox.head()
    outbox.advance(5, START + 9)
    deadlines = [outbox.deadline]

    outbox.append(b"x" * 5)
    assert outbox.check(START + 15) is None
    deadlines.append(outbox.deadline)
    assert deadlines == [None, START + 15 + STALL]

    outbox.clear()
    assert outbox.check(START + 16) is None


def test_many_bounds_end_it_at_once() -> None:
    """Over four bounds of messages nobody waits for 10 s."""
    outbox = filled(10, *[b"x" * 10] * (HARD_FACTOR - 1))
    assert outbox.check(START) is None

    for _ in range(3):
        outbox.append(b"x" * 10)

    assert outbox.check(START) == "slow consumer: 60 bytes were waiting for it"


def test_an_empty_outbox_takes_any_one_message() -> None:
    """One message larger than four bounds is no reason to cut who waits for it."""
    outbox = filled(10, b"x" * 100)

    assert outbox.check(START) is None
    assert outbox.check(START + STALL) is not None


# --- with a session --------------------------------------------------------------


def test_a_frame_has_its_number_when_it_is_begun() -> None:
    """What waits has none yet; what is about to be written is noted for a replay."""
    outbox, replay = kept(message(1), message(2))
    outbox.append(message(3))
    before = (replay.last, [*outbox.waiting()])
    outbox.head()
    outbox.append(message(4))

    assert before == (0, [message(1), message(2), message(3)])
    assert (replay.last, outbox.waiting()) == (3, [message(4)])
    assert [*replay.frames()] == [message(n)[4:] for n in (1, 2, 3)]


def test_each_kind_of_waiting_takes_its_numbers() -> None:
    """A frame takes one, one in parts too, a block as many as it has, bytes none."""
    parts = (message("x" * 60)[:20], message("x" * 60)[20:])
    block = Block(3, message(1) + message(2) + message(3))
    outbox, replay = kept(Plain(compact.encode(Pong(1))))
    numbers = [replay.last]
    for waiting in (message(0), parts, block, Plain(compact.encode(Ack(9)))):
        outbox.append(waiting)
        write(outbox)
        numbers.append(replay.last)

    assert numbers == [0, 1, 2, 5, 5]
    assert [*replay.frames()] == [
        *numbered(message(0)),
        *numbered(parts),
        *numbered(block),
    ]


def test_bytes_alone_are_not_kept() -> None:
    """What has no number is forgotten once it is written."""
    outbox, replay = kept(Plain(compact.encode(Pong(1))), Plain(b"mark"))

    assert write(outbox) == compact.encode(Pong(1)) + b"mark"
    assert (replay.blocks, replay.size, outbox.held) == (None, 0, 0)


def test_what_comes_first_waits_for_what_is_begun() -> None:
    """A pong goes before all that waits, but never into the middle of a frame."""
    outbox, _ = kept(message(1), message(2))
    pong = compact.encode(Pong(1))
    written = write(outbox, 3)
    outbox.append(message(3))
    outbox.put_first(pong)

    assert outbox.size == len(message(1) + message(2)) - 3 + len(pong + message(3))
    written += write(outbox)
    assert written == message(1) + message(2) + pong + message(3)


def test_the_rest_of_a_frame_goes_first() -> None:
    """What is kept of a frame that was begun elsewhere is written before all else."""
    outbox, replay = kept(message(2))
    replay.note(message(1))
    outbox.keep((memoryview(message(1))[3:],))
    outbox.put_first(compact.encode(Pong(1)))

    written = write(outbox)

    assert written == message(1)[3:] + compact.encode(Pong(1)) + message(2)
    assert replay.last == 2


def test_the_bound_counts_what_is_not_acknowledged() -> None:
    """A written frame is held until the peer says that it has it; once, not twice."""
    outbox, replay = kept(message(1), message(2), bound=len(message(1)) * 3)
    size = len(message(1))
    held = [outbox.held]
    write(outbox, size + 1)
    held.append(outbox.held)
    outbox.append(message(3))
    held.append(outbox.held)
    is_full = [outbox.is_full]
    write(outbox)
    held.append(outbox.held)
    replay.acknowledge(3)
    held.append(outbox.held)
    is_full.append(outbox.is_full)

    assert held == [2 * size, 2 * size, 3 * size, 3 * size, 0]
    assert is_full == [True, False]


def test_an_acknowledgement_gives_a_slow_peer_more_time() -> None:
    """The 10 s over the bound count from the last frame that is known to have come."""
    outbox, replay = kept(*[message(n) for n in range(8)], bound=len(message(1)) * 2)
    for _ in range(2):
        write(outbox)
        outbox.append(message(9))
        write(outbox)
    outbox.check(START)
    replay.acknowledge(8)
    replay.note(message(9))

    assert outbox.check(START + 9.9) is None
    assert outbox.check(START + 19.8) is None
    assert outbox.check(START + 19.9) == "slow consumer: it took nothing for 10 s"


def test_many_bounds_of_unacknowledged_messages_end_it() -> None:
    """What is written and not acknowledged counts like what is not written."""
    outbox, _ = kept(bound=len(message(1)))
    for number in range(HARD_FACTOR):
        outbox.append(message(number))
        write(outbox)
    told = [outbox.check(START)]
    outbox.append(message(9))
    told.append(outbox.check(START))

    size = len(message(1)) * (HARD_FACTOR + 1)
    assert told == [None, f"slow consumer: {size} bytes were waiting for it"]


def test_one_message_of_any_size_is_permitted_until_it_is_acknowledged() -> None:
    """A large message alone is no reason to cut its peer, written or not."""
    large = compact.Writer(0).message("a", b"x" * 300_000)
    outbox, _ = kept(large, bound=10)
    told = [outbox.check(START)]
    write(outbox, 100_000)
    told.append(outbox.check(START))
    write(outbox)
    told.append(outbox.check(START))

    assert told == [None, None, None]
    assert outbox.is_full


def test_a_cut_keeps_what_has_no_number() -> None:
    """The rest of what was begun is in the replay; pongs and marks are of no use."""
    outbox, replay = kept(message(1), message(2))
    written = write(outbox, 5)
    outbox.append(Plain(compact.encode(Pong(1))))
    outbox.append(message(3))
    outbox.put_first(b"mark")
    outbox.cut()

    assert written == message(1)[:5]
    assert outbox.waiting() == [message(3)]
    assert (outbox.size, replay.last) == (len(message(3)), 2)
    assert outbox.held == len(message(1) + message(2) + message(3))


def test_a_cut_of_an_idle_outbox() -> None:
    """There is nothing to keep, and no deadline any more."""
    outbox, _ = kept(bound=1)
    outbox.cut()
    assert (outbox.size, outbox.held, outbox.waiting()) == (0, 0, [])

    outbox.append(Plain(b"pong"))
    outbox.check(START)
    outbox.cut()
    assert (outbox.size, outbox.held, outbox.deadline) == (0, 0, None)


def test_a_resume_writes_the_rest_first() -> None:
    """What was not acknowledged goes before what waits, with the same numbers."""
    large = compact.Writer(0).message("a", b"x" * 300_000)
    outbox, replay = kept(message(1), message(2), large)
    write(outbox)
    outbox.cut()
    outbox.append(message(4))
    replay.acknowledge(1)
    outbox.resume(replay.again())
    outbox.put_first(compact.encode(Ack(7)))  # waits for what is begun

    assert outbox.held == outbox.size + len(message(1))  # a block goes as a whole
    again = b"".join([message(2), *large, compact.encode(Ack(7)), message(4)])
    assert write(outbox) == again
    assert replay.last == 4
    replay.acknowledge(4)
    assert outbox.held == 0


def test_a_resume_with_nothing_to_repeat() -> None:
    """What waited during the cut is written as if nothing had been."""
    outbox, replay = kept(message(1))
    outbox.cut()
    outbox.resume(replay.again())

    assert write(outbox) == message(1)
    assert replay.last == 1


def test_a_mark_is_not_repeated() -> None:
    """What changes the wire stands once on each link: no replay has it."""
    outbox, replay = kept()
    outbox.put_first(b"9               $COMPACT$")
    outbox.append(message(1))
    written = write(outbox)
    outbox.cut()
    outbox.resume(replay.again())

    assert written == b"9               $COMPACT$" + message(1)
    assert write(outbox) == message(1)


def test_what_is_forgotten_holds_nothing_of_a_session() -> None:
    """``clear`` empties the outbox; what was noted belongs to the session."""
    outbox, replay = kept(message(1), message(2), bound=1)
    write(outbox, 2)
    outbox.append(message(3))
    outbox.clear()

    assert (outbox.size, outbox.waiting()) == (0, [])
    assert outbox.held == replay.size == len(message(1) + message(2))


waiting = st.one_of(
    st.integers(0, 9).map(message),
    st.integers(0, 9).map(lambda n: (message(n)[:4], message(n)[4:])),
    st.just(Block(2, message(7) + compact.encode(Pong(1)) + message(8))),
    st.integers(0, 9).map(lambda n: Plain(compact.encode(Ack(n)))),
)
steps = st.lists(
    st.tuples(st.just("append"), waiting, st.just(0))
    | st.tuples(
        st.sampled_from(["write", "first", "cut", "acknowledge"]),
        st.just(Plain()),
        st.integers(0, 60),
    ),
    max_size=30,
)


@given(steps)
def test_every_number_is_written_in_order(
    steps: list[tuple[str, Waiting, int]],
) -> None:
    """Whatever is added, written, acknowledged and cut: in the end every numbered frame
    was written whole, in order, and nothing is held."""
    outbox, replay = kept()
    accepted: list[bytes] = []
    arrived: list[bytes] = []
    stream = b""
    for step, added, number in steps:
        match step:
            case "append":
                outbox.append(added)
                if not isinstance(added, Plain | Loose):
                    accepted += numbered(added)
            case "write":
                stream += write(outbox, number)
            case "first":
                outbox.put_first(compact.encode(Pong(number)))
            case "acknowledge":
                got = len(arrived) + len(whole(stream))
                replay.acknowledge(max(replay.acked, got - number))
            case _:
                arrived += whole(stream)
                stream = b""
                outbox.cut()
                replay.acknowledge(len(arrived))
                outbox.resume(replay.again())
        assert min(outbox.size, outbox.held) >= 0
    arrived += whole(stream + write(outbox))

    assert arrived == accepted
    assert replay.last == len(accepted)
    replay.acknowledge(len(accepted))
    assert (outbox.held, outbox.size, replay.blocks) == (0, 0, None)


def whole(stream: bytes) -> list[bytes]:
    """The messages in it that are complete."""
    frames: list[bytes] = []
    compact.Decoder(0).feed(stream, frames, [])
    return frames


@pytest.mark.parametrize("is_cut", [False, True])
def test_f4_ctrl_c_while_frames_get_their_numbers(is_cut: bool) -> None:
    """Wherever it strikes: every frame is written once, in order, and kept once; also
    where the link is cut next, and what was begun is written again."""
    frames = [message(number) for number in range(20)]
    struck = 0
    for place in count():
        outbox, replay = kept()
        for number, frame in enumerate(frames):
            if number % 3:
                outbox.append(frame)
            else:
                slot = number if number % 2 else None
                outbox.add_loose(frame, lambda *_: b"", slot=slot)
        with interrupt_at(place) as reached, suppress(KeyboardInterrupt):
            outbox.head()
        if is_cut:
            outbox.cut()
            outbox.resume(replay.again())
        assert write(outbox) == b"".join(frames), reached
        assert replay.last == len(frames), reached
        again = [part for part in replay.again() if isinstance(part, bytes)]
        assert b"".join(again) == b"".join(frames)
        assert replay.size == sum(map(len, frames)), reached
        if not reached:
            break
        struck += 1
    assert struck > 20


@pytest.mark.parametrize("large", [False, True])
def test_what_is_the_same_for_many_is_joined_once(large: bool) -> None:
    """Several broadcasts to many peers: each gets them with its own numbers, and one
    that has something of its own between them gets that, too."""
    frames = [b"%d" % n * (50_000 if large else 1) for n in range(10, 18)]
    joined: set[tuple[bool, int]] = set()
    for own in (False, False, True, True):
        outbox = Outbox(0)
        outbox.replay = Replay()
        for times in (1, 2):  # what is the same as before counts once more
            for frame in [b"own"] * own + frames:
                outbox.append(frame)
            written = b""
            while head := bytes(outbox.head()):
                written += head
                outbox.advance(len(head), 0.0)
            assert written == own * b"own" + b"".join(frames)
            assert outbox.replay.last == times * (len(frames) + own)
            assert outbox.size == 0
        blocks = list(outbox.replay.blocks or ())
        joined.add((own, id(blocks[0].data if isinstance(blocks[0], Block) else 0)))
    assert large or len(joined) == 2
