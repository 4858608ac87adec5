"""The wire of hisock 1.1: headers, hellos, reserved words."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.spelled import spelled

from hisock.errors import (
    InvalidOption,
    MessageTooLarge,
    NotSendable,
    RemoteProtocolError,
    ReservedCommand,
)
from hisock.wire.classic import (
    Decoder,
    HelloReader,
    Writer,
    check_header_len,
    check_size,
    decode_answer,
    decode_control,
    encode_frame,
    header,
    largest_body,
)
from hisock.wire.frames import (
    Bye,
    ClientAnswer,
    Compact,
    Frame,
    GetClient,
    Hello,
    Joined,
    Left,
    NoTLS,
    Probe,
    Refusal,
    Regroup,
    Rename,
    Welcome,
)

MIB = 1024 * 1024
INFO = {"ip": ("127.0.0.1", 5000), "name": "Ada", "group": None}

header_lens = st.integers(2, 64)
heads = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.lists(st.sampled_from(b"0123456789 +-_x\x00\t\n"), min_size=16, max_size=16).map(
        bytes
    ),
    st.builds(
        lambda digits, filler: (digits.encode() + filler * 16)[:16],
        st.text("0123456789", max_size=16),
        st.sampled_from([b" ", b"\x00", b"\t", b"0"]),
    ),
    st.integers(0, 10**16 - 1).map(lambda length: header(length, 16)),
)


def frame(body: bytes, header_len: int = 16) -> bytes:
    """A body behind its header."""
    return header(len(body), header_len) + body


def hello(fields: bytes | dict[str, Any], header_len: int = 16) -> bytes:
    """A whole hello."""
    if isinstance(fields, dict):
        fields = json.dumps(fields).encode()
    return frame(b"$CLTHELLO$ " + fields, header_len)


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places) if a < b]


def decode(decoder: Decoder, pieces: Iterable[bytes]) -> list[bytes]:
    """Every body in the pieces."""
    bodies: list[bytes] = []
    for piece in pieces:
        decoder.feed(piece, bodies)
    return bodies


def reference(head: bytes) -> int | None:
    """The length in a header by the letter of wire.md, or ``None`` if it is none."""
    digits = head.rstrip(b" ")
    if not digits or (len(digits) > 1 and digits[:1] == b"0"):
        return None
    length = 0
    for byte in digits:
        if not ord("0") <= byte <= ord("9"):
            return None
        length = length * 10 + byte - ord("0")
    return length


def peak_of(call: Callable[[], object]) -> int:
    """Bytes that were allocated at most during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- headers ---------------------------------------------------------------------


@pytest.mark.parametrize("header_len", [2, 16, 64])
def test_a_header_length_that_works(header_len: int) -> None:
    """2 to 64 is what a hello fits under."""
    assert header_len == check_header_len(header_len)


@pytest.mark.parametrize("wrong", [True, 16.0, "16", None])
def test_a_header_length_is_a_whole_number(wrong: object) -> None:
    """What is no whole number is refused by name."""
    with pytest.raises(InvalidOption) as caught:
        check_header_len(wrong)

    assert f"header_len is a whole number, not {wrong!r}" == str(caught.value)


@pytest.mark.parametrize("wrong", [-1, 0, 1, 65, 10**6])
def test_a_header_length_has_bounds(wrong: int) -> None:
    """A header that no hello fits under is refused, with what would be right."""
    with pytest.raises(InvalidOption, match=f"header_len {wrong} cannot .* 2 to 64"):
        check_header_len(wrong)


@pytest.mark.parametrize("header_len", range(2, 65))
def test_a_header_holds_up_to_its_digits(header_len: int) -> None:
    """The largest length has as many nines as the header has bytes."""
    largest = largest_body(header_len)

    assert int("9" * header_len) == largest
    assert b"9" * header_len == header(largest, header_len)
    check_size(largest, 0, header_len)
    with pytest.raises(MessageTooLarge, match=f"header_len {header_len} cannot hold"):
        check_size(largest + 1, 0, header_len)


@pytest.mark.parametrize(
    ("header_len", "limit", "largest"), [(2, 0, 99), (2, 50, 50), (2, 100, 99)]
)
def test_the_smaller_of_two_bounds(header_len: int, limit: int, largest: int) -> None:
    """What can be sent is bounded by the header and by the limit, if there is one."""
    assert largest == largest_body(header_len, limit)


def test_the_limit_passes_and_one_more_does_not() -> None:
    """A message of the limit is sent, one byte more is not; 0 is no limit (F12)."""
    check_size(100, 100, 16)
    check_size(101, 0, 16)
    with pytest.raises(MessageTooLarge, match=r"has 101 bytes, the limit is 100; send"):
        check_size(101, 100, 16)


# --- the decoder -----------------------------------------------------------------


@given(st.data(), header_lens)
def test_any_cut_gives_the_same_bodies(data: st.DataObject, header_len: int) -> None:
    """Bytes may arrive in any pieces; the same bodies come out, in order."""
    bodies = data.draw(st.lists(st.binary(max_size=99), max_size=8))
    stream = b"".join(frame(body, header_len) for body in bodies)
    cuts = data.draw(st.lists(st.integers(0, len(stream))))

    assert bodies == decode(Decoder(header_len, 99), split(stream, cuts))


@given(st.data(), header_lens)
def test_any_cut_gives_the_same_bare_tokens(
    data: st.DataObject, header_len: int
) -> None:
    """The two headerless tokens of 1.1 survive any cut, between any messages."""
    bare = st.sampled_from([b"$CHNAME$", b"$CHGROUP$"])
    parts = data.draw(st.lists(st.tuples(st.booleans(), st.binary(max_size=40), bare)))
    stream = b"".join(
        token if is_bare else frame(body, header_len) for is_bare, body, token in parts
    )
    expected = [token if is_bare else body for is_bare, body, token in parts]
    cuts = data.draw(st.lists(st.integers(0, len(stream))))

    decoder = Decoder(header_len, 99, bare_tokens=True)

    assert expected == decode(decoder, split(stream, cuts))


@pytest.mark.parametrize("header_len", [2, 4, 16])
def test_every_pair_of_cuts(header_len: int) -> None:
    """A whole conversation cut at every pair of places: always the same (F10)."""
    bodies = [b"", b"hi", b"$CHNAME$", b"10              5", b"\x00" * 10, b""]
    stream = b"".join(
        body if body == b"$CHNAME$" else frame(body, header_len) for body in bodies
    )

    for cuts in itertools.combinations(range(len(stream) + 1), 2):
        decoder = Decoder(header_len, 99, bare_tokens=True)
        assert bodies == decode(decoder, split(stream, cuts)), cuts


@pytest.mark.parametrize("header_len", [2, 16, 64])
def test_a_thousand_messages_in_one_piece(header_len: int) -> None:
    """Frames that arrive together come out one by one (F11)."""
    bodies = [b"%d" % number for number in range(1000)]
    stream = b"".join(frame(body, header_len) for body in bodies)

    assert bodies == decode(Decoder(header_len, 99), [stream])
    assert bodies == decode(Decoder(header_len, 99), split(stream, range(len(stream))))


@given(heads, st.booleans())
def test_a_header_is_a_length_or_refused(head: bytes, bare_tokens: bool) -> None:
    """Every 16 bytes are digits then spaces within the limit, or end it (T10)."""
    assume(head[:1] != b"$")
    decoder = Decoder(16, 1000, bare_tokens=bare_tokens)
    length = reference(head)

    if length is None or length > 1000:
        with pytest.raises(RemoteProtocolError):
            decoder.feed(head, [])
    else:
        assert [b"x" * length] == decode(decoder, [head, b"x" * length])


@pytest.mark.parametrize(
    "wrong",
    [
        *(b"1_0", b"+5", b" 5", b"-1", b"0x5", "٣".encode(), b"\x005", b"5\x00", b"05"),
        *(
            b"00",
            b"5 5",
            b"",
            b"1e3",
            b"5.0",
            b"5\t",
            b"5\n",
            b"\xb2",
            b"$5",
            b"$CHNAM",
        ),
    ],
    ids=spelled,
)
@pytest.mark.parametrize("bare_tokens", [False, True])
def test_what_int_forgives_is_refused(wrong: bytes, bare_tokens: bool) -> None:
    """No sign, no underscore, no leading zero, no other alphabet (T10)."""
    decoder = Decoder(16, 1000, bare_tokens=bare_tokens)

    with pytest.raises(RemoteProtocolError, match="a header"):
        decoder.feed(wrong.ljust(16), [])


@pytest.mark.parametrize("wrong", [b"1_", b"+", b"x", b" ", b"01"])
def test_a_wrong_header_is_refused_before_it_is_whole(wrong: bytes) -> None:
    """Garbage is refused with its first byte, not with its sixteenth."""
    with pytest.raises(RemoteProtocolError) as caught:
        Decoder(16, 1000).feed(wrong, [])

    told = f"a header is digits and then spaces, 16 bytes; got {wrong!r}"
    assert told == str(caught.value)


def test_a_bare_token_needs_permission() -> None:
    """Only a server forgives headerless tokens; a client does not."""
    with pytest.raises(RemoteProtocolError, match="a header is digits"):
        Decoder(16, 1000).feed(b"$CHNAME$", [])


def test_the_limit_is_told_at_the_header() -> None:
    """The limit passes; one byte more is refused before any of the body came."""
    assert decode(Decoder(16, 100), [frame(b"x" * 100)]) == [b"x" * 100]
    with pytest.raises(RemoteProtocolError) as caught:
        Decoder(16, 100).feed(header(101, 16), [])

    told = "a message of 101 bytes was announced, the limit is 100"
    assert told == str(caught.value)


def test_a_length_that_another_decoder_has_seen_keeps_to_the_limit() -> None:
    """A read that is one message is refused like any, though its header is known."""
    whole = frame(b"x" * 101)
    assert decode(Decoder(16, 0), [whole, whole]) == [b"x" * 101] * 2
    bodies: list[bytes] = []
    with pytest.raises(RemoteProtocolError):
        Decoder(16, 100).feed(whole, bodies)
    assert not bodies


def test_a_read_that_looks_like_one_message_may_be_the_rest_of_another() -> None:
    """What is cut is joined first, whatever the next read begins with."""
    inner = frame(b"inner", 2)
    whole = frame(b"a" + inner, 2)
    assert decode(Decoder(2, 99), [frame(b"inner", 2)]) == [b"inner"]
    assert decode(Decoder(2, 99), [whole[:3], whole[3:]]) == [b"a" + inner]


def test_what_came_before_an_error_is_kept() -> None:
    """Messages before the wrong header are told; nothing after it is."""
    bodies: list[bytes] = []
    with pytest.raises(RemoteProtocolError):
        Decoder(2, 99).feed(b"2 hi2 yox 2 no", bodies)

    assert bodies == [b"hi", b"yo"]


@pytest.mark.parametrize("digits", [5000, 64])
def test_thousands_of_digits_are_no_length(digits: int) -> None:
    """A length of thousands of digits raises nothing but our error."""
    with pytest.raises(RemoteProtocolError):
        decode(Decoder(64, 1000), [b"9" * digits])


@given(st.lists(st.binary(max_size=64)), header_lens, st.booleans())
def test_arbitrary_bytes_raise_one_error_only(
    pieces: list[bytes], header_len: int, bare_tokens: bool
) -> None:
    """Whatever comes: bodies, or RemoteProtocolError; never anything else."""
    decoder = Decoder(header_len, 1000, bare_tokens=bare_tokens)
    try:
        bodies = decode(decoder, pieces)
    except RemoteProtocolError:
        pass
    else:
        assert sum(map(len, bodies)) <= sum(map(len, pieces))


@given(st.data(), header_lens)
def test_damaged_streams_raise_one_error_only(
    data: st.DataObject, header_len: int
) -> None:
    """A conversation with a few bytes changed: bodies, or RemoteProtocolError."""
    bodies = data.draw(st.lists(st.binary(max_size=30), min_size=1))
    stream = bytearray(b"".join(frame(body, header_len) for body in bodies))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at] = data.draw(st.sampled_from(b"$0 9x\x00"))
    cuts = data.draw(st.lists(st.integers(0, len(stream))))
    decoder = Decoder(header_len, 1000, bare_tokens=True)

    with contextlib.suppress(RemoteProtocolError):
        decode(decoder, split(bytes(stream), cuts))


def test_a_claimed_length_allocates_nothing() -> None:
    """A hundred claims of 2 GB cost what came: a header and a byte each (T11)."""
    decoders = [Decoder(16, 0) for _ in range(100)]

    def claim() -> None:
        for decoder in decoders:
            decoder.feed(header(2 * 1024**3, 16) + b"x", [])

    assert peak_of(claim) < 256 * 1024


def test_a_stranger_does_not_fill_the_memory_with_lengths() -> None:
    """Messages of thousands of different lengths leave little behind."""

    def kept(header_len: int) -> int:
        decoder = Decoder(header_len, 0)
        frames = [frame(b"x" * length, header_len) for length in range(4000)]
        tracemalloc.start()
        try:
            for each in frames:
                decoder.feed(each, [])
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    # What other threads allocate meanwhile is counted, too.
    assert min(map(kept, (64, 63, 62))) < 512 * 1024


# --- marks -----------------------------------------------------------------------

CONFIRMATION = (b"$COMPACT$",)
ANSWERS = (b"$WELCOME$", b"$NOTLS$", b"$REFUSED$")


def decode_to_mark(
    decoder: Decoder, pieces: Iterable[bytes]
) -> tuple[list[bytes], bytes | None]:
    """Every body up to a mark, and everything after it, whatever it is."""
    bodies: list[bytes] = []
    rest: bytes | None = None
    for piece in pieces:
        if rest is None:
            rest = decoder.feed(piece, bodies)
        else:
            rest += piece
    return bodies, rest


@pytest.mark.parametrize(
    ("bodies", "marks"),
    [
        ([b"$DH_NUMS$", b"hi", b"", b"$CHNAME$", b"$COMPACT$"], CONFIRMATION),
        ([b"$COMPACT$"], CONFIRMATION),
        ([b"chat hello", b'$WELCOME$ {"proto": 2}'], ANSWERS),
        ([b"$NOTLS$"], ANSWERS),
    ],
    ids=spelled,
)
@pytest.mark.parametrize(
    "rest", [b"", b"\x00\x00\x00\x05\x93\x01\xc0\xa1x", b"\xff" * 3]
)
@pytest.mark.parametrize("header_len", [2, 16])
def test_a_mark_survives_every_pair_of_cuts(
    bodies: list[bytes], marks: tuple[bytes, ...], rest: bytes, header_len: int
) -> None:
    """A mark is the last body; not a byte of what follows it is touched."""
    stream = b"".join(
        body if body == b"$CHNAME$" else frame(body, header_len) for body in bodies
    )
    for cuts in itertools.combinations(range(len(stream + rest) + 1), 2):
        decoder = Decoder(header_len, 99, bare_tokens=True)
        decoder.marks = marks
        assert (bodies, rest) == decode_to_mark(decoder, split(stream + rest, cuts))


def test_a_mark_in_single_bytes() -> None:
    """The end of the mark is the end of this wire, told with the mark's last byte."""
    stream = frame(b"hi") + frame(b"$COMPACT$")
    decoder = Decoder(16, 99)
    decoder.marks = CONFIRMATION
    bodies: list[bytes] = []
    told = [decoder.feed(stream[at : at + 1], bodies) for at in range(len(stream))]

    assert [None] * (len(stream) - 1) + [b""] == told
    assert bodies == [b"hi", b"$COMPACT$"]


def test_a_mark_that_nobody_expects_is_a_body() -> None:
    """Without ``marks`` the same words are bodies like any other."""
    stream = frame(b"$COMPACT$") + frame(b"$WELCOME$ {}") + frame(b"after")

    bodies, rest = decode_to_mark(Decoder(16, 99), [stream])

    assert (bodies, rest) == ([b"$COMPACT$", b"$WELCOME$ {}", b"after"], None)


@pytest.mark.parametrize(
    "body", [b"$COMPACT$x", b"$COMPACT$$", b"$COMPACT", b"x$COMPACT$", b"$compact$"]
)
@pytest.mark.parametrize("together", [True, False])
def test_what_only_begins_like_a_mark_is_a_body(body: bytes, together: bool) -> None:
    """A mark is the whole word: one letter more, and it is a message."""
    decoder = Decoder(16, 99)
    decoder.marks = CONFIRMATION
    stream = frame(body) + frame(b"after")
    cuts = [] if together else [len(frame(body))]

    assert ([body, b"after"], None) == decode_to_mark(decoder, split(stream, cuts))


# --- the writer ------------------------------------------------------------------


def writer(header_len: int = 16, largest: int = 0, *, by_client: bool = True) -> Writer:
    """A writer without a limit, unless one is given."""
    return Writer(header_len, largest, by_client=by_client)


@pytest.mark.parametrize(
    ("command", "content", "body"),
    [
        (None, b"hi", b"hi"),
        (None, b"", b""),
        (None, "gr\u00fc\u00df", b"gr\xc3\xbc\xc3\x9f"),
        (None, b"$5 please", b"$5 please"),
        ("chat", b"hi", b"chat hi"),
        ("chat", b"$CHNAME$", b"chat $CHNAME$"),
        ("chat", None, b"chat "),
        ("chat", {"a": 1}, b'chat {"a": 1}'),
        ("\u00e9", b"", b"\xc3\xa9 "),
        ("two words", 5, b"two words 5"),
    ],
    ids=spelled,
)
@pytest.mark.parametrize("header_len", [2, 16, 64])
def test_a_message_is_written(
    command: str | None, content: Any, body: bytes, header_len: int
) -> None:
    """The command, one space, the content as text; twice the same, ttl or not."""
    writes = writer(header_len)

    for ttl in (None, None, 5):
        data = writes.message(command, content, ttl)
        assert frame(body, header_len) == data
        assert [body] == decode(Decoder(header_len, 0), [data])


@pytest.mark.parametrize(
    ("command", "content", "error"),
    [
        ("", b"", ReservedCommand),
        ("$CHNAME$", b"", ReservedCommand),
        (5, b"", ReservedCommand),
        (None, b"$CHNAME$ x", ReservedCommand),
        (None, "$COMPACT$", ReservedCommand),
        ("\ud800", b"", NotSendable),
        (None, "\ud800", NotSendable),
        ("chat", object(), NotSendable),
    ],
    ids=spelled,
)
def test_what_cannot_be_sent_is_refused(
    command: Any, content: Any, error: type[Exception]
) -> None:
    """What a peer would misread, or has no text form, is not written; each time."""
    writes = writer()

    for _ in range(2):
        with pytest.raises(error):
            writes.message(command, content)


def test_a_message_of_the_limit_is_written() -> None:
    """The command counts; one byte more is refused, and is not remembered."""
    writes = writer(largest=10)

    for _ in range(2):
        assert frame(b"chat 12345") == writes.message("chat", b"12345")
        with pytest.raises(MessageTooLarge, match="has 11 bytes, the limit is 10"):
            writes.message("chat", b"123456")
        with pytest.raises(MessageTooLarge, match="has 11 bytes, the limit is 10"):
            writes.framed(b"x" * 11)


def test_a_short_header_holds_short_messages() -> None:
    """What ``header_len`` digits cannot tell is refused, with what would help."""
    writes = writer(2)

    assert writes.message(None, b"x" * 99) == b"99" + b"x" * 99
    with pytest.raises(MessageTooLarge, match="header_len 2 cannot hold"):
        writes.message(None, b"x" * 100)


@pytest.mark.parametrize("by_client", [True, False])
def test_a_control_frame_is_written(by_client: bool) -> None:
    """Whoever writes has its own words; the header is the same."""
    writes = writer(by_client=by_client)
    goodbye = b"$USRCLOSE$" if by_client else b"$DISCONN$"

    for _ in range(2):
        assert frame(goodbye) == writes.control(Bye(5, "why", 100))
        assert frame(b"$CHNAME$ Ada") == writes.control(Rename("Ada"))
    assert frame(b"$5") == writes.framed(b"$5")
    assert not writes.is_compact


def test_a_writer_remembers_so_much_and_no_more() -> None:
    """Thousands of commands and lengths leave little behind, and stay right."""
    writes = writer()
    tracemalloc.start()
    try:
        for number in range(9000):
            body = b"%d " % number + b"x" * number
            assert frame(body) == writes.message(str(number), b"x" * number)
        assert frame(b"8999 ") == writes.message("8999", b"")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 2 * MIB


# --- the hello -------------------------------------------------------------------


names = st.none() | st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=60)


@given(names, names, st.integers(4, 64), st.data(), st.binary(max_size=40))
def test_a_hello_survives_any_cut(
    name: str | None,
    group: str | None,
    header_len: int,
    data: st.DataObject,
    rest: bytes,
) -> None:
    """Who it is, how long its headers are, and what came right behind."""
    stream = frame(encode_frame(Hello(name, group)), header_len)
    cuts = data.draw(st.lists(st.integers(0, len(stream) - 1)))
    pieces = split(stream, cuts)
    reader = HelloReader(16 * 1024, 255)

    for piece in pieces[:-1]:
        assert reader.feed(piece) is None
        assert len(reader) > 0
    assert (Hello(name, group), header_len, rest) == reader.feed(pieces[-1] + rest)
    assert len(reader) == 0


@pytest.mark.parametrize("header_len", range(2, 65))
def test_a_hello_tells_its_header_length(header_len: int) -> None:
    """The place of the ``$`` is the header's length, byte by byte too."""
    stream = hello({"name": "Ada", "group": None}, header_len)
    reader = HelloReader(16 * 1024, 255)
    found = [reader.feed(stream[at : at + 1]) for at in range(len(stream))]

    assert [None] * (len(stream) - 1) == found[:-1]
    assert (Hello("Ada", None), header_len, b"") == found[-1]


@given(heads)
def test_a_hellos_header_is_a_length_or_refused(head: bytes) -> None:
    """The server reads the first header as strictly as every other (T10)."""
    assume(b"$" not in head)
    reader = HelloReader(1000, 255)
    length = reference(head)

    if length is None or not 1 < length <= 1000:
        with pytest.raises(RemoteProtocolError):
            reader.feed(head + b"$")
    else:
        assert reader.feed(head + b"$") is None


@given(names, names, st.integers(1, 2**53 - 1), st.integers(0, 2**53 - 1))
def test_a_hello_tells_what_else_the_client_speaks(
    name: str | None, group: str | None, proto: int, now: int
) -> None:
    """The highest version of the compact wire, and the client's clock."""
    said = Hello(name, group, proto, now)

    assert (said, 16, b"") == HelloReader(0, 255).feed(frame(encode_frame(said)))


def test_a_hello_of_1_1_has_two_keys() -> None:
    """Who speaks no compact wire says hello as 1.1 does, byte for byte."""
    body = b'$CLTHELLO$ {"name": "Ada", "group": null}'

    assert body == encode_frame(Hello("Ada", None, 0, 12345))
    assert (
        encode_frame(Hello("Ada", None, 2, 12345))
        == b'$CLTHELLO$ {"name": "Ada", "group": null, "proto": 2, "now": 12345}'
    )


@given(st.lists(st.binary(max_size=80)))
def test_arbitrary_first_bytes_raise_one_error_only(pieces: list[bytes]) -> None:
    """Whatever a stranger says first: a hello, or RemoteProtocolError."""
    reader = HelloReader(1000, 255)
    with contextlib.suppress(RemoteProtocolError):
        for piece in pieces:
            assert reader.feed(piece) is None


@given(st.binary(max_size=200))
def test_an_arbitrary_body_raises_one_error_only(body: bytes) -> None:
    """Whatever stands where the JSON belongs: a hello, or RemoteProtocolError."""
    with pytest.raises(RemoteProtocolError):
        HelloReader(1000, 255).feed(hello(body))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=6,
    ),
    st.sampled_from(["name", "group"]),
)
def test_any_json_is_a_hello_or_refused(value: Any, key: str) -> None:
    """Whatever JSON a name is: a hello, or RemoteProtocolError."""
    fields = {"name": None, "group": None, key: value}
    try:
        found = HelloReader(0, 255).feed(hello(fields))
    except RemoteProtocolError:
        return
    assert found is not None
    assert fields == {"name": found[0].name, "group": found[0].group}


def pad(count: int) -> str:
    return "é" * (count // 2) + "a" * (count % 2)


@pytest.mark.parametrize(
    "fields",
    [
        b'{"name": "", "group": ""}',
        b'{"group": "red", "name": "Ada"}',
        b'{"name":null,"group":null}',
        b'{"name": null, "group": null, "proto": 2, "sid": null, "window": 30}',
        b'{"name": null, "group": null, "proto": 2, "now": 9007199254740991}',
        b'{"name": null, "group": null, "proto": 0, "now": 5}',
        b' {"name": null, "group": null} ',
        json.dumps({"name": pad(255), "group": "a" * 255}).encode(),
        '{"name": "👩\u200d🚀", "group": "e\u0301"}'.encode(),
    ],
    ids=range(9),
)
def test_hellos_that_are_welcome(fields: bytes) -> None:
    """Extra keys are ignored; names of up to 255 bytes are kept as they are (F50)."""
    found = HelloReader(16 * 1024, 255).feed(hello(fields))

    assert found is not None
    sent = json.loads(fields)
    proto, now = sent.get("proto", 0), sent.get("now", 0)
    assert Hello(sent["name"], sent["group"], proto, now) == found[0]


HOSTILE = {
    "nan": (b'{"name": NaN, "group": null}', "NaN is not JSON"),
    "nan elsewhere": (b'{"name": null, "group": null, "x": NaN}', "NaN is not"),
    "infinity": (b'{"name": null, "group": -Infinity}', "-Infinity is not JSON"),
    "1e999": (b'{"name": 1e999, "group": null}', "text or None, not inf"),
    "huge number": (b'{"name": %b, "group": null}' % (b"9" * 5000), "not JSON"),
    "same key twice": (b'{"name": "a", "name": "b", "group": null}', "stands twice"),
    "same key twice, deep": (
        b'{"name": null, "group": null, "x": {"y": 1, "y": 2}}',
        "a key stands twice",
    ),
    "lone surrogate": (b'{"name": "\\ud800", "group": null}', "no control characters"),
    "raw surrogate": (b'{"name": "\xed\xa0\x80", "group": null}', "refused|not JSON"),
    "bad utf-8": (b'{"name": "\xff", "group": null}', "the hello is not JSON"),
    "escaped newline": (b'{"name": "a\\n", "group": null}', "no control characters"),
    "raw newline": (b'{"name": "a\n", "group": null}', "the hello is not JSON"),
    "nul": (b'{"name": null, "group": "\\u0000"}', "no control characters"),
    "ansi": (b'{"name": "\\u001b[31m", "group": null}', "no control characters"),
    "c1": (b'{"name": "\\u0085", "group": null}', "no control characters"),
    "number": (b'{"name": 5, "group": null}', "text or None, not 5"),
    "list": (b'{"name": null, "group": []}', r"text or None, not \[\]"),
    "object": (b'{"name": {}, "group": null}', "text or None, not {}"),
    "true": (b'{"name": true, "group": null}', "text or None, not True"),
    "proto true": (b'{"name": null, "group": null, "proto": true}', "proto is a whole"),
    "proto text": (b'{"name": null, "group": null, "proto": "2"}', "proto is a whole"),
    "proto 2.0": (b'{"name": null, "group": null, "proto": 2.0}', "proto is a whole"),
    "proto null": (b'{"name": null, "group": null, "proto": null}', "not None"),
    "proto -1": (b'{"name": null, "group": null, "proto": -1}', "number, not -1"),
    "now -1": (b'{"name": null, "group": null, "now": -1}', "now is a whole number"),
    "now 1e3": (b'{"name": null, "group": null, "now": 1e3}', "now is a whole number"),
    "now 2**53": (
        b'{"name": null, "group": null, "now": 9007199254740992}',
        "now is a whole number",
    ),
    "no name": (b'{"group": null}', "the hello has no 'name'"),
    "no group": (b'{"name": null}', "the hello has no 'group'"),
    "empty object": (b"{}", "the hello has no 'name'"),
    "a list": (b"[]", "the hello is no JSON object"),
    "a text": (b'"Ada"', "the hello is no JSON object"),
    "null": (b"null", "the hello is no JSON object"),
    "nothing": (b"", "the hello is not JSON"),
    "half": (b'{"name": ', "the hello is not JSON"),
    "two": (b'{"name": null, "group": null}{}', "the hello is not JSON"),
    "256 bytes": (
        json.dumps({"name": pad(256), "group": None}).encode(),
        "at most 255",
    ),
    "256 letters": (b'{"name": null, "group": "%b"}' % (b"a" * 256), "at most 255"),
    "deep lists": (
        b'{"name": %b%b, "group": null}' % (b"[" * 100_000, b"]" * 100_000),
        "the hello is not JSON",
    ),
    "deep objects": (b'{"a":' * 100_000, "the hello is not JSON"),
    "deep and open": (b"[" * 100_000, "the hello is not JSON"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_hello_is_refused(case: str) -> None:
    """Each costs its sender the connection, and nobody anything else (T13, F13)."""
    fields, told = HOSTILE[case]

    with pytest.raises(RemoteProtocolError, match=told) as caught:
        HelloReader(0, 255).feed(hello(fields))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("depth", range(900, 1000, 3))
def test_no_depth_slips_between_reading_and_telling(depth: int) -> None:
    """What JSON just about reads is also just about shown in the error's text."""
    for name in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
        with pytest.raises(RemoteProtocolError):
            HelloReader(0, 255).feed(hello(b'{"name": %b, "group": null}' % name))
        with contextlib.suppress(RemoteProtocolError):
            assert decode_answer(b'{"traceback": %b}' % name) is not None
        fields = b'{"name": null, "group": null, "proto": %b}' % name
        with pytest.raises(RemoteProtocolError):
            HelloReader(0, 255).feed(hello(fields))
        for key in (b"proto", b"name", b"group", b"now"):
            body = b'$WELCOME$ {"proto": 2, %b: %b}' % (b'"%b"' % key, name)
            with pytest.raises(RemoteProtocolError):
                decode_control(body, by_client=False)
        for key in (b"code", b"text", b"retry"):
            with contextlib.suppress(RemoteProtocolError):
                body = b'$REFUSED$ {"%b": %b}' % (key, name)
                assert decode_control(body, by_client=False) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"$CLTHELLO$ {}",
        b"5$CLTHELLO$ {}",
        b"x" * 16,
        b"GET / HTTP/1.1\r\n\r\n",
        frame(b"hello"),
        frame(b"$CHNAME$ x"),
        frame(b"$CLTHELLO$"),
        frame(b"$CLTHELLO$ "),
        frame(b"$CLTHELLO"),
        frame(b"$"),
        header(0, 16) + b"$",
        b"5 " * 33,
        b"1" * 65,
        b"1" * 65 + b"$",
        b"40" + b" " * 63 + b"$CLTHELLO$ {}",
    ],
    ids=spelled,
)
def test_what_is_no_hello_is_refused(data: bytes) -> None:
    """A client begins with a length and its hello; all else is refused."""
    with pytest.raises(RemoteProtocolError):
        HelloReader(16 * 1024, 255).feed(data)


def test_a_hello_is_known_by_its_first_bytes() -> None:
    """Another word is refused at the first letter that differs."""
    told = r"begins with a length and \$CLTHELLO\$; got b'\$CX'"
    with pytest.raises(RemoteProtocolError, match=told):
        HelloReader(16 * 1024, 255).feed(header(40, 16) + b"$CX")


def test_a_hello_of_hisock_2_is_told_apart() -> None:
    """Who speaks the wire of hisock 2.x learns which versions fit."""
    body = b'$CLTHELLO${"name": "Ada", "group": null}'
    with pytest.raises(RemoteProtocolError) as caught:
        HelloReader(16 * 1024, 255).feed(frame(body))

    told = (
        "this is the hello of hisock 2.x, whose wire this server does not speak; "
        "use hisock 1.1 or 4 and newer on the other side"
    )
    assert told == str(caught.value)


def test_a_hello_has_a_limit() -> None:
    """The limit passes; one byte more is refused at the header."""
    stream = hello({"name": None, "group": None})
    size = len(stream) - 16

    assert HelloReader(size, 255).feed(stream) is not None
    with pytest.raises(RemoteProtocolError) as caught:
        HelloReader(size - 1, 255).feed(stream[:17])
    told = f"a hello of {size} bytes was announced, the limit is {size - 1}"
    assert told == str(caught.value)


def test_a_claimed_hello_allocates_nothing() -> None:
    """A hello that claims gigabytes costs what came, without a limit too (T11)."""
    reader = HelloReader(0, 255)

    assert peak_of(lambda: reader.feed(b"9" * 60 + b"    $CLTHELLO$ {")) < 64 * 1024


# --- reserved words --------------------------------------------------------------


FROM_CLIENT: list[tuple[bytes, Frame]] = [
    (b"$CHNAME$", Rename(None)),
    (b"$CHNAME$ ", Rename("")),
    (b"$CHNAME$ Ada B", Rename("Ada B")),
    (b"$CHGROUP$", Regroup(None)),
    (b"$CHGROUP$ r\xc3\xa9d", Regroup("réd")),
    (b"$USRCLOSE$", Bye()),
    (b"$DH_NUMS$", Probe()),
    (b"$GETCLT$ Ada", GetClient("Ada")),
    (b"$COMPACT$", Compact()),
]
FROM_SERVER: list[tuple[bytes, Frame]] = [
    (b"$DISCONN$", Bye()),
    (b"$NOTLS$", NoTLS()),
    (b"$CLTCONN$ " + json.dumps(INFO).encode(), Joined(INFO)),
    (b"$CLTDISCONN$ " + json.dumps(INFO).encode(), Left(INFO)),
    (
        b'$WELCOME$ {"proto": 2, "name": "Ada", "group": null, "now": 5}',
        Welcome(2, "Ada", None, 5),
    ),
    (
        b'$REFUSED$ {"code": "busy", "text": "later", "retry": 500}',
        Refusal("busy", "later", 500),
    ),
    (
        b'$REFUSED$ {"code": "kicked", "text": "never", "retry": null}',
        Refusal("kicked", "never"),
    ),
]
BOTH = [(True, *pair) for pair in FROM_CLIENT] + [
    (False, *pair) for pair in FROM_SERVER
]


@pytest.mark.parametrize(("by_client", "body", "meant"), BOTH, ids=spelled)
def test_a_reserved_word_reads_as_it_is_written(
    by_client: bool, body: bytes, meant: Frame
) -> None:
    """Each frame has one body, and each body one frame."""
    assert body == encode_frame(meant, by_client=by_client)
    assert meant == decode_control(body, by_client=by_client)


@pytest.mark.parametrize(("by_client", "body", "_meant"), BOTH, ids=spelled)
def test_a_reserved_word_of_the_other_side_is_a_message(
    by_client: bool, body: bytes, _meant: Frame
) -> None:
    """What only the other side may say means nothing from this one."""
    assert decode_control(body, by_client=not by_client) is None


@pytest.mark.parametrize(
    "body", [b"$", b"$$", b"$5 please", b"$CHNAME$x", b"$chname$ x", b"$CLTHELLO$x {}"]
)
def test_other_dollars_are_messages(body: bytes) -> None:
    """A body that only begins like a reserved word is a message."""
    assert decode_control(body, by_client=True) is None
    assert decode_control(body, by_client=False) is None


@pytest.mark.parametrize("rest", [b"", b" ", b" {}", b' {"name": 5, "group": null}'])
def test_a_second_hello_is_a_violation(rest: bytes) -> None:
    """Whoever is known says so once, whatever stands in it; a server never does."""
    body = b"$CLTHELLO$" + rest

    with pytest.raises(RemoteProtocolError, match="a second hello came"):
        decode_control(body, by_client=True)
    assert decode_control(body, by_client=False) is None


def test_a_message_is_no_frame() -> None:
    """To encode what is no frame is a mistake of ours."""
    with pytest.raises(AssertionError):
        encode_frame(b"message")  # type: ignore[arg-type]  # that is the test


def test_a_question_without_a_name() -> None:
    """``$GETCLT$`` alone asks for the client without a name."""
    assert GetClient("") == decode_control(b"$GETCLT$", by_client=True)


@pytest.mark.parametrize("word", [b"$CHNAME$", b"$CHGROUP$", b"$GETCLT$"])
def test_a_name_is_utf_8(word: bytes) -> None:
    """A name that is not UTF-8 is told as such."""
    with pytest.raises(RemoteProtocolError, match=r"not UTF-8: b'\\xff'"):
        decode_control(word + b" \xff", by_client=True)


@pytest.mark.parametrize("word", [b"$CLTCONN$", b"$CLTDISCONN$"])
@pytest.mark.parametrize("rest", [b"", b" ", b" 5", b" {", b' {"ip": NaN}', b" []"])
def test_a_broken_client_is_told(word: bytes, rest: bytes) -> None:
    """What should be a client and is none raises our error."""
    with pytest.raises(RemoteProtocolError, match="the client is no"):
        decode_control(word + rest, by_client=False)


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        (b"", "the welcome is not JSON"),
        (b" ", "the welcome is not JSON"),
        (b" []", "the welcome is no JSON object"),
        (b" {}", "the welcome's proto is a whole number, not None"),
        (b' {"proto": true}', "proto is a whole number, not True"),
        (b' {"proto": "2"}', "proto is a whole number, not '2'"),
        (b' {"proto": 2.0}', "proto is a whole number, not 2.0"),
        (b' {"proto": -1}', "proto is a whole number, not -1"),
        (b' {"proto": 9007199254740992}', "proto is a whole number"),
        (b' {"proto": NaN}', "NaN is not JSON"),
        (b' {"proto": 2, "name": 5}', "the name in a welcome is text, not 5"),
        (b' {"proto": 2, "group": []}', r"the group in a welcome is text, not \[\]"),
        (b' {"proto": 2, "now": -1}', "now is a whole number, not -1"),
        (b' {"proto": 2, "now": null}', "now is a whole number, not None"),
    ],
    ids=spelled,
)
def test_a_broken_welcome_is_told(rest: bytes, told: str) -> None:
    """What should be a welcome and is none raises our error."""
    with pytest.raises(RemoteProtocolError, match=told) as caught:
        decode_control(b"$WELCOME$" + rest, by_client=False)
    assert len(str(caught.value)) < 300


def test_a_short_welcome_is_enough() -> None:
    """All but the version may be left out; further keys are ignored."""
    read = decode_control(b'$WELCOME$ {"proto": 2, "x": "y"}', by_client=False)

    assert Welcome(2) == read


@pytest.mark.parametrize(
    ("rest", "refusal"),
    [
        (b" {}", Refusal("refused", "no reason was given")),
        (b' {"code": 5, "text": null}', Refusal("5", "None")),
        (b' {"retry": 0}', Refusal("refused", "no reason was given", 0)),
        (
            b' {"code": "%b", "text": "%b"}' % (b"c" * 5000, b"t" * 5000),
            Refusal("c" * 64, "t" * 1024),
        ),
    ],
    ids=range(4),
)
def test_a_strange_refusal_stays_a_refusal(rest: bytes, refusal: Refusal) -> None:
    """Whatever it says, it says no; and it does not say it at length."""
    assert refusal == decode_control(b"$REFUSED$" + rest, by_client=False)


@pytest.mark.parametrize(
    "rest",
    [b"", b" []", b' {"retry": -1}', b' {"retry": true}', b' {"retry": "1"}'],
)
def test_a_broken_refusal_is_told(rest: bytes) -> None:
    """What should be a refusal and is none raises our error."""
    with pytest.raises(RemoteProtocolError, match=r"refusal|retry"):
        decode_control(b"$REFUSED$" + rest, by_client=False)


@given(st.sampled_from([body for _, body, _ in BOTH]), st.binary(), st.booleans())
def test_arbitrary_words_raise_one_error_only(
    body: bytes, rest: bytes, by_client: bool
) -> None:
    """Whatever follows a reserved word: a frame, a message, or our error."""
    with contextlib.suppress(RemoteProtocolError):
        decode_control(body + rest, by_client=by_client)


def test_the_answer_about_a_client() -> None:
    """The unlabelled answer is known by how it begins."""
    answer = ClientAnswer(INFO)

    assert json.dumps(INFO).encode() == encode_frame(answer)
    assert answer == decode_answer(encode_frame(answer))


@pytest.mark.parametrize("end", [b"}", b""])
def test_a_refusal_reads_with_and_without_its_end(end: bytes) -> None:
    """1.1 forgets the last brace of a refusal; both forms are read."""
    body = b'{"traceback": "$NOEXIST$"' + end

    assert ClientAnswer(None, "$NOEXIST$") == decode_answer(body)
    assert encode_frame(ClientAnswer(None, "no")) == b'{"traceback": "no"}'


@pytest.mark.parametrize("body", [b"", b"hello", b'{"name": "x"}', b"{", b'{ "ip": 1}'])
def test_other_bodies_are_no_answer(body: bytes) -> None:
    """What does not begin like an answer is a message."""
    assert decode_answer(body) is None


@pytest.mark.parametrize("body", [b'{"ip"', b'{"ip": }', b'{"traceback": ', b'{"ip"}'])
def test_a_broken_answer_is_told(body: bytes) -> None:
    """What begins like an answer and is none raises our error."""
    with pytest.raises(RemoteProtocolError, match="the client is not JSON"):
        decode_answer(body)


def test_a_strange_answer_stays_an_answer() -> None:
    """An address that is no list is kept; a refusal that is no text becomes one."""
    assert ClientAnswer({"ip": None}) == decode_answer(b'{"ip": null}')
    assert ClientAnswer(None, "5") == decode_answer(b'{"traceback": 5}')


@given(st.sampled_from([b'{"ip"', b'{"traceback"']), st.binary())
def test_arbitrary_answers_raise_one_error_only(begin: bytes, rest: bytes) -> None:
    """Whatever follows: an answer, or RemoteProtocolError."""
    with contextlib.suppress(RemoteProtocolError):
        decode_answer(begin + rest)


# --- time ------------------------------------------------------------------------


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(RemoteProtocolError):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: refused(lambda: Decoder(64, 0).feed(b"9" * 63 + b"x" + b"9" * MIB, [])),
        lambda: refused(lambda: Decoder(16, 0).feed(b"$" * MIB, [])),
        lambda: Decoder(64, 0).feed(b"9" * MIB, []),
        lambda: Decoder(64, 0).feed((b"0" + b" " * 63) * (MIB // 64), []),
        lambda: decode(Decoder(16, 0), split(frame(b"x" * MIB), range(0, MIB, 512))),
        lambda: refused(lambda: HelloReader(0, 0).feed(b"1" * MIB)),
        lambda: refused(lambda: HelloReader(0, 0).feed(hello(b"[" * MIB))),
        lambda: refused(lambda: HelloReader(0, 0).feed(hello(b" " * MIB))),
        lambda: refused(lambda: HelloReader(0, 255).feed(hello(b'"' + b"a" * MIB))),
        lambda: decode_control(b"$" * MIB, by_client=True),
        lambda: decode_control(b"$CHNAME$" * (MIB // 8), by_client=True),
        lambda: decode_control(b"$CHNAME$ " + b" " * MIB, by_client=True),
        lambda: refused(lambda: decode_answer(b'{"ip"' + b"[" * MIB)),
    ],
    ids=range(13),
)
def test_a_mebibyte_is_read_in_no_time(call: Callable[[], object]) -> None:
    """Nothing takes longer than linear time, whatever the bytes are (T27)."""
    began = time.perf_counter()

    call()

    assert time.perf_counter() - began < 0.05


def test_a_hello_in_single_bytes_is_read_in_no_time() -> None:
    """The largest hello, one byte at a time, costs less than its own system calls."""
    stream = hello({"name": None, "group": None, "x": "a" * 16_000})
    reader = HelloReader(16 * 1024 * 1024, 255)
    began = time.perf_counter()

    for at in range(len(stream)):
        reader.feed(stream[at : at + 1])

    assert time.perf_counter() - began < 0.25
