"""Bytes that arrive in pieces."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from hisock.wire.buffer import Filling, PieceBuffer


def test_nothing_held_costs_nothing() -> None:
    """What comes while nothing is held is given back as it is, without a copy."""
    data = b"whole"

    assert PieceBuffer().join(data) is data


def test_a_piece_is_held_until_the_rest_is_there() -> None:
    """The beginning waits; what completes it comes out joined, once."""
    buffer = PieceBuffer()
    buffer.keep(b"ab", 3)

    assert buffer.join(b"c") is None
    assert buffer.join(b"d") is None
    assert len(buffer) == 4
    assert buffer.join(b"ef") == b"abcdef"
    assert len(buffer) == 0
    assert buffer.join(b"next") == b"next"


def test_a_join_in_one_piece() -> None:
    """A rest that comes at once is joined at once."""
    buffer = PieceBuffer()
    buffer.keep(b"ab", 2)

    assert buffer.join(b"cd") == b"abcd"


@given(st.lists(st.binary(min_size=1), min_size=1), st.integers(1, 64))
def test_no_byte_is_lost_or_doubled(pieces: list[bytes], missing: int) -> None:
    """Whatever the pieces are: what comes out is what came in, in order."""
    buffer = PieceBuffer()
    buffer.keep(b"begin", missing)
    out = b""
    for piece in pieces:
        whole = buffer.join(piece)
        if whole is not None:
            out += whole
            assert not len(buffer)

    held = buffer.join(b"x" * missing) if len(buffer) else b"x" * missing
    assert held is not None
    assert b"begin" + b"".join(pieces) + b"x" * missing == out + held


def test_a_claimed_length_allocates_nothing() -> None:
    """Memory follows the bytes that came, never the length that was claimed."""
    buffer = PieceBuffer()
    tracemalloc.start()
    try:
        buffer.keep(b"begin", 2**40)
        for _ in range(1000):
            buffer.join(b"x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(buffer) == 1005
    assert peak < 64 * 1024


@given(
    st.integers(2, 5000),
    st.lists(st.integers(1, 900), max_size=40),
    st.booleans(),
)
def test_a_long_message_is_received_in_place(
    length: int, counts: list[int], by_feeding: bool
) -> None:
    """Through ``room`` or not: what comes out is whole, and the rest is given back."""
    message = bytes(number % 251 for number in range(length))
    filling = Filling(length, message[:1])
    came, whole, rest = 1, None, b""
    for wanted in (*counts, length):
        while whole is None and wanted:
            count = min(wanted, length - came, len(filling.room))
            part = message[came : came + count]
            came += count
            wanted -= count
            if by_feeding:
                whole, rest = filling.feed(part + b"next" * (came == length))
            else:
                filling.room[:count] = part
                whole = filling.filled(count)

    assert whole == message
    assert type(whole) is bytes
    assert rest == (b"next" if by_feeding else b"")


def test_room_is_a_multiple_of_what_came() -> None:
    """A length of a terabyte claims no more than what it sent four times over."""
    filling = Filling(2**40, b"x" * 1000)

    assert len(filling.room) == 3000
    assert filling.filled(3000) is None
    assert len(filling.room) == 12_000
