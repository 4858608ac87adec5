"""Our own wire: lengths, frames as MessagePack, what is no frame."""

from __future__ import annotations

import contextlib
import enum
import itertools
import math
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, msgpack
from tests.spelled import spelled

from hisock.errors import (
    MessageTooLarge,
    NotSendable,
    RemoteProtocolError,
    ReservedCommand,
)
from hisock.types import ClientInfo
from hisock.wire.compact import (
    ACTS_AT_ONCE,
    DECODE,
    DECODE_FROM_CLIENT,
    HEADER_LEN,
    LARGE,
    LARGEST,
    MALFORMED,
    NONE,
    REQUEST,
    Decoder,
    Encoded,
    Writer,
    decode,
    decode_from_client,
    encode,
    header,
    malformed,
    pack,
    raw,
    raw_or_raise,
)
from hisock.wire.frames import (
    Ack,
    Bye,
    Cancel,
    ClientFrame,
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
    Regroup,
    Rename,
    Reply,
    Request,
    Roster,
)

MIB: Final = 1024 * 1024
KINDS: tuple[Any, ...] = get_args(PackedFrame)
FROM_CLIENT: tuple[Any, ...] = get_args(ClientFrame)
HI: Final = Raw(b"\xa2hi")

#: The table of wire.md, byte by byte: what is said, and how it is written.
GOLDEN: list[tuple[PackedFrame, bytes]] = [
    (Message("chat", HI), b"\x00\x00\x00\x0b\x94\x01\xa4chat\xa2hi\xc0"),
    (Message(None, HI, 5), b"\x00\x00\x00\x07\x94\x01\xc0\xa2hi\x05"),
    (
        Request(1, "sum", Raw(b"\x92\x01\x02"), 0, None, None),
        b"\x00\x00\x00\x0d\x97\x02\x01\xa3sum\x92\x01\x02\x00\xc0\xc0",
    ),
    (
        Request(2, "tail", HI, 64, 1000, 3),
        b"\x00\x00\x00\x10\x97\x02\x02\xa4tail\xa2hi\x40\xcd\x03\xe8\x03",
    ),
    (Reply(1, Raw(b"\x03")), b"\x00\x00\x00\x04\x93\x03\x01\x03"),
    (
        Failure(1, "no", "why", Raw(b"\x80")),
        b"\x00\x00\x00\x0b\x95\x04\x01\xa2no\xa3why\x80",
    ),
    (Failure(1, "no", ""), b"\x00\x00\x00\x08\x95\x04\x01\xa2no\xa0\xc0"),
    (Item(2, HI), b"\x00\x00\x00\x06\x93\x05\x02\xa2hi"),
    (End(2), b"\x00\x00\x00\x03\x92\x06\x02"),
    (Credit(3, 32), b"\x00\x00\x00\x04\x93\x07\x03\x20"),
    (Cancel(3), b"\x00\x00\x00\x03\x92\x08\x03"),
    (Rename("Ada"), b"\x00\x00\x00\x06\x92\x09\xa3Ada"),
    (Rename(None), b"\x00\x00\x00\x03\x92\x09\xc0"),
    (Regroup("red"), b"\x00\x00\x00\x06\x92\x0a\xa3red"),
    (Roster(True), b"\x00\x00\x00\x03\x92\x0b\xc3"),
    (Roster(False), b"\x00\x00\x00\x03\x92\x0b\xc2"),
    (Joined({"name": None}), b"\x00\x00\x00\x09\x92\x0c\x81\xa4name\xc0"),
    (Left({"name": "A"}), b"\x00\x00\x00\x0a\x92\x0d\x81\xa4name\xa1A"),
    (Gap(7, "red"), b"\x00\x00\x00\x07\x93\x0e\x07\xa3red"),
    (Gap(200), b"\x00\x00\x00\x05\x93\x0e\xcc\xc8\xc0"),
    (Groups(["a"], []), b"\x00\x00\x00\x06\x93\x0f\x91\xa1a\x90"),
    (Ack(70000), b"\x00\x00\x00\x07\x92\x20\xce\x00\x01\x11\x70"),
    (Ping(1), b"\x00\x00\x00\x03\x92\x21\x01"),
    (Pong(1), b"\x00\x00\x00\x03\x92\x22\x01"),
    (Bye(0, "", None), b"\x00\x00\x00\x05\x94\x23\x00\xa0\xc0"),
    (Bye(17, "hi", 500), b"\x00\x00\x00\x09\x94\x23\x11\xa2hi\xcd\x01\xf4"),
]
#: The same arrays with every form of writing a number and an array.
NUMBERS: Final[dict[str, Callable[[int], bytes]]] = {
    "fixint": lambda n: n.to_bytes(1, "big"),
    "uint8": lambda n: b"\xcc" + n.to_bytes(1, "big"),
    "uint16": lambda n: b"\xcd" + n.to_bytes(2, "big"),
    "uint32": lambda n: b"\xce" + n.to_bytes(4, "big"),
    "uint64": lambda n: b"\xcf" + n.to_bytes(8, "big"),
    "int8": lambda n: b"\xd0" + n.to_bytes(1, "big"),
    "int16": lambda n: b"\xd1" + n.to_bytes(2, "big"),
    "int32": lambda n: b"\xd2" + n.to_bytes(4, "big"),
    "int64": lambda n: b"\xd3" + n.to_bytes(8, "big"),
}
ARRAYS: Final[dict[str, Callable[[int], bytes]]] = {
    "fixarray": lambda n: (0x90 + n).to_bytes(1, "big"),
    "array16": lambda n: b"\xdc" + n.to_bytes(2, "big"),
    "array32": lambda n: b"\xdd" + n.to_bytes(4, "big"),
}


def tag_of(frame: PackedFrame) -> int:
    """The kind of a frame as wire.md counts it."""
    tag = frame.__struct_config__.tag
    assert isinstance(tag, int)
    return tag


def framed(body: bytes) -> bytes:
    """A body behind its length."""
    return header(len(body)) + body


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places) if a < b]


def cut_up(
    pieces: Iterable[bytes], *, largest: int = 0
) -> tuple[list[bytes], list[bytes]]:
    """What comes in its turn and what acts at once, of all the pieces."""
    decoder = Decoder(largest)
    frames: list[bytes] = []
    at_once: list[bytes] = []
    for piece in pieces:
        decoder.feed(piece, frames, at_once)
    return frames, at_once


def joined(data: Encoded) -> bytes:
    """A frame as it is on the wire, in one piece."""
    return data if isinstance(data, bytes) else b"".join(data)


def place_of(body: bytes) -> tuple[bool, bool]:
    """Whether a frame waits for its turn, and whether it is known at once."""
    frames, at_once = cut_up([framed(body)])
    assert [body] in (frames, at_once)
    assert {body} == {*frames, *at_once}
    assert max(len(frames), len(at_once)) == 1
    return bool(frames), bool(at_once)


def place_for(kind: int) -> tuple[bool, bool]:
    """The same, as it should be: a request waits, and is known all the same."""
    return kind not in ACTS_AT_ONCE or kind == REQUEST, kind in ACTS_AT_ONCE


def peak_of(call: Callable[[], object]) -> int:
    """Bytes that were allocated at most during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- frames as they are written ---------------------------------------------------


@pytest.mark.parametrize(("frame", "data"), GOLDEN, ids=spelled)
def test_the_bytes_of_the_table(frame: PackedFrame, data: bytes) -> None:
    """Every kind is written as wire.md says, and read as it was written."""
    assert data == encode(frame)
    assert frame == decode(data[HEADER_LEN:])
    assert data == Writer(0).control(frame)


def test_the_table_is_whole() -> None:
    """Every kind that there is stands in the golden bytes."""
    assert set(KINDS) == {type(frame) for frame, _ in GOLDEN}


ids = st.integers(1, 2**53)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
deadlines = st.none() | st.integers(0, 2**53)
contents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | texts
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts | st.integers(-5, 5), inner, max_size=3)
    ),
    max_leaves=5,
)
raws = contents.map(lambda content: Raw(pack(content)))
infos = st.dictionaries(texts, contents, max_size=3)
int64s = st.integers(-(2**63), 2**64 - 1)
frames_of_all_kinds: st.SearchStrategy[PackedFrame] = st.one_of(
    st.builds(Message, st.none() | texts, raws, deadlines),
    st.builds(
        Request,
        ids,
        texts,
        raws,
        st.integers(0, 2**31),
        deadlines,
        st.none() | ids,
    ),
    st.builds(Reply, ids, raws),
    st.builds(Failure, ids, texts, texts, raws),
    st.builds(Item, ids, raws),
    st.builds(End, ids),
    st.builds(Credit, ids, st.integers(1, 2**31)),
    st.builds(Cancel, ids),
    st.builds(Rename, st.none() | texts),
    st.builds(Regroup, st.none() | texts),
    st.builds(Roster, st.booleans()),
    st.builds(Joined, infos),
    st.builds(Left, infos),
    st.builds(Gap, st.integers(0, 2**53), st.none() | texts),
    st.builds(Groups, st.lists(texts, max_size=3), st.lists(texts, max_size=3)),
    st.builds(Ack, st.integers(0, 2**53)),
    st.builds(Ping, int64s),
    st.builds(Pong, int64s),
    st.builds(Bye, st.integers(0, 255), texts, st.none() | st.integers(0, 2**53)),
)


@given(frames_of_all_kinds)
def test_a_frame_reads_as_it_was_written(frame: PackedFrame) -> None:
    """Whatever a frame says comes out on the other side."""
    data = encode(frame)

    assert len(data) - HEADER_LEN == int.from_bytes(data[:HEADER_LEN], "big")
    assert frame == decode(data[HEADER_LEN:])
    assert place_of(data[HEADER_LEN:]) == place_for(tag_of(frame))


@given(st.lists(frames_of_all_kinds, max_size=8), st.data())
def test_any_cut_gives_the_same_frames(
    said: list[PackedFrame], data: st.DataObject
) -> None:
    """Bytes may arrive in any pieces; the same frames come out, in order."""
    stream = b"".join(map(encode, said))
    cuts = data.draw(st.lists(st.integers(0, len(stream))))

    frames, at_once = cut_up(split(stream, cuts))

    acting = [frame for frame in said if place_for(tag_of(frame))[1]]
    waiting = [frame for frame in said if place_for(tag_of(frame))[0]]
    assert (waiting, acting) == ([*map(decode, frames)], [*map(decode, at_once)])


def test_what_acts_at_once() -> None:
    """Answers, what steers streams, acks and pings never wait; all else does.

    A request waits for its turn, but is known at once: what cancels it may come first.
    """
    acting = {Reply, Failure, Item, End, Credit, Cancel, Ack, Ping, Pong}
    known = {kind for kind in KINDS if kind.__struct_config__.tag in ACTS_AT_ONCE}

    assert acting | {Request} == known
    assert Request.__struct_config__.tag == REQUEST
    for frame, data in GOLDEN:
        waits, is_known = place_of(data[HEADER_LEN:])
        assert waits is (type(frame) not in acting), frame
        assert is_known is (type(frame) in known), frame


# --- the decoder -----------------------------------------------------------------


CORPUS: Final = b"".join(data for _, data in GOLDEN)
WHOLE: Final = cut_up([CORPUS])


def test_many_frames_in_one_piece() -> None:
    """Frames that arrive together come out one by one, each in its list (F11)."""
    frames, at_once = WHOLE
    bodies = [data[HEADER_LEN:] for _, data in GOLDEN]

    requests = [frame for frame, _ in GOLDEN if isinstance(frame, Request)]
    assert len(GOLDEN) + len(requests) == len(frames) + len(at_once)
    assert [body for body in bodies if place_of(body)[0]] == frames
    assert [body for body in bodies if place_of(body)[1]] == at_once
    assert (frames * 100, at_once * 100) == cut_up([CORPUS * 100])


def test_every_cut_of_a_corpus() -> None:
    """Every kind, cut at every place: always the same (F10)."""
    for cut in range(len(CORPUS) + 1):
        assert cut_up(split(CORPUS, [cut])) == WHOLE, cut


def test_a_corpus_in_pieces_of_every_size() -> None:
    """One byte at a time, two, three, and so on: always the same."""
    for size in range(1, 70):
        assert cut_up(split(CORPUS, range(0, len(CORPUS), size))) == WHOLE, size


@pytest.mark.parametrize(("frame", "data"), GOLDEN, ids=spelled)
def test_every_pair_of_cuts(frame: PackedFrame, data: bytes) -> None:
    """A short frame and its neighbours cut at every pair of places."""
    stream = encode(Message(None, HI)) + data + encode(Ping(1))
    expected = cut_up([stream])

    assert len(data) <= 64
    for cuts in itertools.combinations(range(len(stream) + 1), 2):
        assert expected == cut_up(split(stream, cuts)), cuts


@pytest.mark.parametrize("size", [2, 3, 255, 256, 65535, 65536, MIB])
def test_a_frame_of_the_limit(size: int) -> None:
    """The limit passes, whole or cut anywhere; one byte more is refused."""
    body = b"\x92\x06".ljust(size, b"\x01")
    stream = framed(body)

    for cuts in ([], [1], [2], [3], [4], [5], [6], [len(stream) - 1]):
        assert ([], [body]) == cut_up(split(stream, cuts), largest=size)
    with pytest.raises(RemoteProtocolError) as caught:
        cut_up([header(size + 1)], largest=size)

    told = f"a frame of {size + 1} bytes was announced, the limit is {size}"
    assert told == str(caught.value)


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("size", [1, 4])
def test_a_length_that_no_frame_has(length: int, size: int) -> None:
    """An array with a kind in it has two bytes at least."""
    stream = header(length)

    with pytest.raises(RemoteProtocolError, match=f"a frame has no {length} bytes"):
        cut_up(split(stream, range(0, 4, size)))


def test_the_largest_length_is_the_headers() -> None:
    """Without a limit all that four bytes can say is allowed; with one it is not."""
    assert header(LARGEST) == b"\xff\xff\xff\xff"
    assert cut_up([header(LARGEST), b"\x93"]) == ([], [])
    with pytest.raises(RemoteProtocolError, match="of 4294967295 bytes was announced"):
        cut_up([header(LARGEST)], largest=LARGEST - 1)


@pytest.mark.parametrize("largest", [0, 16 * MIB])
def test_a_claimed_length_allocates_nothing(largest: int) -> None:
    """A hundred claims of 4 GB cost what came: a header and a byte each (T11)."""
    decoders = [Decoder(largest) for _ in range(100)]

    def claim() -> None:
        for decoder in decoders:
            if largest:
                with pytest.raises(RemoteProtocolError):
                    decoder.feed(header(LARGEST) + b"\x93", [], [])
            else:
                decoder.feed(header(LARGEST) + b"\x93", [], [])

    assert peak_of(claim) < 256 * 1024


def test_a_length_that_one_decoder_knows_is_not_allowed_to_all() -> None:
    """Decoders share what they learnt of lengths, never their limits."""
    body = b"\x92\x06".ljust(1234, b"\x01")
    stream = framed(body)

    for _ in range(2):
        assert ([], [body]) == cut_up([stream], largest=1234)
        assert ([], [body]) == cut_up([stream])
        with pytest.raises(RemoteProtocolError, match="the limit is 1233"):
            cut_up([stream], largest=1233)


@pytest.mark.parametrize("begin", [b"\x92\x06", b"\x93\x01"])
def test_a_stranger_does_not_fill_the_memory_with_lengths(begin: bytes) -> None:
    """Frames of thousands of different lengths leave little behind."""
    decoder = Decoder(0)
    tracemalloc.start()
    try:
        for length in range(2, 20_000):
            decoder.feed(framed(begin.ljust(length, b"\x01")), [], [])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < MIB


@pytest.mark.parametrize(
    "wrong", [header(1), header(101), framed(b"\xc0\xc0"), framed(b"\x91\xc0")]
)
def test_what_came_before_an_error_is_kept(wrong: bytes) -> None:
    """Frames before the wrong one are told; nothing after it is."""
    before: list[PackedFrame] = [Message(None, HI), Ping(1), Request(1, "c", HI)]
    said = b"".join(map(encode, before))
    message, ping, request = (encode(frame)[HEADER_LEN:] for frame in before)
    frames: list[bytes] = []
    at_once: list[bytes] = []

    with pytest.raises(RemoteProtocolError):
        Decoder(100).feed(said + wrong + said, frames, at_once)

    assert ([message, request], [ping, request]) == (frames, at_once)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize(("frame", "data"), GOLDEN, ids=spelled)
def test_other_ways_of_writing_the_same(
    frame: PackedFrame, data: bytes, number: str, array: str
) -> None:
    """MessagePack writes a kind and an array in several ways; all mean the same."""
    count, kind = data[4] - 0x90, data[5]
    body = ARRAYS[array](count) + NUMBERS[number](kind) + data[6:]

    assert frame == decode(body)
    assert place_of(body) == place_for(kind)


@pytest.mark.parametrize("array", ["array16", "array32"])
@pytest.mark.parametrize("count", [15, 16, 255, 256, 257, 511, 65535])
@pytest.mark.parametrize(
    "frame",
    [Message("c", HI), Reply(1, HI), Ping(5), Request(1, "c", HI)],
    ids=lambda frame: type(frame).__name__,
)
def test_room_to_grow_does_not_change_what_waits(
    frame: PackedFrame, count: int, array: str
) -> None:
    """A frame with many elements to come is the same frame, at the same time."""
    body = encode(frame)[HEADER_LEN:]
    extra = b"\xc0" * (count - (body[0] - 0x90))
    grown = ARRAYS[array](count) + body[1:] + extra

    assert frame == decode(grown)
    assert place_of(grown) == place_for(tag_of(frame))


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"\x91\xc0",
            b"\x91\xa11",
            b"\x91\xc3",
            b"\x91\x90",
            b"\x91\x80",
        ),
        *(b"\x91\xcb?\xf0\x00\x00\x00\x00\x00\x00", b"\x91\xc4\x01\x01", b"\x91\xc1"),
        *(
            b"\x90\xc0",
            b"\xdc\x00\x00",
            b"\xdd\x00\x00\x00\x00",
            b"\x91\xcc",
            b"\x91\xcd\x01",
        ),
        *(
            b"\xc0\xc0",
            b"\x80\x80",
            b"\xa2hi",
            b"\xc4\x00",
            b"\x81\x02\x02",
            b"\xc1\xc1",
        ),
        *(
            b"\x91\xa1\xff",
            b"\x92" + b"\x91" * 5000,
            b"\xdd\xff\xff\xff\xff",
            b"\xdd\xff",
        ),
        *(b"\xff\x20", b"\x20\x20", b"\xd4\x05\x00", b"\x91\xd4\x05\x00"),
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_frame_begins_with_a_kind(body: bytes) -> None:
    """What is no array, or has no number first, is refused when it is cut off."""
    told = r"frame is broken|nested too deeply"
    with pytest.raises(RemoteProtocolError, match=told) as caught:
        cut_up([framed(body)])
    with pytest.raises(RemoteProtocolError):
        decode(body)

    assert len(str(caught.value)) < 300


def test_looking_for_a_kind_costs_nothing() -> None:
    """What else is in a frame is not built only to find its kind (T11)."""
    many = b"\x90" * 100_000  # lists of 56 bytes each
    body = b"\xdd" + (len(many) + 2).to_bytes(4, "big") + b"\x06\x01" + many
    stream = framed(body)

    assert peak_of(lambda: cut_up([stream])) < 2 * len(body)
    assert peak_of(lambda: decode(body)) < 2 * len(body)


# --- what a client may say in its turn --------------------------------------------


@pytest.mark.parametrize(("frame", "data"), GOLDEN, ids=spelled)
def test_what_a_client_may_say(frame: PackedFrame, data: bytes) -> None:
    """A server reads what clients say as anybody does, and refuses all else."""
    body = data[HEADER_LEN:]

    if isinstance(frame, FROM_CLIENT):
        assert frame == decode_from_client(body) == DECODE_FROM_CLIENT(body)
    else:
        with pytest.raises(RemoteProtocolError, match=r"a frame is broken: .*\$\[0\]"):
            decode_from_client(body)
        with pytest.raises(MALFORMED):
            DECODE_FROM_CLIENT(body)


def test_whatever_waits_a_client_may_say_or_only_a_server() -> None:
    """What waits and no client says is what servers tell of others, nothing else."""
    waiting = {kind for kind in KINDS if place_for(kind.__struct_config__.tag)[0]}

    assert {Joined, Left} == waiting - {*FROM_CLIENT}
    assert waiting >= {*FROM_CLIENT}


def outcome(call: Callable[[bytes], object], body: bytes) -> object:
    """What a call returned, or raised of what it may raise."""
    try:
        return call(body)
    except (*MALFORMED, RemoteProtocolError) as error:
        return error


@given(st.binary(max_size=64) | frames_of_all_kinds.map(lambda it: encode(it)[4:]))
def test_one_set_of_errors_for_what_is_no_frame(body: bytes) -> None:
    """What msgspec raises is in ``MALFORMED``, and becomes ``RemoteProtocolError``."""
    for bare, told in ((DECODE, decode), (DECODE_FROM_CLIENT, decode_from_client)):
        found, said = outcome(bare, body), outcome(told, body)
        if isinstance(found, MALFORMED):
            found = malformed(found)
            assert isinstance(said, RemoteProtocolError)
            found, said = str(found), str(said)
        assert found == said


@pytest.mark.parametrize("body", [b"", b"\x93\x01\xa1\xff\xc0", b"\x92" * 100_000])
def test_every_way_to_be_malformed(body: bytes) -> None:
    """Too short, no Unicode, too deep: a client's frame is told as any other is."""
    with pytest.raises(MALFORMED):
        DECODE_FROM_CLIENT(body)
    with pytest.raises(RemoteProtocolError, match=r"broken|too deeply"):
        decode_from_client(body)


# --- what is no frame ------------------------------------------------------------


def least_of(kind: Any) -> int:
    """How many elements a kind needs, its number included."""
    return 1 + len(kind.__struct_fields__) - len(kind.__struct_defaults__)


@pytest.mark.parametrize(("frame", "data"), GOLDEN, ids=spelled)
def test_too_few_elements(frame: PackedFrame, data: bytes) -> None:
    """What a kind needs has to be there; what has a default need not."""
    elements = msgpack.decode(data[HEADER_LEN:])

    for count in range(1, len(elements) + 1):
        body = msgpack.encode(elements[:count])
        if count < least_of(type(frame)):
            with pytest.raises(RemoteProtocolError, match="a frame is broken"):
                decode(body)
        else:
            assert type(frame) is type(decode(body))


def test_what_need_not_be_there() -> None:
    """The table's question marks, and what grew since."""
    assert Message("c", HI) == decode(b"\x93\x01\xa1c\xa2hi")
    assert Request(1, "c", HI, 0, None, None) == decode(b"\x94\x02\x01\xa1c\xa2hi")
    assert Failure(1, "c", "t", Raw(b"\xc0")) == decode(b"\x94\x04\x01\xa1c\xa1t")
    assert Gap(1) == decode(b"\x92\x0e\x01")
    assert Bye(0, "", None) == decode(b"\x91\x23")


@given(frames_of_all_kinds, st.lists(contents, min_size=1, max_size=20))
def test_extra_elements_are_room_to_grow(
    frame: PackedFrame, extra: list[object]
) -> None:
    """A newer peer may say more; what is known is read, the rest is not."""
    elements = msgpack.decode(encode(frame)[HEADER_LEN:], type=list[Raw])
    body = msgpack.encode([*elements, *extra])

    assert frame == decode(body)
    assert place_of(body) == place_for(tag_of(frame))


UNKNOWN: Final = [
    kind
    for kind in [*range(-40, 300), 2**16, 2**31, 2**32, 2**63, 2**64 - 1, -(2**63)]
    if kind not in {known.__struct_config__.tag for known in KINDS}
]


def test_an_unknown_kind_is_told() -> None:
    """A kind that the table lacks is cut off like any other, and refused in turn."""
    for kind in UNKNOWN:
        body = msgpack.encode([kind, 1, "x", b"x", None, None])
        assert place_of(body) == (True, False)
        with pytest.raises(RemoteProtocolError, match="a frame is broken"):
            decode(body)


@pytest.mark.parametrize(
    "elements",
    [
        *([1, 5, "x"], [1, b"c", "x"], [1, ["c"], "x"], [1, True, "x"]),
        *([1, "c", "x", "5"], [1, "c", "x", -1], [1, "c", "x", 2**53 + 1]),
        *([1, "c", "x", 1.5], [1, "c", "x", True]),
        *([2, 0, "c", "x"], [2, -1, "c", "x"], [2, 2**53 + 1, "c", "x"]),
        *([2, 2**64 - 1, "c", "x"], [2, 1.0, "c", "x"], [2, "1", "c", "x"]),
        *([2, None, "c", "x"], [2, True, "c", "x"], [2, 1, None, "x"]),
        *([2, 1, 5, "x"], [2, 1, "c", "x", -1], [2, 1, "c", "x", None]),
        *([2, 1, "c", "x", 2**31 + 1], [2, 1, "c", "x", True]),
        *([2, 1, "c", "x", 0, -1], [2, 1, "c", "x", 0, "1"]),
        *([2, 1, "c", "x", 0, None, 0], [2, 1, "c", "x", 0, None, "1"]),
        *([3, 0, "x"], [3, -1, "x"], [3, None, "x"], [3, "1", "x"]),
        *([4, 1, 5, "t"], [4, 1, None, "t"], [4, 1, "c", None], [4, 0, "c", "t"]),
        *([5, 0, "x"], [5, b"1", "x"], [6, 0], [6, None], [6, [1]], [6, {}]),
        *([7, 1, 0], [7, 1, -1], [7, 1, 2**31 + 1], [7, 1, None], [7, 0, 1]),
        *([8, 0], [8, -(2**63)], [9, 5], [9, b"x"], [9, ["x"]], [10, True], [10, {}]),
        *([11, 0], [11, 1], [11, None], [11, "true"]),
        *([12, []], [12, None], [12, "x"], [12, {1: 2}], [12, {None: 1}]),
        *([13, []], [13, 5], [13, {b"x": 1}]),
        *([14, None], [14, "1"], [14, 1, 5], [14, 1.5]),
        *([15, "a", []], [15, [], "a"], [15, [1], []], [15, [None], []], [15, {}, []]),
        *([32, -1], [32, None], [32, 2**53 + 1], [32, "1"]),
        *([33, None], [33, "1"], [33, 1.0], [34, None], [34, True]),
        *([35, "0"], [35, None], [35, 0, None], [35, 0, 5], [35, 0, "", "soon"]),
    ],
    ids=spelled,
)
def test_an_element_of_another_type(elements: list[object]) -> None:
    """Ids are 1 to 2**53, text is text: all else is told, with the place."""
    with pytest.raises(RemoteProtocolError, match=r"a frame is broken: .*\$\[") as told:
        decode(msgpack.encode(elements))

    assert len(str(told.value)) < 300


@pytest.mark.parametrize(
    "body",
    [
        *(b"\x92\x09\xa1\xff", b"\x92\x09\xa3\xed\xa0\x80", b"\x92\x09\xa2\xc0\x80"),
        *(
            b"\x93\x01\xa1\xff\xc0",
            b"\x94\x04\x01\xa1c\xa1\xff",
            b"\x93\x0f\x91\xa1\xff\x90",
        ),
        *(b"\x92\x0c\x81\xa1\xff\xc0", b"\x92\x0c\x81\xa1a\xa1\xff"),
        *(
            b"\x93\x01\xc0\xc1",
            b"\x93\x01\xc0\xa5a",
            b"\x93\x01\xc0",
            b"\x93\x01\xc0\x92\x01",
        ),
        *(
            b"\x92\x06\x01\x01",
            b"\x93\x03\x01\xc0\xc0",
            b"\x92\x09\xdb\xff\xff\xff\xff",
        ),
        *(b"\x92\x0c\x81\xa1a\x81\x80\xc0", b"\x92\x0c\xdf\xff\xff\xff\xff"),
        *(b"\x93\x0f\xdd\xff\xff\xff\xff", b"\x92\x0c\x81\xa1a\xdd\xff\xff\xff\xff"),
        b"\x92\x0c\x81\xa1a\xd7\xff" + b"\xff" * 8,
        b"\x92\x0c\x81\xa1a\xc7\x0c\xff" + b"\xff" * 12,
        b"",
    ],
    ids=spelled,
)
def test_what_is_no_messagepack(body: bytes) -> None:
    """Broken text, lengths that lie, bytes too many: told, and nothing allocated."""
    with pytest.raises(RemoteProtocolError, match="a frame is broken"):
        decode(body)

    def again() -> None:
        with contextlib.suppress(RemoteProtocolError):
            decode(body)

    assert peak_of(again) < 64 * 1024


@pytest.mark.parametrize(
    "begin", [b"\x93\x01\xc0", b"\x93\x03\x01", b"\x92\x0c\x81\xa1a"]
)
@pytest.mark.parametrize("level", [b"\x91", b"\x81\xa1a", b"\xdc\x00\x01"])
@pytest.mark.parametrize("depth", [1000, 100_000])
def test_nesting_without_end(begin: bytes, level: bytes, depth: int) -> None:
    """No depth of lists or maps does more than end the connection."""
    for end in (b"", b"\xc0"):
        with pytest.raises(RemoteProtocolError, match="nested too deeply"):
            decode(begin + level * depth + end)
        with pytest.raises(RemoteProtocolError, match="nested too deeply"):
            decode(b"\x93\x06\x01" + level * depth + end)  # where nothing is known


@pytest.mark.parametrize("kind", [12, 13])
def test_a_foreign_extension_is_refused(kind: int) -> None:
    """A point in time is part of the wire; other extensions are not."""
    now = datetime(2024, 2, 29, 12, tzinfo=UTC)
    since = decode(msgpack.encode([kind, {"since": now}]))

    assert isinstance(since, Joined | Left)
    assert {"since": now} == since.info
    with pytest.raises(RemoteProtocolError, match="extension 5"):
        decode(msgpack.encode([kind, {"since": msgpack.Ext(5, b"x")}]))


@pytest.mark.parametrize(
    "number", [float("nan"), math.inf, -math.inf, 5e-324, 2**64 - 1, -(2**63), 1.5]
)
def test_every_number_of_64_bits_is_content(number: float) -> None:
    """NaN too: what a number means is the handler's business."""
    frame = decode(joined(Writer(0).message("n", number))[HEADER_LEN:])

    assert isinstance(frame, Message)
    read = msgpack.decode(bytes(frame.content))
    assert repr(number) == repr(read)


def test_an_error_is_named() -> None:
    """Too deep is said in plain words; what else is wrong, as it was found."""
    assert str(malformed(RecursionError("x"))) == "a frame is nested too deeply"
    assert str(malformed(ValueError("x"))) == "a frame is broken: x"


def read_all(pieces: Iterable[bytes], largest: int = 1000) -> None:
    """Cut and decode whatever it is, as the engine does."""
    frames: list[bytes] = []
    at_once: list[bytes] = []
    decoder = Decoder(largest)
    with contextlib.suppress(RemoteProtocolError):
        for piece in pieces:
            decoder.feed(piece, frames, at_once)
    for body in frames + at_once:
        with contextlib.suppress(RemoteProtocolError):
            assert isinstance(decode(body), PackedFrame)


@given(st.lists(st.binary(max_size=64)))
def test_arbitrary_bytes_raise_one_error_only(pieces: list[bytes]) -> None:
    """Whatever comes: frames, or RemoteProtocolError; never anything else."""
    read_all(pieces)


@given(
    st.lists(
        st.builds(
            lambda begin, rest: framed(begin + rest),
            st.sampled_from(
                [b"", b"\x92", b"\x93\x01\xc0", b"\x92\x0c\x81\xa1a", b"\xdc\x00"]
            )
            | st.builds(
                lambda count, kind: bytes([0x90 + count, kind]),
                st.integers(0, 15),
                st.integers(0, 40),
            ),
            st.binary(max_size=64)
            | st.lists(st.integers(0x80, 0xDF), max_size=20).map(bytes),
        )
    )
)
def test_arbitrary_bodies_raise_one_error_only(pieces: list[bytes]) -> None:
    """Whatever stands behind a right length: a frame, or RemoteProtocolError."""
    read_all(pieces)
    read_all([b"".join(pieces)])


@given(st.lists(frames_of_all_kinds, min_size=1, max_size=4), st.data())
def test_damaged_streams_raise_one_error_only(
    said: list[PackedFrame], data: st.DataObject
) -> None:
    """A conversation with a few bytes changed: frames, or RemoteProtocolError."""
    stream = bytearray(b"".join(map(encode, said)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at] = data.draw(st.integers(0, 255))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))

    read_all(split(bytes(stream), cuts))


# --- the writer ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "prefix"),
    [
        (None, b"\xc0"),
        ("chat", b"\xa4chat"),
        ("two words", b"\xa9two words"),
        ("gr\u00fc\u00df", b"\xa6gr\xc3\xbc\xc3\x9f"),
        (
            "\U0001f469\u200d\U0001f680",
            b"\xab\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x9a\x80",
        ),
        ("c" * 32, b"\xd9\x20" + b"c" * 32),
        ("c" * 300, b"\xda\x01\x2c" + b"c" * 300),
        ("$5", b"\xa2$5"),
    ],
    ids=lambda value: spelled(value)[:20],
)
def test_a_message_is_written(command: str | None, prefix: bytes) -> None:
    """The array of the table, with and without a deadline; twice the same."""
    writer = Writer(0)

    for content, packed in ((b"", b"\xc4\x00"), ("hi", b"\xa2hi"), (None, b"\xc0")):
        for _ in range(2):
            assert framed(b"\x93\x01" + prefix + packed) == writer.message(
                command, content
            )
            assert framed(b"\x94\x01" + prefix + packed + b"\x05") == writer.message(
                command, content, 5
            )
            data = joined(writer.message(command, content, 2**53))
            read = decode(data[HEADER_LEN:])
            assert Message(command, Raw(packed), 2**53) == read
    assert writer.is_compact


@given(st.none() | texts, contents, deadlines)
def test_a_message_reads_as_it_was_written(
    command: str | None, content: object, ttl: int | None
) -> None:
    """Any content, any command that is not reserved, comes out as it went in."""
    writer = Writer(0)
    try:
        data = joined(writer.message(command, content, ttl))
    except ReservedCommand:
        begin = content if command is None else command
        assert isinstance(begin, str | bytes)
        assert (
            not begin
            or (begin.encode() if isinstance(begin, str) else begin).count(b"$") >= 2
        )
        return

    assert ([data[HEADER_LEN:]], []) == cut_up([data])
    assert Message(command, Raw(pack(content)), ttl) == decode(data[HEADER_LEN:])
    assert pack(content) == pack(msgpack.decode(pack(content), strict=False))


@pytest.mark.parametrize("command", ["", "$CHNAME$", "a$b$", 5, b"chat", ["chat"]])
def test_the_commands_of_the_classic_wire(command: Any) -> None:
    """What is no command there is none here, so that any peer may be behind it."""
    writer = Writer(0)

    for _ in range(2):
        with pytest.raises((ReservedCommand, TypeError)):
            writer.message(command, b"")


@pytest.mark.parametrize("ttl", [None, 5])
@pytest.mark.parametrize(
    "content",
    [
        *(b"$CHNAME$ x", "$CHNAME$ x", b"$ANY_WORD$", b"$CHNAME$".ljust(LARGE)),
        *(bytearray(b"$CHNAME$ x"), memoryview(b"$CHNAME$ x")),
    ],
    ids=range(6),
)
def test_raw_content_is_what_any_peer_may_get(
    content: bytes | str | bytearray | memoryview, ttl: int | None
) -> None:
    """What the classic wire would misread is refused here too, whoever listens."""
    writer = Writer(0)

    for _ in range(2):
        with pytest.raises(ReservedCommand, match="raw content must not begin like"):
            writer.message(None, content, ttl)
    for fine in (b"$5", "$chname$ x", b"x$CHNAME$", ["$CHNAME$"]):
        read = decode(joined(writer.message(None, fine, ttl))[HEADER_LEN:])
        assert Message(None, Raw(pack(fine)), ttl) == read
    assert writer.message("c", content, ttl)


@pytest.mark.parametrize("ttl", [None, 5, 2**53])
@pytest.mark.parametrize("command", [None, "chat", "gr\u00fcn"])
def test_a_message_of_the_limit_is_written(
    command: str | None, ttl: int | None
) -> None:
    """The whole frame counts; one byte more is refused, however often it is tried."""
    content = b"x" * 100
    size = len(joined(Writer(0).message(command, content, ttl))) - HEADER_LEN
    exact, short = Writer(size), Writer(size - 1)
    told = f"has {size} bytes, the limit is {size - 1}; send"

    for _ in range(2):
        data = joined(exact.message(command, content, ttl))
        assert ([data[HEADER_LEN:]], []) == cut_up([data], largest=size)
        with pytest.raises(MessageTooLarge, match=f"limit is {size}; send"):
            exact.message(command, content + b"x", ttl)
        with pytest.raises(MessageTooLarge, match=told):
            short.message(command, content, ttl)
        assert short.message(command, content[1:], ttl)


def test_a_control_frame_has_the_limit() -> None:
    """Replies and items are content too: the limit passes, one more does not."""
    reply = Reply(1, Raw(b"\xc4\x64" + b"x" * 100))

    for _ in range(2):
        assert encode(reply) == Writer(105).control(reply)
        with pytest.raises(MessageTooLarge, match="has 105 bytes, the limit is 104"):
            Writer(104).control(reply)


@given(ids, contents, st.integers(0, 2**31), deadlines, st.none() | ids)
def test_calls_and_answers_are_written(
    number: int, content: object, stream: int, ttl: int | None, within: int | None
) -> None:
    """What the writer packs itself is, byte for byte, what ``encode`` writes."""
    writer, packed = Writer(0), Raw(pack(content))
    asked = writer.request(
        number, "sum", content, stream=stream, ttl=ttl, within=within
    )

    assert encode(Request(number, "sum", packed, stream, ttl, within)) == asked
    assert encode(Reply(number, packed)) == writer.reply(number, content)
    assert encode(Item(number, packed)) == writer.item(number, content)
    assert encode(Request(number, "sum", packed)) == writer.request(
        number, "sum", content
    )


WRITES: Final[dict[str, Callable[[Writer, Any], Encoded]]] = {
    "request": lambda writer, content: writer.request(1, "c", content),
    "reply": lambda writer, content: writer.reply(1, content),
    "item": lambda writer, content: writer.item(1, content),
}


@pytest.mark.parametrize("write", WRITES)
def test_calls_and_answers_have_the_limit(write: str) -> None:
    """The whole frame counts, and what is not sendable is told as such; each time."""
    size = len(joined(WRITES[write](Writer(0), b"x" * 100))) - HEADER_LEN
    writer = Writer(size)

    for _ in range(2):
        data = joined(WRITES[write](writer, b"x" * 100))
        frames, at_once = cut_up([data], largest=size)
        assert {data[HEADER_LEN:]} == {*frames, *at_once}
        with pytest.raises(MessageTooLarge, match=f"the limit is {size}; send"):
            WRITES[write](writer, b"x" * 101)
        with pytest.raises(NotSendable, match="cannot send this object"):
            WRITES[write](writer, object())
        with pytest.raises(NotSendable, match="more than 64 bits"):
            WRITES[write](writer, [2**64])


def test_the_commands_of_calls() -> None:
    """A call has a command like a message, or one of the few of hisock's own."""
    writer = Writer(0)

    not_text: Any = (5, None, b"c", ["c"])
    for _ in range(2):
        for command in ("", "$CHNAME$", "a$b$", Text("$CHNAME$"), *not_text):
            with pytest.raises(ReservedCommand):
                writer.request(1, command, None)
        read = decode(joined(writer.request(1, Text("c"), None))[HEADER_LEN:])
        assert Request(1, "c", Raw(NONE)) == read
        own = decode(joined(writer.request(1, "$GETCLT$", "Ada"))[HEADER_LEN:])
        assert Request(1, "$GETCLT$", Raw(b"\xa3Ada")) == own
    with pytest.raises(ReservedCommand):
        writer.message("$GETCLT$", "Ada")


def test_what_no_header_can_hold_is_refused() -> None:
    """Without a limit, or with a larger one, four bytes have to hold the length."""
    for largest in (0, 2**40):
        assert Writer(largest)._header(LARGEST) == b"\xff" * 4
        told = f"has {LARGEST + 1} bytes, the limit is {LARGEST}; send"
        with pytest.raises(MessageTooLarge, match=told):
            Writer(largest)._header(LARGEST + 1)


class Huge(bytes):
    """Bytes that say they are more than any header can hold."""

    def __len__(self) -> int:
        return LARGEST + 1


def test_large_content_that_no_header_can_hold_is_refused() -> None:
    """Its own length comes to nothing worse than the length of the frame."""
    for largest in (0, 2**40):
        with pytest.raises(MessageTooLarge, match=f"the limit is {LARGEST}; send"):
            Writer(largest)._in_parts(b"\x93\x01\xc0", Huge(), b"")


@pytest.mark.parametrize("ttl", [None, 5])
def test_large_content_has_the_limit(ttl: int | None) -> None:
    """What is written in parts is counted whole; one byte more is refused."""
    content = b"x" * LARGE
    writes: list[Callable[[Writer, bytes], Encoded]] = [
        lambda writer, it: writer.message("c", it, ttl),
        lambda writer, it: writer.request(1, "c", it, ttl=ttl),
        lambda writer, it: writer.reply(1, it),
    ]
    for write in writes:
        parts = write(Writer(0), content)
        assert isinstance(parts, tuple)
        assert any(part is content for part in parts)
        size = len(joined(parts)) - HEADER_LEN
        assert parts == write(Writer(size), content)
        with pytest.raises(MessageTooLarge, match=f"the limit is {size}; send"):
            write(Writer(size), content + b"x")


def test_a_writer_remembers_so_much_and_no_more() -> None:
    """Thousands of commands and lengths leave little behind, and stay right."""
    writer = Writer(0)
    tracemalloc.start()
    try:
        for number in range(9000):
            data = joined(writer.message(str(number), b"x" * number))
            assert data[:HEADER_LEN] == header(len(data) - HEADER_LEN)
            reply = Reply(1, Raw(pack(b"x" * number)))
            assert writer.control(reply) == encode(reply)
        assert framed(b"\x93\x01\xa48999\xc0") == writer.message("8999", None)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 2 * MIB


# --- content ---------------------------------------------------------------------


@dataclass
class Point:
    """A dataclass."""

    x: int
    y: int


class Shape(msgspec.Struct):
    """A Struct."""

    name: str
    at: Point


class Colour(enum.Enum):
    """An Enum."""

    RED = "red"


class Level(enum.IntEnum):
    """An IntEnum."""

    LOW = 1


class Text(str):
    """Text of a type of its own, as libraries have."""

    def __str__(self) -> str:
        return "not this"


class Bytes(bytes):
    """Bytes of a type of their own."""


class Whole(int):
    """A whole number of a type of its own."""


class Real(float):
    """A number of a type of its own, as numpy.float64 is one."""


PACKED_AS: list[tuple[object, object]] = [
    (Point(1, 2), {"x": 1, "y": 2}),
    (Shape("p", Point(1, 2)), {"name": "p", "at": {"x": 1, "y": 2}}),
    (datetime(2024, 2, 29, 12, tzinfo=UTC), datetime(2024, 2, 29, 12, tzinfo=UTC)),
    (datetime(2024, 2, 29, 12), "2024-02-29T12:00:00"),
    (date(2024, 2, 29), "2024-02-29"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (Colour.RED, "red"),
    (Level.LOW, 1),
    (Decimal("1.50"), "1.50"),
    ({5}, [5]),
    (frozenset({5}), [5]),
    ((1, "a"), [1, "a"]),
    (bytearray(b"x"), b"x"),
    (memoryview(b"x"), b"x"),
    (ClientInfo(("h", 1), "Ada", None), {"ip": ["h", 1], "name": "Ada", "group": None}),
    ({1: 2, None: 3, 1.5: 4, "a": 5}, {1: 2, None: 3, 1.5: 4, "a": 5}),
    (Text("text"), "text"),
    (Bytes(b"x"), b"x"),
    (Whole(5), 5),
    (Real(1.5), 1.5),
    ([Text("in"), {Text("k"): Whole(5)}], ["in", {"k": 5}]),
]


@pytest.mark.parametrize(("content", "read"), PACKED_AS, ids=spelled)
def test_what_can_be_sent(content: object, read: object) -> None:
    """All that ``as_text`` takes, and more of it in its own form."""
    assert read == msgpack.decode(pack(content))
    assert framed(b"\x93\x01\xa1c" + pack(content)) == Writer(0).message("c", content)
    nested = msgpack.decode(pack([content, {"k": content}]))
    assert [read, {"k": read}] == nested


class Naughty:
    """Not sendable, and not even its name can be asked for."""

    def __repr__(self) -> str:
        raise RuntimeError


@dataclass
class Trap:
    """A dataclass with something inside that is not sendable."""

    inside: object


def self_containing() -> list[object]:
    """A list that contains itself."""
    endless: list[object] = []
    endless.append(endless)
    return endless


def released() -> memoryview:
    """A view of bytes that are gone."""
    view = memoryview(b"x")
    view.release()
    return view


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (2**64, "more than 64 bits; send it as text"),
        (-(2**63) - 1, "more than 64 bits; send it as text"),
        ([2**64], "more than 64 bits; send it as text"),
        (Whole(2**64), "more than 64 bits; send it as text"),
        ("\ud800", "text that is not Unicode: surrogates not allowed"),
        ({"\udfff": 1}, "text that is not Unicode: surrogates not allowed"),
        (Text("\ud800"), "text that is not Unicode: surrogates not allowed"),
        (self_containing(), "this list: it is too deep, or contains itself"),
        ({"a": self_containing()}, "this dict: it is too deep, or contains itself"),
        (object(), "this object: .*; content is bytes, str, int"),
        (Naughty(), "this Naughty: .*; content is bytes, str, int"),
        (Trap(object()), "this Trap: .*; content is bytes, str, int"),
        (len, "content is bytes, str, int"),
        (1j, "this complex: .*; content is bytes, str, int"),
        (range(3), "this range: .*; content is bytes, str, int"),
        (released(), "this memoryview: .*; content is bytes, str, int"),
    ],
    ids=range(16),
)
def test_what_cannot_be_sent(content: object, told: str) -> None:
    """The caller's mistake is told as one of ours, with what would be right."""
    writer = Writer(0)

    sends: list[Callable[[Any], object]] = [
        pack,
        lambda it: writer.message("c", it),
        lambda it: writer.message("c", it, 5),
    ]
    for send in sends:
        with pytest.raises(NotSendable, match=f"cannot send .*{told}") as caught:
            send(content)
        assert len(str(caught.value)) < 300
    # What may begin like a reserved word is looked at in the classic form first.
    if isinstance(content, str):
        told = "this text as UTF-8: surrogates not allowed at 0"
    elif isinstance(content, memoryview):
        told = "these bytes: .*released memoryview"
    for ttl in (None, 5):
        with pytest.raises(NotSendable, match=f"cannot send .*{told}") as caught:
            writer.message(None, content, ttl)
        assert len(str(caught.value)) < 300


def test_a_command_is_unicode() -> None:
    """Half a letter is no command."""
    with pytest.raises(NotSendable, match="surrogates not allowed"):
        Writer(0).message("\ud800", b"")


@pytest.mark.parametrize(
    "frame",
    [
        Failure(1, "failed", "no file \udcff"),
        Rename("\ud800"),
        Joined({"name": object()}),
        Ping(2**64),
    ],
    ids=range(4),
)
def test_a_control_frame_that_cannot_be_written(frame: PackedFrame) -> None:
    """What the words of an exception cannot say raises an error of ours."""
    with pytest.raises(NotSendable, match="cannot send"):
        Writer(0).control(frame)


@given(
    st.recursive(
        st.none()
        | st.integers()
        | st.floats()
        | st.text()
        | st.binary()
        | st.decimals()
        | st.datetimes()
        | st.uuids()
        | st.complex_numbers()
        | st.fractions(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.text() | st.integers() | st.none(), inner)
            | st.tuples(inner)
            | st.builds(Trap, inner)
        ),
        max_leaves=6,
    ),
    st.none() | st.text() | st.integers(),
)
def test_whatever_is_sent_raises_one_kind_of_error(
    content: object, command: Any
) -> None:
    """Any content and command: written so that it can be read, or one of our errors."""
    try:
        data = joined(Writer(1000).message(command, content))
    except (NotSendable, ReservedCommand, MessageTooLarge):
        return
    read = decode(data[HEADER_LEN:])

    assert isinstance(read, Message)
    assert command == read.command


def test_content_for_a_frame() -> None:
    """Packed once, for a frame: strictly, or as ``None`` where nobody can be told."""
    assert Raw(b"\xa2hi") == raw_or_raise("hi") == raw("hi")
    large = b"x" * LARGE
    assert raw_or_raise(large) is large
    assert encode(Reply(1, Raw(pack(large)))) == joined(Writer(0).reply(1, large))
    with pytest.raises(NotSendable, match="cannot send this object"):
        raw_or_raise(object())
    assert [Raw(NONE)] * 3 == [raw(wrong) for wrong in (object(), 2**64, "\ud800")]


# --- time ------------------------------------------------------------------------


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(RemoteProtocolError):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: cut_up(split(framed(b"\x92\x06" + b"x" * MIB), range(0, MIB, 512))),
        lambda: cut_up([framed(b"\xdd\x00\x10\x00\x00\x06" + b"\xc0" * MIB)[:MIB]]),
        lambda: cut_up([framed(b"\xdd\x00\x0f\xff\xff\x06" + b"\xc0" * (MIB - 2))]),
        lambda: refused(lambda: cut_up([framed(b"\xdc" + b"\x91" * MIB)])),
        lambda: refused(lambda: decode(b"\x93\x01\xc0" + b"\x91" * MIB)),
        lambda: refused(
            lambda: decode(b"\x92\x09\xdb\x00\x0f\xff\xff" + b"\xff" * MIB)
        ),
        lambda: decode(b"\x93\x01\xc0\xdd\x00\x10\x00\x00" + b"\x90" * MIB),
        lambda: decode(b"\xdd\x00\x10\x00\x02\x06\x01" + b"\x90" * MIB),
    ],
    ids=range(8),
)
def test_a_mebibyte_is_read_in_no_time(call: Callable[[], object]) -> None:
    """Nothing takes longer than linear time, whatever the bytes are (T27)."""
    began = time.perf_counter()

    call()

    assert time.perf_counter() - began < 0.05


def test_the_words_of_the_module() -> None:
    """``None`` is one byte, and a length is four."""
    assert (pack(None), len(header(0))) == (NONE, HEADER_LEN)


@pytest.mark.parametrize("cut", [1, 4, 5, 20_000, LARGE, LARGE + 20])
def test_a_large_frame_is_received_in_place(cut: int) -> None:
    """Whether its bytes come through ``room`` or not, with others around them."""
    content = bytes(range(256)) * (LARGE // 128)
    parts = Writer(0).message("c", content)
    assert isinstance(parts, tuple)
    assert parts[-1] is content
    data = b"".join(parts)
    small = Writer(0).message("c", b"x")
    assert isinstance(small, bytes)
    stream = small + data + small
    for in_place in (False, True):
        decoder, frames = Decoder(0), list[bytes]()
        decoder.feed(stream[:cut], frames, [])
        at = cut
        while at < len(stream):
            room = decoder.room
            if in_place and room is not None:
                count = min(len(room), 50_000)
                room[:count] = stream[at : at + count]
                decoder.feed(count, frames, [])
            else:
                count = 65_536
                decoder.feed(stream[at : at + count], frames, [])
            at += count
        assert [small[4:], data[4:], small[4:]] == frames
        assert decoder.room is None


def received(stream: bytes, *, largest: int = 0) -> tuple[list[bytes], list[bytes]]:
    """What comes of a stream, every byte through ``room`` that has one."""
    decoder = Decoder(largest)
    frames: list[bytes] = []
    at_once: list[bytes] = []
    at = 0
    while at < len(stream):
        room = decoder.room
        if room is None:
            data: bytes | int = stream[at : at + 65_536]
            at += 65_536
        else:
            data = min(len(room), 50_000, len(stream) - at)
            room[:data] = stream[at : at + data]
            at += data
        decoder.feed(data, frames, at_once)
    return frames, at_once


@pytest.mark.parametrize(
    "frame",
    [
        *(Message("c", HI), Request(1, "c", HI), Reply(1, HI), Failure(1, "c", "t")),
        *(Item(1, HI), Rename("x"), Ping(1)),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_a_large_frame_is_sorted_like_a_small_one(frame: PackedFrame) -> None:
    """It waits, or is known at once, whether it came in place or not."""
    elements = msgpack.decode(encode(frame)[HEADER_LEN:], type=list[Raw])
    body = msgpack.encode([*elements, b"x" * LARGE])
    small = encode(frame)
    waits, acts = place_for(tag_of(frame))
    stream = small + framed(body) + small
    expected = (
        [small[4:], body, small[4:]] * waits,
        [small[4:], body, small[4:]] * acts,
    )

    assert expected == received(stream) == received(stream, largest=len(body))
    assert expected == cut_up(split(stream, range(0, len(stream), 65_536)))
    assert frame == decode(body)


@pytest.mark.parametrize("begin", [b"\x91\xc0", b"\xc0\xc0"])
def test_a_large_frame_begins_with_a_kind(begin: bytes) -> None:
    """What is none is refused when it is whole, and what came before it is kept."""
    small = encode(Message("c", HI))
    stream = small + framed(begin.ljust(LARGE, b"\x01")) + small

    for cut in (0, 3, 30_000, LARGE):
        decoder, frames = Decoder(0), list[bytes]()
        decoder.feed(stream[:cut], frames, [])
        with pytest.raises(RemoteProtocolError, match="a frame is broken"):
            decoder.feed(stream[cut:], frames, [])
        assert [small[HEADER_LEN:]] == frames
        assert decoder.room is None
    with pytest.raises(RemoteProtocolError, match="a frame is broken"):
        received(stream)


def test_a_large_length_claims_what_came_four_times_over() -> None:
    """4 GB announced and 20 KB sent: no more than a small multiple is set aside."""
    stream = header(LARGEST) + b"\x93\x01".ljust(20_000, b"\x01")
    cut_up([stream])  # what is set aside once and for all

    assert peak_of(lambda: cut_up([stream])) < 10 * len(stream)
    with pytest.raises(RemoteProtocolError, match="was announced, the limit is 131072"):
        cut_up([stream], largest=LARGE)


@pytest.mark.parametrize("content", [b"x" * LARGE, b"x" * 70_000, "x" * LARGE])
def test_large_frames_read_as_small_ones(content: bytes | str) -> None:
    """Written in parts or not, the bytes are those of the same frame."""
    writer = Writer(0)
    packed = Raw(msgpack.encode(content))
    written: list[tuple[PackedFrame, Any]] = [
        (Message("c", packed), writer.message("c", content)),
        (Message("c", packed, 7), writer.message("c", content, 7)),
        (Reply(2, packed), writer.reply(2, content)),
        (
            Request(1, "c", packed, 0, 5, 3),
            writer.request(1, "c", content, ttl=5, within=3),
        ),
    ]
    for frame, data in written:
        whole = data if isinstance(data, bytes) else b"".join(data)
        assert len(whole) - 4 == int.from_bytes(whole[:4], "big")
        assert encode(decode(whole[4:])) == encode(frame)
