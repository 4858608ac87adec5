"""The two ends of a WebSocket as objects: any cut, frames, closes, refusals."""

from __future__ import annotations

import itertools
import re
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.web.raw import (
    BINARY,
    CLOSE,
    CONT,
    PACK,
    PING,
    TEXT,
    array,
    closing,
    hello,
    no_page,
    request,
    sealed,
)
from websockets.utils import accept_key

from hisock.wire import compact
from hisock.wire.compact import cut_frames
from hisock.wire.frames import Bye, Message
from hisock.wire.http import HEAD, Rules
from hisock.wire.ws_client import ClientSide
from hisock.wire.ws_server import ServerSide

RULES: Final = Rules((), (), "http")
LARGEST: Final = 1000
SWITCHED: Final = b"HTTP/1.1 101 Switching Protocols\r\n"


def new_server(largest: int = LARGEST) -> ServerSide:
    """A server's end to which nothing was said."""
    return ServerSide(RULES.check, no_page, largest)


def open_server(largest: int = LARGEST) -> ServerSide:
    """A server's end that has gone over."""
    side = new_server(largest)
    assert side.feed(request()) == b""
    assert side.is_open
    assert side.take().startswith(SWITCHED)
    return side


def new_client(largest: int = LARGEST) -> tuple[ClientSide, bytes]:
    """A client's end that has asked, and what makes it go over."""
    side = ClientSide("ws://127.0.0.1:6969", largest, bytes)
    (key,) = re.findall(rb"Sec-WebSocket-Key: (\S+)", side.take())
    accepted = (
        SWITCHED + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_key(key.decode()).encode()
    )
    return side, accepted


def open_client(largest: int = LARGEST) -> ClientSide:
    """A client's end that has gone over."""
    side, accepted = new_client(largest)
    assert side.feed(accepted) == b""
    assert side.is_open
    return side


def framed(*bodies: bytes) -> bytes:
    """Bodies as they are on the compact wire."""
    return b"".join(compact.header(len(body)) + body for body in bodies)


def from_server(opcode: int, body: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as a server sends it."""
    return sealed(opcode, body, fin=fin, mask=False)


def close_in(data: bytes) -> tuple[int, str]:
    """The close that stands at the end of what a server's end wrote."""
    at = data.rindex(bytes((0x80 | CLOSE,)))
    assert data[at + 1] == len(data) - at - 2
    return int.from_bytes(data[at + 2 : at + 4], "big"), data[at + 4 :].decode()


# --- any cut -------------------------------------------------------------------------

MESSAGES: Final = [
    PACK([36, {"name": "a", "group": None, "proto": 2, "now": 0}]),
    PACK([1, "x", b"1" * 130]),
    PACK([1, "x", b"whole"]),
    PACK([33, 1]),
]
#: All that a client says: a request, messages whole and in pieces, pings between them,
#: and a close.
SAID: Final = (
    request()
    + sealed(BINARY, MESSAGES[0])
    + sealed(BINARY, MESSAGES[1])
    + sealed(BINARY, MESSAGES[2][:3], fin=False)
    + sealed(PING, b"amid")
    + sealed(CONT, b"", fin=False)
    + sealed(CONT, MESSAGES[2][3:])
    + sealed(BINARY, MESSAGES[3])
    + closing(1000, "bye")
)
HEARD: Final = framed(*MESSAGES) + compact.encode(Bye(0, "bye"))


def told_by(pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What a server's end makes of pieces, and what it answers."""
    side = new_server()
    came = answers = b""
    for piece in pieces:
        came += side.feed(piece)
        answers += side.take()
    assert side.is_over
    assert side.error is None
    return came, re.sub(rb"Date: [^\r]+\r\n", b"", answers)


def test_any_two_cuts_tell_the_same() -> None:
    """Wherever a client's bytes are cut, from its request to its close."""
    came, answers = told_by([SAID])
    assert came == HEARD
    assert answers.startswith(SWITCHED)
    assert answers.endswith(
        from_server(10, b"amid") + from_server(CLOSE, b"\x03\xe8bye")
    )

    for cut in range(1, len(SAID)):
        assert told_by([SAID[:cut], SAID[cut:]]) == (came, answers), cut
    start = len(request())
    for first, second in itertools.combinations(range(start - 4, len(SAID), 5), 2):
        pieces = [SAID[:first], SAID[first:second], SAID[second:]]
        assert told_by(pieces) == (came, answers), (first, second)


def test_single_bytes_tell_the_same() -> None:
    """One byte at a time is slow, but the same."""
    pieces = [SAID[at : at + 1] for at in range(len(SAID))]

    assert told_by(pieces) == told_by([SAID])


@given(st.lists(st.integers(1, len(SAID) - 1), max_size=20, unique=True).map(sorted))
def test_any_cuts_tell_the_same(cuts: list[int]) -> None:
    """However often."""
    edges = [0, *cuts, len(SAID)]
    pieces = [SAID[start:end] for start, end in itertools.pairwise(edges)]

    assert told_by(pieces) == told_by([SAID])


def test_any_cut_tells_a_client_the_same() -> None:
    """Wherever a server's bytes are cut, from its answer to its close."""
    frames = (
        from_server(BINARY, MESSAGES[1])
        + from_server(BINARY, MESSAGES[2][:2], fin=False)
        + from_server(PING, b"x")
        + from_server(CONT, MESSAGES[2][2:])
        + from_server(CLOSE, b"\x03\xe8closed: bye")
    )
    expected = framed(*MESSAGES[1:3]) + compact.encode(Bye(0, "bye"))
    size = len(new_client()[1] + frames)
    for cut in range(size + 1):
        side, accepted = new_client()
        data = accepted + frames
        assert side.feed(data[:cut]) + side.feed(data[cut:]) == expected, cut
        assert side.error is None


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_no_bytes_raise(pieces: list[bytes]) -> None:
    """Whatever comes, before and after the handshake, is told and never raised."""
    client, accepted = new_client()
    client.feed(accepted)
    before = new_server()
    before.feed(b"GET ")
    asked, _ = new_client()
    for side in (open_server(), client, before, asked, open_server(0)):
        for piece in pieces:
            side.feed(piece)
        side.feed_eof()
        side.close()
        side.take()


# --- the handshake -------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_a_head_without_end(end: bytes) -> None:
    """16 KiB may be, one more byte may not."""
    side = new_server()
    start = request()[:-2] + b"A: "
    data = start + b"x" * (HEAD - len(start))
    assert len(data) == HEAD
    assert side.feed(data) == side.take() == b""

    assert side.feed(b"x" + end) == b""
    assert side.refusal == f"a head of more than {HEAD} bytes"
    assert side.is_over
    assert side.take().startswith(b"HTTP/1.1 431 ")


def test_what_follows_a_refusal_is_not_read() -> None:
    """Neither as HTTP nor as anything else, and nothing is written behind it (T2)."""
    side = new_server()
    side.feed(b"GET / HTTP/1.0\r\n\r\n" + request())
    assert side.take().startswith(b"HTTP/1.1 400 ")

    assert side.feed(request() + hello()) == b""
    side.write(framed(MESSAGES[3]))
    side.close()
    side.feed_eof()
    assert side.take() == b""
    assert not side.is_open


def test_a_line_that_the_library_does_not_read() -> None:
    """Its limit for a line is below ours for all of them."""
    side = new_server()
    side.feed(request(A="x" * 9000))

    assert side.refusal == "a header is too long"


def test_who_asks_too_slowly() -> None:
    """Hears so when it is closed, once; nothing was written to it before."""
    side = new_server()
    side.feed(request()[:50])
    side.write(framed(MESSAGES[3]))
    assert side.take() == b""

    side.shut()
    side.close()
    assert side.take().count(b"HTTP/1.1 408 Request Timeout\r\n") == 1
    assert side.is_over


def test_a_client_writes_when_the_server_has_gone_over() -> None:
    """What is written earlier follows its request."""
    side, accepted = new_client()
    side.write(framed(MESSAGES[0])[:7])
    side.write(framed(MESSAGES[0])[7:])
    assert side.take() == b""

    side.feed(accepted)
    assert open_server().feed(side.take()) == framed(MESSAGES[0])


REFUSALS: Final = {
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n": "403 Forbidden: no",
    b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n": "503 Busy: ",
    SWITCHED
    + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n": "invalid Upgrade header: h2c",
    b"$NOTLS$        \r\n": "what answers there speaks no HTTP",
}


@pytest.mark.parametrize("answer", REFUSALS)
def test_why_a_server_does_not_go_over(answer: bytes) -> None:
    """Its status and its words, or that it speaks no HTTP."""
    side, _ = new_client()

    assert side.feed(answer) == b""
    assert side.refusal is not None
    assert side.refusal.startswith(REFUSALS[answer])
    assert side.feed(b"more") == b""
    assert not side.is_open


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    """As those of simple proxies do; what is cut off before is no answer."""
    (side, _), (cut, _) = new_client(), new_client()
    side.feed(b"HTTP/1.1 403 Forbidden\r\n\r\nnot")
    cut.feed(b"HTTP/1.1 403 For")
    assert side.refusal is None

    side.feed(b" you")
    for each in (side, cut):
        each.feed_eof()
    told = [each.refusal for each in (side, cut)]
    assert told == ["403 Forbidden: not you", None]


# --- messages ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 125, 126, 127, 65535, 65536, 70000])
def test_every_length_arrives(size: int) -> None:
    """Both ways, whichever of the three kinds of length it takes."""
    server, client = open_server(0), open_client(0)
    body = b"\x91" + bytes(size - 1)
    assert (server.largest, client.largest) == (0, 0)

    server.write(framed(body))
    assert client.feed(server.take()) == framed(body)
    client.write(framed(body))
    assert server.feed(client.take()) == framed(body)


def test_frames_are_written_when_they_are_whole() -> None:
    """In whatever pieces they are handed over, each is one message."""
    data = framed(*MESSAGES)
    whole = open_server()
    whole.write(data)
    expected = whole.take()

    pieces = open_server()
    for at in range(len(data)):
        pieces.write(data[at : at + 1])
    assert pieces.take() == expected


def test_the_largest_message_may_grow() -> None:
    """A member may say more than a stranger."""
    side = open_server(100)
    side.largest = 200
    assert side.largest == 200
    body = b"\x91" + bytes(199)
    assert side.feed(sealed(BINARY, body)) == framed(body)

    assert side.feed(sealed(BINARY, body + b"\0")) == b""
    assert side.is_too_large
    assert side.error == "a message of more than 200 bytes"
    assert close_in(side.take()) == (
        1009,
        "too_large: a message of more than 200 bytes",
    )


def test_the_first_failure_counts() -> None:
    """Later ones are not told, and nothing is read any more."""
    side = open_server()
    side.feed(sealed(BINARY, MESSAGES[3]) + sealed(TEXT, b"hi"))
    side.violate("later")
    assert side.feed(sealed(BINARY, MESSAGES[3])) == b""

    assert side.error == "binary messages (MessagePack) only, as the first was one"
    assert not side.is_too_large
    assert close_in(side.take()) == (1003, f"protocol: {side.error}")
    assert side.is_over


def test_a_violation_that_is_no_message() -> None:
    """The engine may find one, too."""
    side = open_server()
    side.violate("it does not read")

    assert side.error == "it does not read"
    assert close_in(side.take()) == (1008, "protocol: it does not read")


def test_what_is_wrong_before_a_close_is_told() -> None:
    """Even if both come at once: frames count one after the other."""
    side = open_server()
    assert side.feed(sealed(TEXT, b"\xff") + closing(1000)) == b""

    assert side.error == "text that is not UTF-8: invalid start byte"
    assert close_in(side.take()) == (1007, f"protocol: {side.error}")


def test_a_close_amid_a_message() -> None:
    """A close may stand between two pieces, like any control frame (RFC 6455 §5.4)."""
    side = open_server()
    came = side.feed(sealed(BINARY, b"\x91", fin=False) + closing(1000, "off"))

    assert came == compact.encode(Bye(0, "off"))
    assert side.error is None
    assert close_in(side.take()) == (1000, "off")


# --- goodbyes ------------------------------------------------------------------------

GOODBYE: Final = PACK([35, 0, "", None])
#: The code of a goodbye, that of its close, and the word that is told first.
BYES: Final = [
    (0, 1000, "closed"),
    (1, 4001, "kicked"),
    (2, 4002, "replaced"),
    (3, 4003, "unauthorized"),
    (4, 4004, "name_taken"),
    (5, 1002, "protocol"),
    (6, 1009, "too_large"),
    (7, 4007, "version"),
    (8, 4008, "evicted"),
    (16, 1001, "going_away"),
    (17, 4017, "busy"),
    (18, 4018, "slow_consumer"),
    (19, 4019, "overflow"),
    (20, 4020, "silent"),
    (21, 4021, "rate"),
    (99, 4099, "closed"),
]
#: Behind these nothing is acknowledged.
AT_ONCE: Final = {3, 4, 5, 6, 7, 17, 20}


@pytest.mark.parametrize(("said", "code", "word"), BYES)
def test_a_goodbye_becomes_a_close(said: int, code: int, word: str) -> None:
    """Refusals close at once; the others once both have said goodbye, so that the last
    acknowledgements arrive."""
    side = open_server()
    side.write(compact.encode(Bye(said, "why")))
    written = side.take()
    if said not in AT_ONCE:
        assert written == from_server(BINARY, PACK([35, said, "why", None]))
        side.feed(sealed(BINARY, GOODBYE))
        written = side.take()

    assert close_in(written) == (code, f"{word}: why")
    side.write(framed(MESSAGES[3]))
    side.close()
    assert side.take() == b""


def test_a_reason_is_cut_between_characters() -> None:
    """It has 123 bytes of UTF-8 at most (RFC 6455 §5.5)."""
    side = open_server()
    side.write(compact.encode(Bye(5, "€" * 100)))

    code, reason = close_in(side.take())
    assert (code, reason) == (1002, "protocol: " + 37 * "€")


def test_a_close_without_a_goodbye() -> None:
    """A link that only breaks off says that its server is there again later."""
    side = open_server()
    side.shut()
    assert side.take() == b""

    side.close()
    assert close_in(side.take()) == (1001, "going_away")


@pytest.mark.parametrize("is_shut", [True, False])
def test_a_goodbye_that_is_not_answered(is_shut: bool) -> None:
    """Who said goodbye hears a close that says no more."""
    side = open_server()
    side.feed(sealed(BINARY, GOODBYE))
    assert side.take() == b""

    if is_shut:
        side.shut()
    else:
        side.close()
    assert close_in(side.take()) == (1000, "closed")


def bye_in(came: bytes) -> Bye | None:
    """The goodbye in what came, if there is one."""
    if not came:
        return None
    (body,) = cut_frames(came)
    said = compact.decode(body)
    assert isinstance(said, Bye)
    return said


@pytest.mark.parametrize(
    ("code", "is_final"),
    [(1000, True), (1001, True), (1002, False), (1011, False), (4000, False)],
)
def test_closes_that_are_a_clients_goodbye(code: int, is_final: bool) -> None:
    """It ended on purpose, or its page was left; else it may come back."""
    came = open_server().feed(closing(code, "off"))

    assert bye_in(came) == (Bye(0, "off") if is_final else None)


def test_a_close_without_a_code_is_no_goodbye() -> None:
    """Who gives no reason may come back."""
    assert open_server().feed(sealed(CLOSE)) == b""


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (1000, "closed: off", Bye(0, "off")),
        (1000, "off", Bye(0, "off")),
        (1001, "going_away", None),
        (1002, "protocol: what", Bye(5, "what")),
        (1003, "protocol: what", Bye(5, "what")),
        (1007, "protocol: what", Bye(5, "what")),
        (1008, "protocol: what", Bye(5, "what")),
        (1009, "too_large: what", Bye(6, "what")),
        (1011, "", None),
        (1012, "", None),
        (4000, "", Bye(0, "")),
        (4003, "unauthorized: who", Bye(3, "who")),
        (4008, "evicted: x", Bye(8, "x")),
        (4016, "going_away: x", None),
        (4018, "slow_consumer: x", None),
        (4099, "", None),
    ],
)
def test_closes_that_are_a_servers_goodbye(
    code: int, reason: str, said: Bye | None
) -> None:
    """What is final is told as one; behind all else a client comes back."""
    frame = from_server(CLOSE, code.to_bytes(2, "big") + reason.encode())

    assert bye_in(open_client().feed(frame)) == said


def test_a_goodbye_and_the_close_behind_it() -> None:
    """Are one goodbye, on either side."""
    server, client = open_server(), open_client()
    server.write(compact.encode(Bye(5, "what")))
    assert bye_in(client.feed(server.take())) == Bye(5, "what")

    client.write(compact.encode(Bye(0)))  # too late: it has closed
    assert server.feed(client.take()) == b""
    assert server.is_over
    assert not client.is_over

    client.feed_eof()
    assert client.is_over


def test_a_client_closes_with_its_goodbye() -> None:
    """When it lets go; a server that only hears the close is told the same."""
    server, client = open_server(), open_client()
    client.write(compact.encode(Bye(0, "off")))
    client.shut()
    client.close()

    came = [compact.decode(body) for body in cut_frames(server.feed(client.take()))]
    assert came == [Bye(0, "off")]
    assert close_in(server.take()) == (1000, "closed: off")


def test_what_is_read_behind_the_end() -> None:
    """Nothing."""
    side = open_server()
    side.feed(closing(1000))
    assert side.is_over

    assert side.feed(array(1, "x", b"late")) == b""


def test_idle_talk_is_counted() -> None:
    """Pings and pongs are no messages, but work."""
    side = open_server()
    side.feed(sealed(PING) + sealed(10) + array(33, 1) + sealed(PING))

    assert side.idle_talk == 3


def test_content_is_not_looked_at() -> None:
    """A message whose content looks like a goodbye is a message."""
    body = PACK([1, None, b"\x23"])
    (came,) = cut_frames(open_server().feed(sealed(BINARY, body)))

    assert isinstance(compact.decode(came), Message)
