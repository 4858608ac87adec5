"""Many frames of one length in a row: cut as every other stream."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hisock.errors import RemoteProtocolError
from hisock.wire.compact import Decoder, header

#: Begins of frames that are all alike but for one byte, and another kind.
BEGINS = [b"\x93\x01", b"\x94\x01", b"\x93\x09", b"\x93\x01\xa1a", b"\x92\x06"]


def stream_of(bodies: Iterable[bytes]) -> bytes:
    """Bodies behind their lengths."""
    return b"".join(header(len(body)) + body for body in bodies)


def cut_one_by_one(bodies: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
    """What a decoder makes of bodies that come each on its own."""
    decoder = Decoder(0)
    frames: list[bytes] = []
    at_once: list[bytes] = []
    for body in bodies:
        decoder.feed(header(len(body)) + body, frames, at_once)
    return frames, at_once


def cut(pieces: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
    """What a decoder makes of pieces of a stream."""
    decoder = Decoder(0)
    frames: list[bytes] = []
    at_once: list[bytes] = []
    for piece in pieces:
        decoder.feed(piece, frames, at_once)
    return frames, at_once


def bodies_of(runs: list[tuple[bytes, int, int]]) -> list[bytes]:
    """Runs of frames, no two with the same content: its begin, a length, how many."""
    number = itertools.count()
    return [
        begin + bytes([next(number) % 251]) * length
        for begin, length, count in runs
        for _ in range(count)
    ]


runs_of_frames = st.lists(
    st.tuples(
        st.sampled_from(BEGINS),
        st.integers(1, 4) | st.sampled_from([255, 256, 257]),
        st.integers(1, 12) | st.sampled_from([36, 37, 38, 69, 70, 101, 150]),
    ),
    max_size=6,
)


@given(runs_of_frames, st.data())
def test_runs_are_cut_like_single_frames(
    runs: list[tuple[bytes, int, int]], data: st.DataObject
) -> None:
    """However many of one length follow each other, and wherever a read ends: the
    frames are those that were sent, in order."""
    bodies = bodies_of(runs)
    stream = stream_of(bodies)
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=3)))
    ends = [0, *places, len(stream)]

    whole = cut(stream[a:b] for a, b in itertools.pairwise(ends) if a < b)

    assert whole == cut_one_by_one(bodies)


#: What may differ in the beginning of a frame of 47 bytes: each byte of its length, how
#: its array is written, its kind.
ODD = [
    b"\x93\x01".ljust(2**24 + 47, b"\0"),
    b"\x93\x01".ljust(2**16 + 47, b"\0"),
    b"\x93\x01".ljust(2**8 + 47, b"\0"),
    b"\x93\x01".ljust(46, b"\0"),
    b"\x94\x01".ljust(47, b"\0"),
    b"\x93\x06".ljust(47, b"\0"),
]


@pytest.mark.parametrize("odd", [3, 6, 20, 36, 37, 68, 69, 80])
@pytest.mark.parametrize("body", ODD, ids=lambda body: f"{body[:4].hex()}, {len(body)}")
def test_one_that_begins_otherwise(odd: int, body: bytes) -> None:
    """One frame among many is found, whatever is different about it, and so is what
    comes behind it."""
    usual = b"\x93\x01\xa4move".ljust(47, b"\0")
    stream = stream_of([*[usual] * odd, body, *[usual] * (119 - odd)])

    frames, at_once = cut([stream])

    expected, acting = [usual] * 119, []
    if body[1] == 6:
        acting = [body]
    else:
        expected.insert(odd, body)
    assert (frames == expected, at_once == acting) == (True, True)  # not the bytes


def test_one_that_is_written_otherwise() -> None:
    """One frame among many may begin with a long array, whose kind comes later; what
    came before it has been cut."""
    usual = b"\x93\x01\xa4move".ljust(47, b"\0")
    stream = stream_of([*[usual] * 15, b"\xdc\x01\x00".ljust(47, b"\0"), *[usual] * 40])
    frames: list[bytes] = []

    with pytest.raises(RemoteProtocolError, match="a frame is broken"):
        Decoder(0).feed(stream, frames, [])

    assert frames == [usual] * 15


def test_a_run_that_is_over_the_limit() -> None:
    """A length that another decoder knows is refused here, and what came before it
    has been cut."""
    small, large = (b"\x93\x01\xa1a".ljust(size, b"\0") for size in (50, 60))
    cut([stream_of([large] * 100)])
    frames: list[bytes] = []

    with pytest.raises(RemoteProtocolError, match="the limit is 59"):
        Decoder(59).feed(stream_of([small] * 100 + [large] * 100), frames, [])

    assert frames == [small] * 100


def test_lengths_cost_no_memory() -> None:
    """Runs of thousands of different lengths leave little behind."""
    decoder = Decoder(0)
    tracemalloc.start()
    try:
        for length in range(4, 2_000):
            stream = stream_of([b"\x93\x01".ljust(length, b"\0")] * 40)
            decoder.feed(stream, [], [])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 1024 * 1024
