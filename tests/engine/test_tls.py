"""TLS around a socket."""

from __future__ import annotations

import contextlib
import datetime
import random
import select
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hisock.engine import certificates, tls
from hisock.engine.link import DONT_WAIT, READ_SIZE
from hisock.engine.tls import (
    ClientTls,
    SecureLinkBroken,
    SecureSocket,
    ServerTls,
    client_context,
    offered_protocols,
    server_context,
)
from hisock.errors import CertificateChanged

ADDRESS = ("localhost", 6969)
DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC)


class Files:
    """Certificates in files, made once for all tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.stranger = trustme.CA()
        self.ca = self.write("ca.pem", self.authority.cert_pem.bytes())
        self.strange_ca = self.write("strange.pem", self.stranger.cert_pem.bytes())
        self.server = self.issue("server", self.authority, "localhost")
        self.client = self.issue("client", self.authority, "anna@example.org")

    def write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def issue(
        self, name: str, authority: trustme.CA, *names: str, **more: Any
    ) -> dict[str, str]:
        """A certificate and its key, as ``tls=`` takes them."""
        leaf = authority.issue_cert(*names, **more)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return {
            "cert": self.write(f"{name}.pem", chain),
            "key": self.write(f"{name}.key", leaf.private_key_pem.bytes()),
        }

    def issue_for_servers_only(self) -> dict[str, str]:
        """A certificate whose extended key usage does not have clients."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificate(self.authority.cert_pem.bytes())
        signer = serialization.load_pem_private_key(
            self.authority.private_key_pem.bytes(), None
        )
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "only")])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        signed = (
            x509.CertificateBuilder(issuer.subject, name, key.public_key(), 7)
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + DAY)
            .add_extension(usage, critical=True)
            .sign(signer, hashes.SHA256())
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        pem = signed.public_bytes(serialization.Encoding.PEM)
        return {"cert": self.write("only.pem", secret + pem)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The certificates."""
    return Files(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(files: Files) -> ServerTls:
    """A server that everybody may connect to."""
    return server_context(files.server)


@pytest.fixture(scope="module")
def client(files: Files) -> ClientTls:
    """A client that trusts it."""
    return make_client({"ca": files.ca})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for pins and certificates of our own."""
    monkeypatch.setenv("HISOCK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def connect() -> Iterator[Callable[[], Pair]]:
    """Makes pairs of connected non-blocking sockets."""
    with contextlib.ExitStack() as stack:

        def make() -> Pair:
            one, other = socket.socketpair()
            for end in (one, other):
                stack.enter_context(end).setblocking(False)
            return one, other

        yield make


def make_client(option: object, host: str = "localhost") -> ClientTls:
    """A client's side of ``tls=``."""
    made = client_context(option, host)
    assert made is not None
    return made


@pytest.fixture
def pair(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> tuple[SecureSocket, SecureSocket]:
    """The two ends of a connection whose handshake is complete: server, client."""
    one, other = connect()
    ends = server.wrap(one), client.wrap(other, ADDRESS)
    shake(*ends)
    return ends


def shake(*ends: SecureSocket) -> None:
    """Take the handshakes of connected ends as far as they go."""
    for _ in range(10):
        if all([end.advance() and end.flush() for end in ends]):
            return
    raise AssertionError("the handshake is not complete")


def take(end: SecureSocket, size: int = READ_SIZE) -> bytes | None:
    """What can be read without waiting; ``None`` if there is nothing."""
    try:
        return end.recv(size, DONT_WAIT)
    except BlockingIOError:
        return None


def take_all(end: SecureSocket, size: int) -> bytes:
    """So many bytes; they are on their way, so it does not take long."""
    data = b""
    while len(data) < size:
        part = take(end)
        assert part != b""
        if part is None:
            select.select([end], [], [], 5.0)
        data += part or b""
    return data


def fail(one: SecureSocket, other: SecureSocket) -> tuple[str, str]:
    """What each of two ends says of a handshake that fails; no plaintext passes."""
    said = {one: "", other: ""}
    for _ in range(10):
        for end in said:
            try:
                assert not take(end)
                with contextlib.suppress(BlockingIOError):
                    end.send(b"secret")
            except SecureLinkBroken as error:
                said[end] = said[end] or str(error)
            except OSError:
                pass
    return said[one], said[other]


# --- bytes -----------------------------------------------------------------------


def test_bytes_pass_both_ways(pair: tuple[SecureSocket, SecureSocket]) -> None:
    """What one end sends, the other receives, and both know what is spoken."""
    server, client = pair

    assert client.send(b"ping") == 4
    assert server.recv(100) == b"ping"
    assert server.send(memoryview(b"pong")) == 4
    assert client.recv(100) == b"pong"
    assert server.is_established
    assert client.is_established
    assert server.alpn() == client.alpn() == "hisock/2"


def test_nothing_readable_passes(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """Between the ends there is ciphertext."""
    one, other = connect()
    ends = server.wrap(one), client.wrap(other, ADDRESS)
    shake(*ends)

    ends[1].send(b"a secret word")

    seen = one.recv(1000)
    assert seen[:3] == b"\x17\x03\x03"
    assert b"secret" not in seen


def test_it_looks_like_a_socket(connect: Callable[[], Pair], server: ServerTls) -> None:
    """What hisock asks of a socket the wrapped one answers; it cannot gather."""
    one, _ = connect()
    end = server.wrap(one)

    assert end.fileno() == one.fileno()
    assert end.family == one.family
    assert end.getsockname() == one.getsockname()
    assert end.getpeername() == one.getpeername()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    end.setblocking(True)
    assert one.getblocking()
    assert not hasattr(end, "sendmsg")
    end.close()
    assert one.fileno() == -1


def test_nothing_is_sent_before_the_handshake(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """``send`` takes nothing until it is complete, and takes it a step further."""
    one, other = connect()
    near, far = server.wrap(one), client.wrap(other, ADDRESS)
    assert near.peer_certificate is None
    assert not near.has_plaintext

    for end in (far, near):
        with pytest.raises(BlockingIOError):
            end.send(b"early")
    far.send(b"in time")  # its half of the handshake leaves before it

    assert take(near) == b"in time"


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 65536, 100_000])
def test_a_send_takes_at_most_64_kib(
    pair: tuple[SecureSocket, SecureSocket], size: int
) -> None:
    """More is for the next call; nothing is nothing."""
    server, client = pair
    data = random.Random(size).randbytes(size)

    sent = client.send(memoryview(data))

    assert sent == min(size, 65536)
    received = b""
    while len(received) < sent:
        received += take(server) or b""
        client.flush()
    assert received == data[:sent]


def test_what_the_kernel_does_not_take_waits(
    pair: tuple[SecureSocket, SecureSocket],
) -> None:
    """It is pending, and until it has left ``send`` takes nothing more."""
    server, client = pair
    client.setblocking(
        bool(DONT_WAIT)
    )  # a client's socket may wait; writing never does
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = random.Random(1).randbytes(65536)

    assert client.send(data) == 65536
    assert client.pending > 0
    with pytest.raises(BlockingIOError):
        client.send(b"more")
    assert not client.flush()
    received = b""
    while len(received) < len(data):
        received += take(server) or b""
        client.flush()

    assert received == data
    assert client.pending == 0
    assert client.flush()
    assert client.send(b"more") == 4
    assert server.recv(100) == b"more"


@pytest.mark.parametrize("buffer", [4096, 200_000])
def test_a_mebibyte_both_ways_at_once(
    pair: tuple[SecureSocket, SecureSocket], buffer: int
) -> None:
    """Through buffers that hold next to nothing, each byte arrives once, in order."""
    data = {end: random.Random(i).randbytes(1 << 20) for i, end in enumerate(pair)}
    left = {end: memoryview(data[end]) for end in pair}
    received = {end: bytearray() for end in pair}
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)

    while any(left.values()) or any(len(part) < 1 << 20 for part in received.values()):
        for end in pair:
            with contextlib.suppress(BlockingIOError):
                left[end] = left[end][end.send(left[end], DONT_WAIT) :]
            received[end] += take(end) or b""

    server, client = pair
    assert received[server] == data[client]
    assert received[client] == data[server]


def test_threads_send_while_one_reads(
    pair: tuple[SecureSocket, SecureSocket],
) -> None:
    """A thread that waits in ``recv`` is not in the way of others that send."""
    server, client = pair
    client.setblocking(True)
    received = bytearray()

    def read() -> None:
        while len(received) < 200_000:
            received.extend(client.recv(READ_SIZE))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        block = bytes([number]) * 1000
        for end in pair:
            while not _is_sent(end, block):
                select.select([], [end], [], 5.0)
        assert take_all(server, 1000) == block
    reader.join(10)

    assert received == b"".join(bytes([number]) * 1000 for number in range(200))


def _is_sent(end: SecureSocket, block: bytes) -> bool:
    try:
        return end.send(block) == len(block)
    except BlockingIOError:
        return False


def test_a_read_leaves_nothing_behind(
    pair: tuple[SecureSocket, SecureSocket],
) -> None:
    """Who reads 64 KiB may sleep on the socket: none of it is decrypted already."""
    server, client = pair
    chance = random.Random(7)
    sent = received = 0
    for _ in range(100):
        while client.flush() and not client.pending:
            with contextlib.suppress(BlockingIOError):
                sent += client.send(bytes(chance.choice([1, 100, 16000, 40000])))
        data = take(server) or b""
        assert len(data) <= READ_SIZE
        assert not server.has_plaintext
        received += len(data)
    assert received > 100 * 30_000
    assert sent - received < 1 << 20


def test_what_a_small_read_leaves_is_told(
    pair: tuple[SecureSocket, SecureSocket],
) -> None:
    """Though the socket itself is empty."""
    server, client = pair
    client.send(bytes(range(200)))
    room = bytearray(50)

    assert server.recv_into(memoryview(room)) == 50
    assert room == bytes(range(50))
    assert not select.select([server], [], [], 0)[0]
    assert server.has_plaintext
    assert server.recv_into(room, 30) == 30
    assert room[:30] == bytes(range(50, 80))
    assert server.recv(1000) == bytes(range(80, 200))
    assert take(server) is None
    assert (server.has_plaintext, client.has_plaintext) == (False, False)


def test_a_read_of_nothing(pair: tuple[SecureSocket, SecureSocket]) -> None:
    """It returns nothing, and loses nothing."""
    server, client = pair
    client.send(b"something")

    assert server.recv(0) == b""
    assert server.recv(9) == b"something"


@pytest.mark.skipif(not DONT_WAIT, reason="this system has no such flag")
def test_a_blocking_read_waits(pair: tuple[SecureSocket, SecureSocket]) -> None:
    """Until there is plaintext, or for the patience of the socket; a flag says no."""
    server, client = pair
    client.setblocking(True)
    with pytest.raises(BlockingIOError):
        client.recv(10, DONT_WAIT)
    client.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50_000)
    )
    with pytest.raises(BlockingIOError):
        client.recv(10)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
    with threading_call(client.recv, 10) as answer:
        server.send(b"late")

    assert answer == [b"late"]


@contextlib.contextmanager
def threading_call(function: Callable[..., Any], *args: Any) -> Iterator[list[Any]]:
    """Call a function in a thread meanwhile; what it returned or raised."""
    answer: list[Any] = []

    def work() -> None:
        try:
            answer.append(function(*args))
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    yield answer
    thread.join(10)
    assert answer, "it is still at it"


@pytest.mark.skipif(not DONT_WAIT, reason="this system has no such flag")
def test_a_blocking_read_shakes_hands(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """A first read without a flag waits for the handshake and then for plaintext."""
    one, other = connect()
    near, far = server.wrap(one), client.wrap(other, ADDRESS)
    far.setblocking(True)

    with threading_call(far.recv, 10) as answer:
        near.handshake(5.0)
        near.send(b"welcome")

    assert answer == [b"welcome"]


# --- the end ---------------------------------------------------------------------


def test_a_goodbye_ends_the_stream(pair: tuple[SecureSocket, SecureSocket]) -> None:
    """What was sent before it is read first; the other direction goes on."""
    server, client = pair
    client.send(b"last words")
    client.shutdown(socket.SHUT_WR)

    assert server.recv(1000) == b"last words"
    assert server.recv(1000) == b""
    assert server.recv(1000) == b""
    assert not server.has_plaintext
    server.send(b"answer")
    assert client.recv(1000) == b"answer"
    server.shutdown(socket.SHUT_RDWR)
    assert client.recv(1000) == b""
    with pytest.raises(BrokenPipeError):
        client.send(b"too late")


def test_the_goodbye_is_one_of_tls(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """Other programs see that nothing was cut off: an alert comes before the end."""
    one, other = connect()
    ends = server.wrap(one), client.wrap(other, ADDRESS)
    shake(*ends)

    ends[1].shutdown(socket.SHUT_WR)

    assert one.recv(1000)[:3] == b"\x17\x03\x03"  # TLS 1.3 encrypts alerts, too
    assert one.recv(1000) == b""


def test_an_end_without_goodbye_is_an_end(
    pair: tuple[SecureSocket, SecureSocket],
) -> None:
    """Closing writes nothing; the other side reads what came, then the end."""
    server, client = pair
    client.send(b"last words")
    client.close()

    assert server.recv(1000) == b"last words"
    assert server.recv(1000) == b""


def test_an_end_amid_a_record(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """Half a record is nothing, whatever is missing of it."""
    one, other = connect()
    ends = server.wrap(one), client.wrap(other, ADDRESS)
    shake(*ends)
    ends[1].send(b"a whole record")
    record = one.recv(1000)
    for cut in (1, 4, 5, 6, len(record) - 1):
        one, other = connect()
        near, far = server.wrap(one), client.wrap(other, ADDRESS)
        shake(near, far)
        far.send(b"a whole record")
        other.close()
        beginning = one.recv(cut)
        relay, end = connect()
        relay.send(beginning)
        relay.close()
        near._sock = end  # what would have come, cut short

        assert near.recv(1000) == b""


def test_a_shutdown_waits_for_what_was_sent(
    pair: tuple[SecureSocket, SecureSocket],
) -> None:
    """Ciphertext that had no room yet leaves before the goodbye."""
    server, client = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.send(b"x" * 65536)
    client.shutdown(socket.SHUT_WR)
    assert client.pending > 0

    received = 0
    while (data := take(server)) != b"":
        received += len(data or b"")
        client.flush()

    assert received == 65536
    assert client.pending == 0


def test_a_shutdown_loses_nothing_that_came(
    pair: tuple[SecureSocket, SecureSocket],
) -> None:
    """What was read from the socket, but not from us, can be read after it."""
    server, client = pair
    client.send(bytes(40_000))
    assert len(server.recv(10)) == 10

    server.shutdown(socket.SHUT_WR)

    assert len(take_all(server, 39_990)) == 39_990
    assert client.recv(10) == b""


def test_a_shutdown_before_the_handshake(
    connect: Callable[[], Pair], server: ServerTls
) -> None:
    """It shuts the socket, there is nothing to say."""
    one, other = connect()

    server.wrap(one).shutdown(socket.SHUT_RDWR)

    assert other.recv(10) == b""


def test_a_forged_record_ends_it(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """What came before it is read, then both sides know, and stay broken."""
    one, other = connect()
    near, far = server.wrap(one), client.wrap(other, ADDRESS)
    shake(near, far)
    far.send(b"honest")
    other.send(b"\x17\x03\x03\x00\x20" + bytes(32))

    assert near.recv(1000) == b"honest"
    assert (near.has_plaintext, far.has_plaintext) == (True, False)
    for _ in range(2):
        with pytest.raises(SecureLinkBroken, match="no valid TLS"):
            near.recv(1000)
    assert not near.has_plaintext
    with pytest.raises(SecureLinkBroken):
        near.send(b"more")
    assert near.pending == 0
    assert near.flush()
    with pytest.raises(SecureLinkBroken, match="the server gave up"):
        far.recv(1000)


def test_a_write_that_openssl_refuses(
    pair: tuple[SecureSocket, SecureSocket],
) -> None:
    """Whatever it has against it, the link is lost and not the program."""
    _, client = pair
    with pytest.raises(ssl.SSLWantReadError):
        client._tls.unwrap()

    for _ in range(2):
        with pytest.raises(SecureLinkBroken, match="PROTOCOL_IS_SHUTDOWN"):
            client.send(b"more")


def test_a_reset_passes_through(pair: tuple[SecureSocket, SecureSocket]) -> None:
    """What the system says of a connection is not changed."""
    server, client = pair
    server.close()

    with pytest.raises(BrokenPipeError):
        client.send(b"anybody?")


# --- interrupts ------------------------------------------------------------------


class Nosy(socket.socket):
    """A socket during whose writes something happens."""

    hook: Callable[[], object] | None = None

    def send(self, data: Any, flags: int = 0, /) -> int:
        sent = super().send(data, flags)
        if self.hook is not None:
            hook, self.hook = self.hook, None
            hook()
        return sent


class Full(socket.socket):
    """A socket that may be told that it has no room."""

    is_full = False

    def send(self, data: Any, flags: int = 0, /) -> int:
        if self.is_full:
            raise BlockingIOError
        return super().send(data, flags)


def _with_nosy(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> tuple[SecureSocket, SecureSocket, Nosy]:
    one, other = connect()
    nosy = Nosy(fileno=other.detach())
    near, far = server.wrap(one), client.wrap(nosy, ADDRESS)
    shake(near, far)
    return near, far, nosy


def test_a_signal_handler_sends_amid_a_send(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """No byte leaves twice, and none is lost."""
    near, far, nosy = _with_nosy(connect, server, client)
    said: list[object] = []

    def handle() -> None:
        said.append(_is_sent(far, b"handler"))

    with nosy:
        nosy.hook = handle
        assert far.send(b"main ") == 5
        assert said == [False]  # as if there were no room, so it will be sent later
        assert far.send(b"handler") == 7

        assert near.recv(1000) == b"main handler"
        assert near.send(b"still whole")
        assert far.recv(100) == b"still whole"


def test_an_interrupt_amid_a_write_breaks_the_link(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """How much has left is unknown, so no byte follows."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    near, far, nosy = _with_nosy(connect, server, client)
    with nosy:
        nosy.hook = interrupt
        with pytest.raises(KeyboardInterrupt):
            far.send(b"one")

        with pytest.raises(SecureLinkBroken, match="interrupted"):
            far.send(b"two")
        with pytest.raises(SecureLinkBroken, match="interrupted"):
            far.recv(10)
        assert near.recv(100) == b"one"


def test_an_error_amid_a_read_breaks_the_link(
    pair: tuple[SecureSocket, SecureSocket],
) -> None:
    """Plaintext that was decrypted and did not arrive is not skipped in silence."""
    server, client = pair
    client.send(b"first")
    client.send(b"second")

    with pytest.raises(TypeError):
        server.recv_into(memoryview(b"read-only"))

    with pytest.raises(SecureLinkBroken, match="interrupted"):
        server.recv(100)


# --- the handshake ---------------------------------------------------------------


class Relay:
    """A wire between two ends that moves as many bytes as it is told, then breaks."""

    def __init__(
        self, connect: Callable[[], Pair], server: ServerTls, client: ClientTls
    ) -> None:
        one, self.to_server = connect()
        other, self.to_client = connect()
        self.server = server.wrap(one)
        self.client = client.wrap(other, ADDRESS)

    def move(self, budget: int, step: int = 65536) -> int:
        """Move up to so many bytes one step on; how many."""
        moved = 0
        for source, target in (
            (self.to_client, self.to_server),
            (self.to_server, self.to_client),
        ):
            with contextlib.suppress(BlockingIOError):
                if budget > moved:
                    moved += target.send(source.recv(min(budget - moved, step)))
        return moved

    def run(self, budget: int, step: int = 65536) -> int:
        """Shake hands until so many bytes have passed, or all; how many did."""
        total = 0
        while True:
            self.client.advance()
            self.server.advance()
            moved = self.move(budget - total, step)
            total += moved
            if not moved:
                return total

    def cut(self) -> None:
        """Close everything, on both sides."""
        for sock in (self.to_server, self.to_client):
            sock.close()
        for end in (self.server, self.client):
            end.close()


def test_a_handshake_cut_at_every_byte(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """Both sides notice, neither hangs, and none takes it for a connection."""
    whole = Relay(connect, server, client)
    total = whole.run(10**6)
    assert whole.server.is_established
    assert whole.client.is_established

    # The size of a signature differs by a few bytes from one to the next.
    for cut in range(total - 10):
        relay = Relay(connect, server, client)
        assert relay.run(cut) == cut
        assert not relay.server.is_established
        relay.to_server.close()
        relay.to_client.close()
        with pytest.raises(SecureLinkBroken, match="client went away"):
            relay.server.recv(10)
        if relay.client.is_established:
            # Where it sent what nobody read, the system calls the end a reset.
            with contextlib.suppress(ConnectionResetError):
                assert relay.client.recv(10) == b""
        else:
            with pytest.raises(SecureLinkBroken, match="server ended the connection"):
                relay.client.recv(10)
        relay.cut()


def test_byte_by_byte(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """The handshake and what follows arrive in the smallest pieces there are."""
    relay = Relay(connect, server, client)
    relay.run(10**6, 1)
    data = random.Random(3).randbytes(1000)
    received = {relay.server: b"", relay.client: b""}

    for byte in data:
        for end in received:
            assert end.send(bytes([byte])) == 1
        while relay.move(10**6, 1):
            for end in received:
                received[end] += take(end, 1) or b""

    assert set(received.values()) == {data}


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)
def test_every_version_that_is_safe(
    connect: Callable[[], Pair],
    files: Files,
    server: ServerTls,
    version: ssl.TLSVersion,
) -> None:
    """TLS 1.2 and 1.3 are spoken, with an ``SSLContext`` of the user's, too."""
    context = ssl.create_default_context(cafile=files.ca)
    context.minimum_version = context.maximum_version = version
    one, other = connect()
    near = server.wrap(one)
    far = make_client(context).wrap(other, ADDRESS)
    shake(near, far)

    far.send(b"hello")
    far.shutdown(socket.SHUT_WR)

    assert near.recv(10) == b"hello"
    assert near.recv(10) == b""
    near.shutdown(socket.SHUT_WR)
    assert far.recv(10) == b""


def test_old_versions_are_refused(
    connect: Callable[[], Pair], server: ServerTls
) -> None:
    """TLS 1.1 is not spoken, and both sides are told."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and that is the point
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    one, other = connect()
    far = SecureSocket(other, context, is_server=False)
    if "NO_PROTOCOLS" in str(_failure(far)):
        pytest.skip("this OpenSSL has no TLS 1.1")

    near_text, far_text = fail(server.wrap(one), far)

    assert near_text.startswith("the client speaks no version or cipher of TLS")
    assert far_text.startswith("the server speaks no version of TLS")


def _failure(end: SecureSocket) -> SecureLinkBroken | None:
    try:
        end.advance()
    except SecureLinkBroken as error:
        return error
    return None


def test_tickets_of_other_servers(connect: Callable[[], Pair], files: Files) -> None:
    """What such a server sends after the handshake is no plaintext."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server["cert"], files.server["key"])
    context.num_tickets = 4
    one, other = connect()
    near = server_context(context).wrap(one)
    far = make_client({"ca": files.ca}).wrap(other, ADDRESS)
    shake(near, far)

    assert take(far) is None
    assert not far.has_plaintext
    near.send(b"after them")
    assert far.recv(100) == b"after them"


def test_ours_give_no_tickets(connect: Callable[[], Pair], server: ServerTls) -> None:
    """Every connection shows its certificate anew."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    one, other = connect()
    near, far = server.wrap(one), SecureSocket(other, context, is_server=False)
    shake(near, far)
    near.send(b"x")

    assert far.recv(10) == b"x"
    assert far._tls.session is not None
    assert not far._tls.session.has_ticket


def test_many_handshakes_at_once(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """200 of them, in one thread, none of which waits for another."""
    ends = []
    for _ in range(200):
        one, other = connect()
        ends += [client.wrap(other, ADDRESS), server.wrap(one)]
    began = time.monotonic()

    shake(*ends)

    assert time.monotonic() - began < 8.0


def test_a_handshake_that_waits(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """It returns when the other side has done its part."""
    one, other = connect()
    near, far = server.wrap(one), client.wrap(other, ADDRESS)

    with threading_call(near.handshake, 5.0) as answer:
        far.handshake(5.0)

    assert answer == [None]
    assert far.is_established
    assert far.pending == 0


def test_a_handshake_is_over_when_our_half_has_left(
    connect: Callable[[], Pair], server: ServerTls, client: ClientTls
) -> None:
    """Who then waits for the first answer does not wait in vain."""
    one, other = connect()
    with Full(fileno=other.detach()) as sock:
        near, far = server.wrap(one), client.wrap(sock, ADDRESS)
        assert not far.advance()
        assert not near.advance()
        sock.is_full = True
        with pytest.raises(TimeoutError):
            far.handshake(0.05)
        assert far.pending > 0

        sock.is_full = False
        far.handshake(5.0)

        assert far.pending == 0
        assert near.advance()


def test_a_handshake_that_waits_in_vain(
    connect: Callable[[], Pair], client: ClientTls
) -> None:
    """It gives up in time."""
    _, other = connect()
    began = time.monotonic()

    with pytest.raises(TimeoutError, match=r"no TLS handshake within 0\.1 s"):
        client.wrap(other, ADDRESS).handshake(0.1)

    assert 0.1 <= time.monotonic() - began < 3.0


def test_a_handshake_that_fails(connect: Callable[[], Pair], client: ClientTls) -> None:
    """It says so at once."""
    one, other = connect()
    one.send(b"hello, who is there?")

    with pytest.raises(SecureLinkBroken, match="does not speak TLS"):
        client.wrap(other, ADDRESS).handshake(5.0)


# --- who is refused --------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"not_after": NOW - DAY, "not_before": NOW - 2 * DAY}, "has expired"),
        ({"not_before": NOW + DAY, "not_after": NOW + 2 * DAY}, "is not valid yet"),
    ],
    ids=["expired", "not yet valid"],
)
@pytest.mark.parametrize("of", ["server", "client"])
def test_a_certificate_out_of_its_time(
    connect: Callable[[], Pair], files: Files, more: dict[str, Any], text: str, of: str
) -> None:
    """It is refused, of a server and of a client, and the reason is named."""
    stale = files.issue("stale", files.authority, "localhost", **more)
    if of == "server":
        near = server_context(stale)
        far = make_client({"ca": files.ca})
    else:
        near = server_context({**files.server, "ca": files.ca})
        far = make_client({"ca": files.ca, **stale})
    one, other = connect()

    near_text, far_text = fail(near.wrap(one), far.wrap(other, ADDRESS))

    said, heard = (far_text, near_text) if of == "server" else (near_text, far_text)
    assert said.startswith(f"the certificate of the {of} {text}")
    assert "certificate of this side" in heard


def test_a_server_of_another_authority(
    connect: Callable[[], Pair], files: Files, server: ServerTls
) -> None:
    """It is refused, and so is one that only the system's authorities could name."""
    for option in ({"ca": files.strange_ca}, True):
        one, other = connect()

        near_text, far_text = fail(
            server.wrap(one), make_client(option).wrap(other, ADDRESS)
        )

        assert "the server comes from an authority not trusted here" in far_text
        assert '{"ca": ...}' in far_text
        assert near_text.startswith("the client does not trust the authority")


@pytest.mark.parametrize(
    ("host", "text"), [("example.org", "another host name"), ("10.0.0.1", "address")]
)
def test_a_server_of_another_name(
    connect: Callable[[], Pair], files: Files, server: ServerTls, host: str, text: str
) -> None:
    """It is refused, and the text says what to do; ``hostname`` is one way."""
    one, other = connect()
    far = make_client({"ca": files.ca}, host)

    near_text, far_text = fail(server.wrap(one), far.wrap(other, ADDRESS))

    assert "the server is for another" in far_text
    assert text in far_text
    assert '{"hostname": ...}' in far_text
    assert near_text.startswith("the client does not accept the certificate")
    one, other = connect()
    far = make_client({"ca": files.ca, "hostname": "localhost"}, host)
    shake(server.wrap(one), far.wrap(other, ADDRESS))


def test_a_server_that_signed_itself(connect: Callable[[], Pair], home: Path) -> None:
    """It is refused where nobody said to trust it, and the text says how to."""
    one, other = connect()

    _, text = fail(
        server_context("auto").wrap(one), make_client(True).wrap(other, ADDRESS)
    )

    assert "is signed by itself only" in text
    assert 'tls="auto"' in text


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_client_without_certificate(
    connect: Callable[[], Pair], files: Files, client: ClientTls, version: str
) -> None:
    """A server with ``ca`` refuses it, and the client hears why."""
    near = server_context({**files.server, "ca": files.ca})
    if version == "1.2":
        context = ssl.create_default_context(cafile=files.ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        client = make_client(context)
    one, other = connect()

    near_text, far_text = fail(near.wrap(one), client.wrap(other, ADDRESS))

    assert near_text == "the client has no certificate, and the server wants one"
    assert "wants a certificate" in far_text


def test_a_client_hears_why_though_the_server_is_gone(
    files: Files, client: ClientTls
) -> None:
    """The server closes at once, and the client was about to say more."""
    near = server_context({**files.server, "ca": files.ca})
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as other,
    ):
        one, _ = listener.accept()
        one.setblocking(False)
        end, far = near.wrap(one), client.wrap(other, ADDRESS)
        with threading_call(end.handshake, 5.0) as answer:
            far.handshake(5.0)
        assert isinstance(answer[0], SecureLinkBroken)
        end.close()
        far.send(b"hello")

        with pytest.raises(SecureLinkBroken, match="the server wants a certificate"):
            far.recv(100)


def test_a_client_of_another_authority(
    connect: Callable[[], Pair], files: Files
) -> None:
    """It is refused."""
    near = server_context({**files.server, "ca": files.ca})
    other_client = files.issue("other", files.stranger, "anna@example.org")
    one, other = connect()

    near_text, far_text = fail(
        near.wrap(one), make_client({"ca": files.ca, **other_client}).wrap(other, "x:1")
    )

    assert near_text.startswith("the certificate of the client comes from an authority")
    assert far_text.startswith("the server does not trust the authority")


def test_a_client_with_a_certificate_for_servers(
    connect: Callable[[], Pair], files: Files
) -> None:
    """It is refused: whoever has a server's key is not a client for that."""
    near = server_context({**files.server, "ca": files.ca})
    far = make_client({"ca": files.ca, **files.issue_for_servers_only()})
    one, other = connect()

    near_text, far_text = fail(near.wrap(one), far.wrap(other, ADDRESS))

    assert "the client is not made for this side of a connection" in near_text
    assert far_text.startswith("the server has no use for the kind of certificate")


def test_a_client_is_known_by_its_certificate(
    connect: Callable[[], Pair], files: Files
) -> None:
    """The server has every name in it, once an authority vouched for them."""
    near = server_context({**files.server, "ca": files.ca})
    mine = files.issue(
        "many", files.authority, "a.example", "127.0.0.1", "b@example", common_name="B"
    )
    one, other = connect()
    ends = near.wrap(one), make_client({"ca": files.ca, **mine}).wrap(other, ADDRESS)
    assert not ends[0].peer_names

    shake(*ends)

    assert set(ends[0].peer_names[:-1]) == {"a.example", "127.0.0.1", "b@example"}
    assert ends[0].peer_names[-1] == "B"
    assert ends[0].peer_certificate is not None
    assert ends[1].peer_names[0] == "localhost"


@pytest.mark.parametrize(
    "hello", [b"$KEEPALIVE$", b"\x00\x00\x00\x10", b"GET / HTTP/1.1\r\n\r\n", b"\x80"]
)
def test_plaintext_is_refused_by_a_server(
    connect: Callable[[], Pair], server: ServerTls, hello: bytes
) -> None:
    """From the first byte on, with an alert that says what is spoken here."""
    one, other = connect()
    near = server.wrap(one)
    other.send(hello[:1])

    with pytest.raises(SecureLinkBroken, match="the client does not speak TLS"):
        near.recv(100)

    near.close()
    assert other.recv(100) == b"\x15\x03\x01\x00\x02\x02\x46"
    assert other.recv(100) == b""


def test_a_client_never_falls_back(
    connect: Callable[[], Pair], client: ClientTls
) -> None:
    """A server that answers in plaintext, or hangs up, gets no plaintext back."""
    for answer in (b"hisock", b""):
        one, other = connect()
        far = client.wrap(other, ADDRESS)
        assert take(far) is None
        assert one.recv(1)[0] == 22
        one.recv(4096)
        one.send(answer)
        one.shutdown(socket.SHUT_WR)

        with pytest.raises(SecureLinkBroken, match="drop tls= here or set it there"):
            far.recv(100)
        with pytest.raises(SecureLinkBroken):
            far.send(b"secret")
        assert b"secret" not in (_read(one) or b"")


def _read(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(4096)
    except BlockingIOError:
        return None


def test_a_connection_reset_in_the_handshake(client: ClientTls) -> None:
    """It is told like any other end of it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sock,
    ):
        sock.setblocking(False)
        far = client.wrap(sock, ADDRESS)
        assert not far.advance()
        accepted, _ = listener.accept()
        reset = struct.pack("ii", 1, 0)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        accepted.close()

        with pytest.raises(SecureLinkBroken, match="server ended the connection"):
            far.handshake(5.0)


# --- ALPN ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "spoken"),
    [
        (["http/1.1"], "http/1.1"),
        (["h2", "http/1.1"], "http/1.1"),
        (["hisock/2"], "hisock/2"),
        ([], None),
    ],
)
def test_what_is_spoken_inside(
    connect: Callable[[], Pair],
    files: Files,
    server: ServerTls,
    offer: list[str],
    spoken: str | None,
) -> None:
    """A browser speaks HTTP, a hisock client hisock; who offers nothing may come in."""
    context = ssl.create_default_context(cafile=files.ca)
    if offer:
        context.set_alpn_protocols(offer)
    one, other = connect()
    near = server.wrap(one)
    far = SecureSocket(other, context, is_server=False, hostname="localhost")

    shake(near, far)

    assert near.alpn() == far.alpn() == spoken


@pytest.mark.parametrize("step", [1, 65536])
def test_who_means_another_protocol_is_refused(
    connect: Callable[[], Pair], files: Files, server: ServerTls, step: int
) -> None:
    """Bytes meant for an FTP or mail server are not taken for ours (ALPACA)."""
    context = ssl.create_default_context(cafile=files.ca)
    context.set_alpn_protocols(["ftp", "imap"])
    one, relay = connect()
    near = server.wrap(one)
    to, other = connect()
    far = SecureSocket(other, context, is_server=False, hostname="localhost")
    assert take(far) is None

    def pass_on() -> None:
        while True:
            relay.send(to.recv(step))
            assert take(near) is None

    with pytest.raises(SecureLinkBroken, match=r"b'ftp', b'imap'.*hisock/2"):
        pass_on()
    to.send(relay.recv(100))

    with pytest.raises(SecureLinkBroken, match="not hisock inside it"):
        far.recv(100)


def test_a_greeting_that_is_no_tls_inside() -> None:
    """Whatever the bytes are, reading what they offer raises nothing and ends."""
    chance = random.Random(11)
    for size in range(300):
        junk = bytearray(chance.randbytes(size))
        if chance.random() < 0.8:
            junk[:6] = b"\x16\x03\x01" + struct.pack(">H", max(size, 5) - 5) + b"\x01"
            junk[6:9] = struct.pack(">I", max(size, 9) - 9)[1:]
        offered_protocols(bytes(junk))

    assert offered_protocols(b"") is None
    assert offered_protocols(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00") == ()
    assert offered_protocols(b"\x17\x03\x01\x00\x01\x00") == ()


def test_a_greeting_in_many_records(server: ServerTls, client: ClientTls) -> None:
    """The offer is found though the hello is cut into records as small as they get."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        assert take(client.wrap(one, ADDRESS)) is None
        hello = other.recv(4096)[5:]
    records = b"".join(b"\x16\x03\x01\x00\x01" + hello[i : i + 1] for i in range(600))
    whole = b"".join(
        b"\x16\x03\x01\x00\x01" + hello[i : i + 1] for i in range(len(hello))
    )

    assert offered_protocols(whole) == (b"hisock/2",)
    assert len(hello) < 600 or offered_protocols(records) is None
    assert offered_protocols(whole[:-1]) is None


# --- fingerprints and pins -------------------------------------------------------


def _fingerprint(files: Files) -> str:
    pem = Path(files.server["cert"]).read_text()
    end = pem.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
    return certificates.fingerprint(ssl.PEM_cert_to_DER_cert(pem[:end]))


def test_a_server_with_the_right_fingerprint(
    connect: Callable[[], Pair], files: Files, server: ServerTls
) -> None:
    """It may be signed by anybody and called anything."""
    assert server.fingerprint == _fingerprint(files)
    one, other = connect()
    far = make_client({"fingerprint": server.fingerprint}, "elsewhere")

    shake(server.wrap(one), far.wrap(other, ADDRESS))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_server_with_another_fingerprint(
    connect: Callable[[], Pair], files: Files, version: str
) -> None:
    """It never gets our half of the handshake, nor a byte of plaintext."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server["cert"], files.server["key"])
    if version == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    near = server_context(context)
    assert near.fingerprint is None
    wrong = "SHA256:" + "A" * 43
    far = make_client({"fingerprint": wrong, "ca": files.ca})
    one, other = connect()
    ends = near.wrap(one), far.wrap(other, ADDRESS)

    near_text, far_text = fail(*ends)

    assert far_text.startswith("the fingerprint of the server is SHA256:")
    assert not ends[1].is_established
    assert near_text
    if version == "1.3":
        assert not ends[0].is_established
        assert near_text.startswith("the client does not accept the certificate")
    with pytest.raises(SecureLinkBroken) as caught:
        ends[1].recv(10)
    error = caught.value.error
    assert isinstance(error, CertificateChanged)
    assert caught.value.__cause__ is error
    assert (error.old, error.new) == (wrong, _fingerprint(files))


def test_the_authority_counts_beside_a_fingerprint(
    connect: Callable[[], Pair], files: Files, server: ServerTls
) -> None:
    """Who gives both wants both."""
    far = make_client({"fingerprint": server.fingerprint, "ca": files.strange_ca})
    one, other = connect()

    _, text = fail(server.wrap(one), far.wrap(other, ADDRESS))

    assert "authority not trusted here" in text


def test_a_server_is_known_from_the_first_time_on(
    connect: Callable[[], Pair], files: Files, server: ServerTls, home: Path
) -> None:
    """``"auto"`` keeps its fingerprint, wants it again, and refuses another."""
    far = make_client("auto")
    for _ in range(2):
        one, other = connect()
        shake(server.wrap(one), far.wrap(other, ADDRESS))
    pins = home / "known_servers"
    assert pins.read_text() == f"localhost:6969 {server.fingerprint}\n"

    impostor = server_context(files.issue("impostor", files.authority, "localhost"))
    one, other = connect()
    end = far.wrap(other, ADDRESS)
    with (
        threading_call(impostor.wrap(one).handshake, 5.0) as answer,
        pytest.raises(CertificateChanged) as caught,
    ):
        end.handshake(5.0)

    assert (caught.value.old, caught.value.new, caught.value.file) == (
        server.fingerprint,
        impostor.fingerprint,
        str(pins),
    )
    assert "delete line 1 of" in str(caught.value)
    assert isinstance(answer[0], SecureLinkBroken)
    one, other = connect()
    shake(impostor.wrap(one), far.wrap(other, ("localhost", 7000)))  # another server


def test_a_pin_that_cannot_be_kept(
    connect: Callable[[], Pair], server: ServerTls, home: Path
) -> None:
    """Who could not notice a change the next time does not go on now."""
    home.write_text("a file where the folder should be")
    one, other = connect()

    near_text, far_text = fail(
        server.wrap(one), make_client("auto").wrap(other, ADDRESS)
    )

    assert far_text.startswith("the pin of the server cannot be kept")
    assert near_text.startswith("the client does not accept")


def test_auto_with_auto(connect: Callable[[], Pair], home: Path) -> None:
    """A server that makes its own certificate, and a client that keeps its pin."""
    near = server_context("auto")
    one, other = connect()
    ends = near.wrap(one), make_client("auto").wrap(other, "unix:/somewhere")
    shake(*ends)

    ends[0].send(b"welcome")

    assert ends[1].recv(10) == b"welcome"
    assert ends[1].peer_certificate is None
    assert certificates.look_up_pin("unix:/somewhere") == near.fingerprint


# --- a new certificate -----------------------------------------------------------


def _shown(near: ServerTls, connect: Callable[[], Pair], now: float) -> str | None:
    """The fingerprint that a connection which comes now is shown."""
    one, other = connect()
    seen: list[str] = []

    def check(der: bytes) -> None:
        seen.append(certificates.fingerprint(der))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    shake(
        near.wrap(one, now), SecureSocket(other, context, is_server=False, check=check)
    )
    return seen[0]


def test_a_certificate_is_renewed_while_the_server_runs(
    connect: Callable[[], Pair], files: Files
) -> None:
    """New connections see it, within a second; those that are there go on."""
    mine = files.issue("renewed", files.authority, "localhost")
    near = server_context(mine)
    first = near.fingerprint
    one, other = connect()
    old = near.wrap(one, 100.0), make_client({"ca": files.ca}).wrap(other, ADDRESS)
    shake(*old)

    files.issue("renewed", files.authority, "localhost")

    assert _shown(near, connect, 100.9) == first
    second = _shown(near, connect, 101.1)
    assert second == near.fingerprint != first
    old[0].send(b"goes on")
    assert old[1].recv(100) == b"goes on"


@pytest.mark.parametrize("option", [None, False])
def test_a_client_without_tls(option: object) -> None:
    """It does not encrypt, and costs nothing."""
    assert client_context(option, "localhost") is None


# --- another program on the other side -------------------------------------------

openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here")


class Stranger:
    """``openssl s_client``, connected to a server of ours."""

    def __init__(self, server: ServerTls, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            where = f"127.0.0.1:{listener.getsockname()[1]}"
            self.process = subprocess.Popen(
                ["openssl", "s_client", "-connect", where, *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            accepted, _ = listener.accept()
        self.sock = Full(fileno=accepted.detach())
        self.sock.setblocking(False)
        self.near = server.wrap(self.sock)

    def type(self, text: bytes, until: bytes = b"") -> None:
        """Let it hear what a user types, and wait for what it says to that."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()
        while until not in self.process.stdout.readline():
            pass

    def __enter__(self) -> Stranger:
        self.near.handshake(5.0)
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        self.process.communicate(timeout=5)


@openssl
def test_keys_change_meanwhile(server: ServerTls) -> None:
    """TLS 1.3 lets a peer ask for new keys; plaintext goes on in both directions."""
    with Stranger(server, "-tls1_3") as stranger:
        for number in range(3):
            stranger.type(b"K\n", b"KEYUPDATE")  # new keys, and please yours, too
            stranger.near.send(b"heard\n")
            stranger.type(b"line %d\n" % number, b"heard")
            assert take_all(stranger.near, 7) == b"line %d\n" % number


@openssl
def test_who_asks_without_end_is_cut(
    server: ServerTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusals that nobody reads do not pile up."""
    monkeypatch.setattr(tls, "_MOST_PENDING", 10)
    with Stranger(server, "-tls1_2") as stranger:
        stranger.sock.is_full = True
        stranger.type(b"R\n", b"RENEGOTIATING")

        with pytest.raises(SecureLinkBroken, match="reads no answer"):
            take_all(stranger.near, 1)
        assert stranger.near.pending == 0


@openssl
def test_nobody_renegotiates(server: ServerTls) -> None:
    """Of TLS 1.2 a client may ask for it, and is refused."""
    with Stranger(server, "-tls1_2") as stranger:
        stranger.type(b"R\n", b"RENEGOTIATING")
        with contextlib.suppress(SecureLinkBroken):
            while take(stranger.near) is None:
                select.select([stranger.near], [], [], 5.0)
        stranger.near.close()
        assert stranger.process.stdout is not None
        assert b"no renegotiation" in stranger.process.stdout.read()


# --- what it costs those who do not use it ---------------------------------------


def test_nobody_else_imports_ssl() -> None:
    """``import hisock.client`` and a server without ``tls=`` do without."""
    program = (
        "import sys, hisock.client, hisock.server; "
        "print({'ssl', 'hisock.engine.tls'} & set(sys.modules))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"
