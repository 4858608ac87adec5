"""Bytes that arrive in pieces."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from hisock.wire.buffer import PieceBuffer


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
