"""What waits to be written to one peer, and when that peer is too slow."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hisock.hub.outbox import HARD_FACTOR, STALL, Outbox

START = 100.0


def filled(bound: int, *frames: bytes | memoryview) -> Outbox:
    """An outbox with frames in it."""
    outbox = Outbox(bound)
    for frame in frames:
        outbox.append(frame)
    return outbox


def test_frames_go_out_in_order() -> None:
    """Small frames are joined for one write, and leave as they came."""
    outbox = filled(0, b"one", b"two", memoryview(b"three"))

    assert outbox.head() == b"onetwothree"
    outbox.advance(4, START)
    assert bytes(outbox.head()) == b"wothree"
    outbox.append(b"four")
    assert bytes(outbox.head()) == b"wothreefour"
    outbox.advance(11, START)
    assert outbox.size == 0


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


def test_joining_ends_when_it_is_worth_no_more() -> None:
    """Thousands of small frames are not all joined for a write that takes a few."""
    outbox = filled(0, *[b"x" * 1024] * 1000)

    assert len(outbox.head()) == 256 * 1024
    assert outbox.size == 1000 * 1024


@given(
    st.lists(
        st.one_of(st.binary(min_size=1, max_size=300 * 1024), st.integers(0, 400_000)),
        max_size=30,
    )
)
def test_no_byte_is_lost_or_doubled(steps: list[bytes | int]) -> None:
    """Whatever is appended and taken in whatever sizes: out comes what went in."""
    outbox = Outbox(0)
    sent = bytearray()
    written = bytearray()
    for step in steps:
        if isinstance(step, bytes):
            outbox.append(step)
            sent += step
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


def test_an_empty_outbox_has_no_head() -> None:
    """Asking an empty outbox for bytes is a mistake of ours."""
    with pytest.raises(AssertionError, match="an empty outbox has no head"):
        Outbox(0).head()


def test_what_is_forgotten_is_gone() -> None:
    """``clear`` leaves nothing: no bytes, no deadline."""
    outbox = filled(10, b"x" * 20)
    outbox.check(START)
    outbox.clear()

    assert (outbox.size, outbox.deadline, outbox.is_full) == (0, None, False)
    assert outbox.check(START + STALL) is None


def test_an_idle_outbox_costs_little() -> None:
    """A connection that sends nothing keeps no queue."""
    assert sys.getsizeof(Outbox(0)) < 100
    assert not hasattr(Outbox(0), "__dict__")


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
