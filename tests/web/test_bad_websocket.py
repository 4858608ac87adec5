"""Whatever comes as a WebSocket and is none ends that connection, and no other.

The close says why: a code of the RFC where there is one, and first in its reason our
own word. The honest client beside it all (``Stage``) is never harmed.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from tests.faults.raw import (
    PATIENCE,
    Listener,
    Stage,
    ends_within,
    eventually,
    in_thread,
)
from tests.faults.test_compact_faults import BAD, LARGE
from tests.faults.test_threats import MIB, needs_proc, resident
from websockets.utils import accept_key

from hisock import Credentials, HiSockClient, Limits, connect, start_server
from hisock.errors import ClientDisconnected

from .raw import (
    BINARY,
    CLOSE,
    CONT,
    HOST,
    PACK,
    PING,
    PONG,
    TEXT,
    Web,
    array,
    call_web,
    closing,
    hello,
    request,
    sealed,
)

pytestmark = pytest.mark.timeout(30)

#: The largest message of a member here; of a stranger it is the usual one.
LARGEST: Final = 128 * 1024
EARLY: Final = 64 * 1024
#: What a process may grow by meanwhile; without a bound it is hundreds of MiB.
ROOM: Final = 32 * MIB
#: In which a handshake has to be whole; so has that of the honest client.
SECONDS: Final = 0.5

#: What nobody may send, at any time; the code and how the reason begins.
BROKEN_FRAMES: Final = {
    "unmasked": (
        sealed(BINARY, b"\x92\x21\x01", mask=False),
        (1002, "protocol: incorrect masking"),
    ),
    "reserved bit 1": (
        sealed(BINARY, b"\x92\x21\x01", reserved=4),
        (1002, "protocol: reserved bits must be 0"),
    ),
    "reserved bit 2": (
        sealed(BINARY, b"\x92\x21\x01", reserved=2),
        (1002, "protocol: reserved bits must be 0"),
    ),
    "reserved bit 3": (
        sealed(BINARY, b"\x92\x21\x01", reserved=1),
        (1002, "protocol: reserved bits must be 0"),
    ),
    "reserved bit of a ping": (
        sealed(PING, b"", reserved=4),
        (1002, "protocol: reserved bits must be 0"),
    ),
    "a bomb": (
        sealed(BINARY, zlib.compress(bytes(8 * MIB))[2:-4], reserved=4),
        (1002, "protocol: reserved bits must be 0"),
    ),
    "reserved opcode": (sealed(3, b"x"), (1002, "protocol: invalid opcode")),
    "reserved control": (sealed(11, b"x"), (1002, "protocol: invalid opcode")),
    "long ping": (sealed(PING, bytes(126)), (1002, "protocol: control frame too long")),
    "ping in pieces": (
        sealed(PING, b"x", fin=False),
        (1002, "protocol: fragmented control frame"),
    ),
    "close in pieces": (
        sealed(CLOSE, b"", fin=False),
        (1002, "protocol: fragmented control frame"),
    ),
    "continues nothing": (
        sealed(CONT, b"x"),
        (1002, "protocol: unexpected continuation frame"),
    ),
    "begins amid another": (
        sealed(BINARY, b"x", fin=False) + sealed(BINARY, b"x"),
        (1002, "protocol: expected a continuation frame"),
    ),
    "close of one byte": (sealed(CLOSE, b"x"), (1002, "protocol: close frame too")),
    "close with 1005": (closing(1005), (1002, "protocol: invalid status code")),
    "close with 999": (closing(999), (1002, "protocol: invalid status code")),
    "close with no text": (
        sealed(CLOSE, b"\x03\xe8\xff\xfe"),
        (1007, "protocol: invalid start byte"),
    ),
    "no UTF-8": (
        sealed(TEXT, b"\xff\xfe"),
        (1007, "protocol: text that is not UTF-8: invalid start byte"),
    ),
    "a surrogate": (
        sealed(TEXT, b"\xed\xa0\x80"),
        (1007, "protocol: text that is not UTF-8: invalid continuation byte"),
    ),
    "half a character": (
        sealed(TEXT, "€".encode()[:2]),
        (1007, "protocol: text that is not UTF-8: unexpected end"),
    ),
    "no UTF-8, and no end": (
        sealed(TEXT, b"ab", fin=False) + sealed(CONT, b"c\xff", fin=False),
        (1007, "protocol: text that is not UTF-8: invalid start byte"),
    ),
    "pieces without end": (
        sealed(BINARY, b"x", fin=False) + 1024 * sealed(CONT, b"x", fin=False),
        (1008, "protocol: a message in more than 1024 pieces"),
    ),
    "empty pieces without end": (
        sealed(BINARY, b"", fin=False) + 1024 * sealed(CONT, b"", fin=False),
        (1008, "protocol: a message in more than 1024 pieces"),
    ),
    "no message": (sealed(BINARY), (1002, "protocol: a frame has no 0 bytes")),
    "half an array": (
        sealed(BINARY, b"\x93"),
        (1002, "protocol: a frame has no 1 bytes"),
    ),
}

TOO_LARGE: Final[dict[str, Callable[[int], bytes]]] = {
    "claims 2 to the 62": lambda most: sealed(BINARY, b"x", size=2**62),
    "claims 2 to the 64": lambda most: sealed(BINARY, b"x", size=2**64 - 1),
    "one byte more": lambda most: sealed(BINARY, b"", size=most + 1),
    "in two pieces": lambda most: (
        sealed(BINARY, bytes(most), fin=False) + sealed(CONT, b"", size=1)
    ),
    "text": lambda most: sealed(TEXT, b"", size=most + 1),
    "a ping": lambda most: sealed(PING, b"", size=most + 1),
}

#: What is no hello, said as one.
NO_HELLO: Final = {
    "a message": array(1, None, b"x"),
    "a ping": array(33, 1),
    "no fields": array(36),
    "fields that are none": array(36, [1, 2]),
    "no name": array(36, {"proto": 2}),
    "a name that is none": hello(7),  # type: ignore[arg-type]  # that is the test
    "a name with a line": hello("a\nb"),
    "a long name": hello("n" * 256),
    "no version": hello(proto=0),
    "a version that is text": hello(proto="2"),
    "half a session": hello(sid="5" * 32),
    "more behind it": hello() + array(1, None, b"too early"),
    "a welcome": array(37, {"proto": 2}),
}

#: What nobody may say on the compact wire either, there behind a length.
NO_FRAMES: Final = {
    what: sealed(BINARY, bad[4:]) for what, bad in BAD.items() if what not in LARGE
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A server with an honest client, who is there through all of a module."""
    with Stage(limits=Limits(message=LARGEST)) as stage:
        yield stage


def from_server(opcode: int, body: bytes = b"", **more: Any) -> bytes:
    """A frame as a server sends it."""
    return sealed(opcode, body, mask=False, **more)


def closed(code: int, reason: str) -> bytes:
    """What ends a connection from a server's side."""
    return from_server(CLOSE, code.to_bytes(2, "big") + reason.encode())


def member(stage: Stage) -> Web:
    """A raw client that was welcomed."""
    peer = call_web(stage.address)
    peer.enter()
    return peer


def expect(peer: Web, code: int, reason: str) -> None:
    """The connection ends as it should."""
    told = peer.expect_close()
    assert told[0] == code, told
    assert told[1].startswith(reason), told
    peer.sock.close()


# --- frames ------------------------------------------------------------------------


@pytest.mark.parametrize("broken", BROKEN_FRAMES)
def test_broken_before_the_hello(stage: Stage, broken: str) -> None:
    """A stranger hears what was wrong, and nobody else notices."""
    data, (code, reason) = BROKEN_FRAMES[broken]
    peer = call_web(stage.address)
    peer.throw(data)

    expect(peer, code, reason)
    stage.check()


@pytest.mark.parametrize("broken", BROKEN_FRAMES)
def test_broken_after_the_welcome(stage: Stage, broken: str) -> None:
    """A member hears what was wrong, and leaves; nobody else notices."""
    data, (code, reason) = BROKEN_FRAMES[broken]
    peer = member(stage)
    left = len(stage.left)
    peer.throw(data)

    expect(peer, code, reason)
    eventually(lambda: len(stage.left) > left, "it leaves")
    stage.check()


@pytest.mark.parametrize("large", TOO_LARGE)
def test_too_large(stage: Stage, large: str) -> None:
    """Refused by its header, as are pieces that become too large; a stranger may say
    less than a member."""
    stranger, known = call_web(stage.address), member(stage)
    stranger.throw(TOO_LARGE[large](EARLY))
    known.throw(TOO_LARGE[large](LARGEST))

    expect(stranger, 1009, f"too_large: a message of more than {EARLY} bytes")
    expect(known, 1009, f"too_large: a message of more than {LARGEST} bytes")
    stage.check()


def test_the_largest_message_is_welcome(stage: Stage) -> None:
    """A message of exactly as many bytes as may be arrives, in 1,024 pieces too."""
    peer = member(stage)
    stage.ran.clear()
    stage.record("big")
    start = PACK([1, "big", b""])[:-2]
    content = bytes(LARGEST - len(start) - 5)
    body = start + b"\xc6" + len(content).to_bytes(4, "big") + content
    assert len(body) == LARGEST
    pieces = [body[at : at + 128] for at in range(0, len(body), 128)]
    assert len(pieces) == 1024
    peer.send(sealed(BINARY, body))
    for at, piece in enumerate(pieces):
        opcode = CONT if at else BINARY
        peer.send(sealed(opcode, piece, fin=at == len(pieces) - 1) + sealed(PONG))

    eventually(lambda: len(stage.ran) == 2, "both messages")
    assert stage.ran == 2 * [("big", content)]
    peer.sock.close()


# --- arrays ------------------------------------------------------------------------


@pytest.mark.parametrize("said", NO_HELLO)
def test_what_is_no_hello(stage: Stage, said: str) -> None:
    """A stranger that says anything else first hears why it is not let in."""
    peer = call_web(stage.address)
    peer.throw(NO_HELLO[said])

    expect(peer, 1002, "protocol: ")
    stage.check()


def test_a_hello_that_is_too_long(stage: Stage) -> None:
    """A hello has its own limit, below that of what a stranger may say at all."""
    peer = call_web(stage.address)
    peer.throw(hello(more="x" * 20_000))

    expect(peer, 1009, "too_large: ")
    stage.check()


@pytest.mark.parametrize("said", NO_FRAMES)
def test_what_no_member_says(stage: Stage, said: str) -> None:
    """A member that says what cannot be is told so, and nothing of it runs."""
    stage.record("x")
    peer = member(stage)
    peer.throw(NO_FRAMES[said])

    expect(peer, 1002, "protocol: ")
    stage.check()


def test_what_was_right_before_it_still_counts(stage: Stage) -> None:
    """A message that was whole runs, whatever came behind it in the same piece."""
    stage.ran.clear()
    stage.record("last")
    peer = member(stage)
    peer.throw(array(1, "last", b"words") + sealed(3, b"x") + array(1, "last", b"no"))

    expect(peer, 1002, "protocol: invalid opcode")
    eventually(lambda: stage.ran, "the message")
    stage.check()
    assert stage.ran == [("last", b"words")]


def test_what_is_broken_behind_a_message_ends_it_at_once(stage: Stage) -> None:
    """Even if not a byte follows, not even the answer to the close."""
    stage.ran.clear()
    stage.record("last")
    peer = member(stage)
    left = len(stage.left)
    peer.throw(array(1, "last", b"words") + sealed(3, b"x"))

    eventually(lambda: len(stage.left) > left, "it leaves")
    stage.check()
    assert stage.ran == [("last", b"words")]
    peer.sock.close()


def test_a_refusal_is_a_close_at_once() -> None:
    """Who is not let in hears the code of its refusal in the close."""
    with Stage(max_connections=1) as stage:
        peer = call_web(stage.address)
        peer.send(hello())

        kind, code, text, retry_ms = peer.take_array()
        assert (kind, code, retry_ms) == (35, 17, 1000)
        expect(peer, 4017, f"busy: {text}")


def test_a_wrong_token_is_a_close_at_once() -> None:
    """Who cannot prove who it is hears that in the close."""
    with Stage() as stage:

        @stage.server.authenticate
        def check(credentials: Credentials) -> bool:
            return False

        peer = call_web(stage.address)
        peer.send(hello())
        assert peer.take_array() == [37, {"proto": 2, "auth": True}]
        peer.send(array(38, "wrong"))

        expect(peer, 4003, "unauthorized: the server's check said no")


def test_broken_behind_a_goodbye(stage: Stage) -> None:
    """What breaks the rules while the connection ends anyhow is only its end."""
    peer = member(stage)
    stage.server.disconnect_client("bad", reason="enough")
    assert peer.take_array() == [35, 1, "enough", None]
    peer.send(sealed(3, b"x"))

    expect(peer, 1002, "protocol: invalid opcode")
    stage.check()


def test_an_end_without_a_close_behind_a_full_pipe() -> None:
    """Who reads nothing and just ends is gone; there is no close left to send."""
    with Stage() as stage:
        peer = Web.call(stage.address, buffer=4096)
        peer.send(request())
        peer.take_head()
        peer.enter()
        for _ in range(3):
            stage.server.send_client("bad", "much", bytes(MIB))
        peer.sock.shutdown(socket.SHUT_WR)

        eventually(lambda: stage.left == ["bad"], "it leaves")
        stage.check()
        peer.sock.close()


def test_a_goodbye_of_both_is_a_close(stage: Stage) -> None:
    """Once both have said goodbye the server closes, and says why again."""
    peer = member(stage)
    stage.server.disconnect_client("bad", reason="enough")
    assert peer.take_array() == [35, 1, "enough", None]
    peer.send(array(35, 0, "", None))

    expect(peer, 4001, "kicked: enough")
    stage.check()


# --- time --------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"GET ", request()[:-2], request()[:40]])
def test_a_request_that_is_never_whole(said: bytes) -> None:
    """Who does not end its request in time hears that, and the end."""
    with Stage(limits=Limits(handshake=SECONDS)) as stage:
        peer = Web.call(stage.address)
        peer.send(said)

        assert peer.take_all().startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        peer.sock.close()


@pytest.mark.parametrize("said", [b"", hello()[:-1], sealed(PING), hello()[:1]])
def test_a_hello_that_is_never_whole(said: bytes) -> None:
    """Who does not say hello in time hears that, whatever else it says."""
    with Stage(limits=Limits(handshake=SECONDS)) as stage:
        peer = call_web(stage.address)
        peer.send(said)

        expect(peer, 4020, f"silent: no complete hello within {SECONDS:g} s")


def test_newcomers_with_much_to_say_hold_nobody_up() -> None:
    """A turn lets in only as many as there is time for; the others come next."""
    pieces = [sealed(CONT if n else BINARY, fin=n == 1022) for n in range(1023)]
    said = request() + hello() + b"".join(pieces)
    at_once = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(start_server((HOST, 0), blocking=False))
        for _ in range(60):
            stack.enter_context(Web.call(server.addr)).send(said)
        while (joined := server.stats()["joined"]) < 60:
            server.run()
            at_once.append(server.stats()["joined"] - joined)

    assert max(at_once) < 30


# --- heads -------------------------------------------------------------------------

HEADS: Final = {
    "endless": (b"GET / HTTP/1.1\r\nA: " + bytes(20_000), 431),
    "a long line": (request(A="x" * 9000), 431),
    "a long target": (request("/" + "x" * 9000), 431),
    "many headers": (request(**{f"X{n}": "1" for n in range(65)}), 431),
    "HTTP/1.0": (request().replace(b"1.1", b"1.0", 1), 400),
    "an absolute target": (request("http://localhost/"), 400),
    "lines without a return": (
        request()[:-4].replace(b"\r\n", b"\n") + b"\r\n\r\n",
        400,
    ),
    "a folded header": (request(A="1\r\n 2"), 400),
    "no Host": (request(Host=None), 400),
    "a body": (request(Content_Length="5"), 400),
    "a body in chunks": (request(Transfer_Encoding="chunked"), 400),
    "a Host of somebody else": (request(Host="evil.example"), 403),
    "an Origin of somebody else": (request(Origin="http://evil.example"), 403),
    "another upgrade": (request(Upgrade="h2c"), 426),
    "another version": (request(Sec_WebSocket_Version="8"), 426),
    "no key": (request(Sec_WebSocket_Key=None), 400),
    "a short key": (request(Sec_WebSocket_Key="c2hvcnQ="), 400),
    "a key that is none": (request(Sec_WebSocket_Key="!" * 24), 400),
    "no connection": (request(Connection="close"), 426),
}


@pytest.mark.parametrize("head", HEADS)
def test_bad_heads(stage: Stage, head: str) -> None:
    """A request that is not exactly one for a WebSocket is answered, and ends; what
    follows it is never read."""
    data, status = HEADS[head]
    joined = len(stage.joined)
    peer = Web.call(stage.address)
    peer.throw(data + hello() + array(1, "echo", b"smuggled"))

    told = peer.take_all()
    assert told.startswith(b"HTTP/1.1 %d " % status), told
    assert told.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close" in told
    assert (status == 426) == (b"\r\nSec-WebSocket-Version: 13\r\n" in told)
    stage.check()
    assert len(stage.joined) == joined
    peer.sock.close()


def test_compression_is_never_agreed_on(stage: Stage) -> None:
    """An offer of it is declined (T12)."""
    peer = Web.call(stage.address)
    offer = "permessage-deflate; client_max_window_bits"
    peer.send(request(Sec_WebSocket_Extensions=offer))

    head = peer.take_head()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"extensions" not in head.lower()
    peer.sock.close()


# --- memory ------------------------------------------------------------------------


@needs_proc
def test_nothing_is_allocated_by_claim() -> None:
    """A hundred headers that claim as much as may be take no memory for it (T11)."""
    with Stage() as stage:
        peers = [member(stage) for _ in range(50)]
        strangers = [call_web(stage.address) for _ in range(50)]
        before = resident()
        for peer in peers:
            peer.send(sealed(BINARY, b"x" * 10, size=16 * MIB))
        for peer in strangers:
            peer.send(sealed(BINARY, b"x" * 10, size=EARLY))
        stage.check()

        assert resident() - before < ROOM
        for peer in (*peers, *strangers):
            peer.sock.close()


@needs_proc
def test_pieces_without_end_are_bounded(stage: Stage) -> None:
    """A message that never ends is held up to the largest one, then it is over."""
    peer = member(stage)
    before = resident()
    piece = sealed(CONT, bytes(1024), fin=False)
    peer.throw(sealed(BINARY, b"", fin=False) + 200 * 1024 * piece)

    assert resident() - before < ROOM
    stage.check()
    peer.sock.close()


@needs_proc
@pytest.mark.parametrize("is_member", [True, False])
def test_pings_of_who_does_not_read_are_bounded(stage: Stage, is_member: bool) -> None:
    """Whoever asks and asks, and reads no answer, is cut; its answers never pile up."""
    peer = member(stage) if is_member else call_web(stage.address)
    flood = 1000 * sealed(PING, bytes(125))
    before = most = resident()
    with contextlib.suppress(ConnectionError):  # else the test's time-out is the end
        while True:
            peer.sock.sendall(flood)
            most = max(most, resident())

    assert most - before < ROOM
    stage.check()
    peer.sock.close()


@needs_proc
def test_pings_between_messages_are_bounded(stage: Stage) -> None:
    """Nor do the answers pile up of who says something now and then."""
    stage.record("note")
    peer = member(stage)
    flood = 400 * sealed(PING, bytes(125)) + array(1, "note", b"")
    before = most = resident()
    end = time.monotonic() + PATIENCE
    with contextlib.suppress(ConnectionError):
        while True:
            peer.sock.sendall(flood)
            most = max(most, resident())
            assert time.monotonic() < end, "nobody cuts it"

    assert most - before < ROOM
    stage.ran.clear()
    stage.check()
    peer.sock.close()


def test_a_ping_amid_a_large_message_is_answered_behind_it() -> None:
    """It is slow, not hostile: libraries ping by themselves."""
    with Stage() as stage:
        stage.server.on("large")(lambda client: client.send("it", bytes(16 * MIB // 2)))
        peer = member(stage)
        peer.send(array(1, "large", b""))
        assert peer.take(2) == b"\x82\x7f"  # it has begun, and more than fits waits
        for _ in range(3):
            peer.send(sealed(PING, b"there?"))
            time.sleep(0.05)
        size = int.from_bytes(peer.take(8), "big")
        left = size
        while left:
            left -= len(peer.sock.recv(min(left, MIB)))

        assert [peer.take_sealed() for _ in range(3)] == 3 * [(PONG, b"there?")]
        stage.check()
        peer.sock.close()


def test_pings_count_like_messages() -> None:
    """Who pings more than it may is read later, as whoever says too much."""
    with Stage(limits=Limits(message_rate=50)) as stage:
        stage.record("note")
        peer = member(stage)
        began = time.monotonic()
        peer.send(65 * sealed(PING))
        assert peer.take(65 * 2) == 65 * b"\x8a\x00"
        peer.send(array(1, "note", b"behind them"))

        eventually(lambda: stage.ran, "the message")
        # 65 pings: 15 more than a second's worth, which came at once.
        assert time.monotonic() - began > 0.2
        peer.sock.close()


# --- a client of ours --------------------------------------------------------------


@contextlib.contextmanager
def served() -> Iterator[tuple[HiSockClient, Web]]:
    """Our client, welcomed, and the raw server of its connection."""
    listener = Listener()
    host, port = listener.address
    made: list[HiSockClient] = []
    uri = f"ws://{host}:{port}"
    thread = in_thread(lambda: made.append(connect(uri, "us", reconnect=False)))
    with listener.sock, Web(listener.sock.accept()[0]) as server:
        (key,) = re.findall(rb"Sec-WebSocket-Key: (\S+)", server.take_head())
        server.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
            % accept_key(key.decode()).encode()
            + from_server(BINARY, PACK([37, {"proto": 2, "now": 0}]))
        )
        assert ends_within(thread, PATIENCE)
        with made[0] as client:
            yield client, server
            server.sock.close()


#: What a server may not say, or how it ends; the code of the cause and its text.
SERVER_SAYS: Final = {
    "masked": (array(33, 1), "remote", "incorrect masking"),
    "a reserved bit": (
        from_server(BINARY, b"x", reserved=4),
        *("remote", "reserved bits must be 0"),
    ),
    "text": (from_server(TEXT, b"[33,1]"), "remote", "binary messages (MessagePack)"),
    "claims 2 to the 62": (
        from_server(BINARY, b"", size=2**62),
        *("too_large", f"a message of more than {Limits().message} bytes"),
    ),
    "pieces without end": (
        from_server(BINARY, b"", fin=False) + 1024 * from_server(CONT, fin=False),
        *("remote", "a message in more than 1024 pieces"),
    ),
    "no array": (from_server(BINARY, b"xx"), "remote", "a frame is broken"),
    "1002": (closed(1002, "protocol: what is this"), "protocol", "what is this"),
    "1003": (closed(1003, "protocol: binary only"), "protocol", "binary only"),
    "1009": (closed(1009, "too_large: a message"), "too_large", "a message"),
    "4008": (closed(4008, "evicted: memory"), "evicted", "memory"),
    "4001": (closed(4001, "kicked: bad dog"), None, "bad dog"),
    "1000": (closed(1000, "closed: good night"), None, "good night"),
    "1001": (closed(1001, "going_away"), None, "the other side closed the connection"),
}


@pytest.mark.parametrize("said", SERVER_SAYS)
def test_what_a_server_says_to_our_client(said: str) -> None:
    """Our client ends with what was wrong, or with why the server ended it."""
    data, code, text = SERVER_SAYS[said]
    with served() as (client, server):
        server.throw(data)
        if code is None:
            server.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ClientDisconnected) as caught:
            client.run_forever()

        assert text in str(caught.value)
        cause = caught.value.__cause__
        assert code == (None if cause is None else getattr(cause, "code", ""))
