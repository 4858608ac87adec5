"""Whole messages are cut out as the library would, and all else is left to it."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.web.raw import no_page
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from hisock.wire import compact, ws_frames
from hisock.wire.http import Rules
from hisock.wire.websocket import WebSocket
from hisock.wire.ws_client import ClientSide
from hisock.wire.ws_server import ServerSide

LARGEST = 66_000
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


class Reference(ServerSide):
    """A server that leaves every byte to the library, one by one."""

    def _take_in(self, data: bytes) -> list[bytes]:
        came: list[bytes] = []
        for at in range(len(data)):
            self._protocol.receive_data(data[at : at + 1])
            came += self._messages()
        return came


def served(kind: type[ServerSide] = ServerSide, largest: int = LARGEST) -> ServerSide:
    """A server's end whose handshake is done."""
    side = kind(Rules((), (), "http").check, no_page, largest)
    side.feed(REQUEST)
    assert side.is_open
    side.take()
    return side


def connected(answer_rest: bytes = b"") -> tuple[ClientSide, bytes]:
    """A client's end whose handshake is done, and what it read behind it."""
    side = ClientSide("ws://localhost/", LARGEST, bytes)
    return side, side.feed(answer(side) + answer_rest)


def answer(side: ClientSide) -> bytes:
    """What a server says to a client's handshake."""
    server = ServerProtocol()
    server.receive_data(side.take())
    (request,) = server.events_received()
    server.send_response(server.accept(request))  # type: ignore[arg-type]  # a request
    return b"".join(server.data_to_send())


def masked(body: bytes, opcode: Opcode = Opcode.BINARY, **bits: Any) -> bytes:
    """A client's frame."""
    return Frame(opcode, body, **bits).serialize(mask=True)


def seen(side: WebSocket, pieces: Sequence[bytes]) -> tuple[object, ...]:
    """All that becomes of what comes in pieces."""
    came = b"".join(side.feed(piece) for piece in pieces)
    ended = side.error, side.is_too_large, side.is_over
    return came, side.take(), ended, side.is_text, side.idle_talk


def in_pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Data cut at these places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


sizes = st.sampled_from([*[125, 126, 127] * 5, 65535, 65536, LARGEST, LARGEST + 1])
bodies = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=20),
    sizes.map(bytes),
    st.just(b"\x94\x23\x00\xa0\xc0"),
)
bits = st.sampled_from([*[{}] * 6, {"fin": False}, {"rsv1": True}, {"rsv3": True}])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame of a client, often usual, and seldom none at all."""
    match draw(st.integers(0, 14)):
        case 0:
            return draw(st.binary(max_size=20))
        case 1:  # without a mask
            return Frame(Opcode.BINARY, draw(bodies)).serialize(mask=False)
        case 2:  # a length in more bytes than it needs
            size = draw(st.integers(0, 200))
            wide = draw(st.sampled_from([(0xFE, 2), (0xFF, 8)]))
            return (
                bytes((0x82, wide[0])) + size.to_bytes(wide[1], "big") + bytes(4 + size)
            )
        case 3:
            opcode = draw(st.sampled_from([Opcode.PING, Opcode.PONG, Opcode.CLOSE]))
            body = draw(st.sampled_from([b"", b"\x03\xe8", b"\x03\xe8bye", b"\0\1"]))
            return masked(body, opcode)
        case 4:
            return masked(draw(bodies), draw(st.sampled_from(list(Opcode)[:2])))
        case 5:
            first = masked(draw(bodies), fin=False)
            return first + masked(draw(bodies), Opcode.CONT)
        case 6 | 7:
            return masked(b"[33,1]", Opcode.TEXT)
        case _:
            frame = Frame(Opcode.BINARY, draw(bodies))
            for name, value in draw(bits).items():
                setattr(frame, name, value)
            return _unchecked(frame)


def _unchecked(frame: Frame) -> bytes:
    """A frame as it is written, whether it may be or not."""
    bits = {name: getattr(frame, name) for name in ("rsv1", "rsv3")}
    frame.rsv1 = frame.rsv3 = False
    data = bytearray(frame.serialize(mask=True))
    data[0] |= 0x40 * bits["rsv1"] | 0x10 * bits["rsv3"]
    return bytes(data)


@settings(deadline=None)
@given(st.lists(frames(), max_size=6), st.lists(st.integers(0, 2**20), max_size=6))
def test_a_server_sees_what_the_library_alone_would_see(
    stream: list[bytes], cuts: list[int]
) -> None:
    """Whatever comes, in whatever pieces: the same messages, answers and errors."""
    pieces = in_pieces(b"".join(stream), cuts)

    assert seen(served(), pieces) == seen(served(Reference), pieces)


@given(st.lists(frames(), max_size=4))
def test_one_byte_at_a_time(stream: list[bytes]) -> None:
    """The same where nothing is ever whole."""
    data = b"".join(stream)[:2000]
    pieces = in_pieces(data, range(len(data)))

    assert seen(served(), pieces) == seen(served(Reference), pieces)


@given(
    st.lists(st.one_of(bodies, st.binary(min_size=2, max_size=300)), max_size=6),
    st.lists(st.integers(0, 2**20), max_size=6),
)
def test_a_client_sees_messages_and_pings(
    messages: list[bytes], cuts: list[int]
) -> None:
    """Messages come through, behind the handshake and around other frames."""
    ping = Frame(Opcode.PING, b"?").serialize(mask=False)
    fit = [body for body in messages if len(body) <= LARGEST]
    stream = ping.join(b"".join(ws_frames.plain(body)) for body in fit)
    side, came = connected(stream[:10])

    came += b"".join(side.feed(piece) for piece in in_pieces(stream[10:], cuts))

    assert came == b"".join(compact.header(len(body)) + body for body in fit)
    assert side.error is None


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.data())
def test_the_answer_to_a_handshake_may_come_in_pieces(
    messages: list[bytes], data: st.DataObject
) -> None:
    """Where the head ends is found wherever it is cut."""
    side = ClientSide("ws://localhost/", LARGEST, bytes)
    stream = answer(side)
    stream += b"".join(b"".join(ws_frames.plain(body)) for body in messages)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))

    came = b"".join(side.feed(piece) for piece in in_pieces(stream, cuts))

    assert side.is_open
    assert came == b"".join(compact.header(len(body)) + body for body in messages)


@pytest.mark.parametrize("cut", [0, 3, 40, -5])
def test_a_refusal_keeps_its_text(cut: int) -> None:
    """A server that refuses says why behind the head."""
    side = ClientSide("ws://localhost/", LARGEST, bytes)
    server = ServerProtocol()
    server.receive_data(side.take())
    server.send_response(server.reject(HTTPStatus.FORBIDDEN, "not you"))
    stream = b"".join(server.data_to_send())

    for piece in (stream[:cut], stream[cut:]):
        side.feed(piece)
    side.feed_eof()

    assert not side.is_open
    assert side.refusal is not None
    assert "403" in side.refusal


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_a_server_writes_what_a_client_reads(size: int) -> None:
    """Lengths are written in as few bytes as they need."""
    body = bytes(size)
    frame = Frame(Opcode.BINARY, body).serialize(mask=False)

    assert b"".join(ws_frames.plain(body)) == frame


@pytest.mark.parametrize("size", [2, 125, 126, 65535, 65536])
def test_a_client_writes_what_a_server_reads(size: int) -> None:
    """Each message has a mask of its own, and is the same without it."""
    drawn = iter(range(1, 100))
    side = ClientSide("ws://localhost/", 0, lambda n: bytes([next(drawn)]) * n)
    side.feed(answer(side))
    message = compact.header(size) + bytes(size)

    side.write(70 * message)
    frames = side.take()

    assert served(largest=0).feed(frames) == 70 * message
    assert frames.count(b"\1\1\1\1" if size < 4 else b"\1" * size) == 64


def test_what_was_framed_for_one_is_written_to_others() -> None:
    """The same bytes, whole or begun, make the same frames for everybody."""
    data = compact.header(3) + b"\x93\x01x"
    one, other = served(), served()

    one.write(data)
    other.write(data)
    other.write(data[:5])
    other.write(data[5:])
    one.write(data)

    assert one.take() == other.take() == 2 * b"\x82\x03\x93\x01x"


def test_text_and_binary_do_not_share_frames() -> None:
    """What was framed for one kind of connection is nothing for the other."""
    data = compact.header(3) + b"\x92\x21\x05"
    binary, text = served(), served()
    text.feed(masked(b"[33,1]", Opcode.TEXT))
    written = b"\x81\x06[33,5]", b"\x82\x03\x92\x21\x05"

    text.write(data)  # nothing of it is kept,
    binary.write(data)  # this is,
    assert text.framed(data) is None  # but not for it
    assert binary.framed(data) == written[1]
    text.write(data)
    binary.write(data)

    assert text.take() == 2 * written[0]
    assert binary.take() == 2 * written[1]


@pytest.mark.parametrize("is_cut", [True, False])
def test_the_first_message_says_what_all_are(is_cut: bool) -> None:
    """Whether it was cut out or came in two pieces, through the library."""
    usual, text = masked(b"\x92\x21\x01"), masked(b"[33,1]", Opcode.TEXT)
    pieces = masked(b"\x92", fin=False) + masked(b"\x21\x01", Opcode.CONT)
    one, other = served(), served()

    came = one.feed(usual if is_cut else pieces) + one.feed(text)
    assert came == compact.header(3) + b"\x92\x21\x01"
    assert one.take()[2:4] == (1003).to_bytes(2, "big")
    assert one.error == "binary messages (MessagePack) only, as the first was one"

    came = other.feed(text + (usual if is_cut else pieces) + text)
    assert came == compact.header(3) + b"\x92\x21\x01"
    assert other.take()[2:4] == (1003).to_bytes(2, "big")
    assert other.error == "text messages (JSON) only, as the first was one"


def test_what_was_begun_is_not_written_to_others() -> None:
    """Half a message is nothing yet, for nobody."""
    data = compact.header(3) + b"\x93\x01y"
    one, other = served(), served()

    one.write(data[:5])
    other.write(data[:5])
    one.write(data[5:])
    other.write(data[5:])

    assert one.take() == other.take() == b"\x82\x03\x93\x01y"


def test_nothing_follows_a_goodbye() -> None:
    """What was kept for others is not written behind a close."""
    data = compact.header(3) + b"\x93\x01z"
    side = served()
    served().write(data)

    side.close()
    side.take()
    side.write(data)

    assert side.take() == b""


@pytest.mark.parametrize("data", [b"", b"\x82", b"\x82\xfe\0", b"\x82\xff" + bytes(7)])
def test_a_head_that_is_not_whole_tells_nothing(data: bytes) -> None:
    """How long a frame is cannot be known before its length is there."""
    assert ws_frames.left_of(data, 0, is_masked=True) is None


@pytest.mark.parametrize("head", [b"\xc2\x81", b"\x83\x81", b"\x82\x01", b"\x8b\x80"])
def test_what_no_frame_begins_with_has_no_end(head: bytes) -> None:
    """Reserved bits, unknown kinds, and no mask where there has to be one."""
    assert ws_frames.left_of(head, 0, is_masked=True) == ws_frames.NEVER
