"""TLS around a socket: ``server_context`` and ``client_context`` read the user's
``tls=``, and their ``wrap`` makes of a connected socket one that encrypts.

It must never wait (but in ``handshake``), never fall back to plaintext, and never know
what the plaintext means. Nobody without ``tls=`` imports it: ``ssl`` costs 10 ms.
"""

from __future__ import annotations

__all__ = (
    "ClientTls",
    "SecureLinkBroken",
    "SecureSocket",
    "ServerTls",
    "offered_protocols",
    "client_context",
    "server_context",
)

import errno
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from hisock.engine import certificates
from hisock.engine.certificates import Source, explain
from hisock.engine.link import DONT_WAIT
from hisock.engine.waiting import Waiter
from hisock.errors import HiSockError, NotSecure

#: The plaintext of one TLS record (RFC 8446 §5.1).
_RECORD: Final = 16 * 1024
#: Bytes that one call reads or encrypts at most.
_AT_ONCE: Final = 64 * 1024
#: Ciphertext that may wait for a peer that asks OpenSSL for this and that (in TLS 1.2
#: to renegotiate), but does not read what it answers.
_MOST_PENDING: Final = 256 * 1024
#: Bytes in which the ClientHello has to say which protocols it means; most need 2,000.
_GREETING: Final = 17 * 1024
#: What a server speaks inside TLS; a client of ours offers the first.
PROTOCOLS: Final = ("hisock/2", "http/1.1")

#: The first byte of a TLS record: a handshake's, an alert's.
_HANDSHAKE: Final = 22
_ALERT: Final = 21
#: Alerts that OpenSSL has no call for (RFC 8446 §6.2).
_PROTOCOL_VERSION: Final = b"\x15\x03\x01\x00\x02\x02\x46"
_NO_APPLICATION_PROTOCOL: Final = b"\x15\x03\x03\x00\x02\x02\x78"
_CERTIFICATE_UNKNOWN: Final = b"\x15\x03\x03\x00\x02\x02\x2e"

#: What went wrong for a client, and for a server.
_PLAINTEXT: Final = (
    "the server does not speak TLS; drop tls= here or set it there",
    "the client does not speak TLS; give it tls=, or drop tls= here",
)
_CUT: Final = (
    "the server ended the connection in the middle of the TLS handshake; if it does "
    "not speak TLS, drop tls= here or set it there",
    "the client went away in the middle of the TLS handshake",
)


class SecureLinkBroken(ConnectionError):
    """The handshake failed, or the bytes of the peer are no TLS.

    Attributes:
        error: What to raise to the user instead, if there is something better.
    """

    def __init__(self, text: str, error: HiSockError | None = None) -> None:
        super().__init__(text)
        self.error = error


class SecureSocket:
    """A connected socket that encrypts: what ``socket`` has, as far as hisock uses it.

    One thread may read while others write. It has no ``sendmsg``.

    Args:
        sock: The connected socket; blocking or not, but without a time-out.
        context: What OpenSSL is to do.
        is_server: Which side this is.
        hostname: Whom a client expects there.
        check: Called by a client with the certificate of the server, before a byte of
            plaintext passes; what it returns ends the link.
    """

    #: As of an ``UpgradedSocket``; of TLS that is not known.
    is_quiet: Final = False

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        is_server: bool,
        hostname: str | None = None,
        check: Callable[[bytes], HiSockError | None] | None = None,
    ) -> None:
        self._sock = sock
        self._is_server = is_server
        self._check = check
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, is_server, hostname
        )
        # OpenSSL's objects are for one thread at a time. Reentrant, for a signal
        # handler may send while its thread is in here.
        self._lock = threading.RLock()
        self._is_established = False
        #: What came first, until it is known whether that is TLS, and for us.
        self._greeting: bytearray | None = bytearray()
        #: Ciphertext that was read and not yet decrypted; empty between two calls.
        self._taken: list[bytes] = []
        #: Ciphertext that the kernel did not take.
        self._rest = memoryview(b"")
        self._is_writing = False
        self._is_torn = False
        self._eof = False
        self._failure: SecureLinkBroken | None = None
        self._is_told = False
        self._is_shut = False
        self._is_ending = False
        self.family: int = sock.family
        self.fileno = sock.fileno
        self.getpeername = sock.getpeername
        self.getsockname = sock.getsockname
        self.setsockopt = sock.setsockopt
        self.setblocking = sock.setblocking
        self.getblocking = sock.getblocking
        # It writes nothing: after a fork another process may go on with this
        # connection, and one record of ours would break it.
        self.close = sock.close

    def shutdown(self, how: int) -> None:
        """Say that no more comes, once everything has left, and shut the socket."""
        with self._lock:
            if how != socket.SHUT_RD and self._is_established and not self._failure:
                # ``unwrap`` would throw away what has come and was not read.
                if not self.has_plaintext:
                    with suppress(ssl.SSLError):  # the peer has not said it, too
                        self._tls.unwrap()
                self._is_shut = True
                self._flush_quietly()
                if self.pending and how == socket.SHUT_WR:
                    self._is_ending = True  # ``flush`` does it, once there is room
                    return
            self._sock.shutdown(how)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Decrypted bytes, at most ``size``; none at the end.

        Raises:
            BlockingIOError: There are none yet.
            SecureLinkBroken: There never will be.
        """
        data = self._receive(size, flags)
        self._is_torn = False  # and no call from here on
        return data

    def recv_into(
        self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0
    ) -> int:
        """As ``recv``, into a buffer; how many there were."""
        with memoryview(buffer) as room:
            data = self._receive(nbytes or len(room), flags)
            count = len(data)
            room[:count] = data
        self._is_torn = False
        return count

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """Encrypt as much as leaves at once, but at most 64 KiB; how many bytes.

        Never waits, whatever the flags. What the kernel does not take of the last
        piece is ``pending`` afterwards.

        Raises:
            BlockingIOError: No byte was taken: there is no room, or no handshake yet.
            SecureLinkBroken: None ever will be.
        """
        with self._lock:
            if self._failure or not self._is_established:
                self.advance()
            if not (self._is_established and (not self.pending or self.flush())):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            if self._is_shut:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            if not data:
                return 0
            if len(data) > _AT_ONCE:
                data = memoryview(data)[:_AT_ONCE]
            try:
                sent = self._tls.write(data)
            except ssl.SSLError as error:
                raise self._fail(explain(error, self._is_server)) from error
            self.flush()
            return sent

    @property
    def is_established(self) -> bool:
        """Whether the handshake is complete, and the peer is who it should be."""
        return self._is_established

    @property
    def pending(self) -> int:
        """Bytes of ciphertext that wait for room: watch for writing, call ``flush``."""
        return 0 if self._failure else len(self._rest) + self._outgoing.pending

    @property
    def has_plaintext(self) -> bool:
        """Whether ``recv`` has something to tell though the socket may stay silent."""
        if not self._is_established:
            return False
        if self._eof or self._failure:
            return not self._is_told
        return bool(self._taken or self._incoming.pending or self._tls.pending())

    def alpn(self) -> str | None:
        """The protocol that both sides agreed on in the handshake."""
        return self._tls.selected_alpn_protocol()

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """What the peer's certificate says; ``None`` unless an authority vouched."""
        if not self._is_established:
            return None
        return self._tls.getpeercert() or None

    @property
    def peer_names(self) -> tuple[str, ...]:
        """Every name in that certificate: hosts, addresses, URIs, e-mail; the common
        name last."""
        certificate = self.peer_certificate or {}
        names = [
            value
            for kind, value in certificate.get("subjectAltName", ())
            if kind in ("DNS", "IP Address", "URI", "email")
        ]
        for part in certificate.get("subject", ()):
            names += [value for kind, value in part if kind == "commonName"]
        return tuple(dict.fromkeys(names))

    def handshake(self, timeout: float) -> None:
        """Wait for the handshake, and until our half of it has left.

        Raises:
            HiSockError: ``SecureLinkBroken.error``, where there is one.
            SecureLinkBroken: It failed.
            TimeoutError: It took longer.
        """
        end = time.monotonic() + timeout
        waiter = Waiter(self._sock)
        try:
            while not (self.advance() and self.flush()):
                left = end - time.monotonic()
                if left <= 0 or not waiter.wait(left, self.pending > 0):
                    raise TimeoutError(f"no TLS handshake within {timeout:g} s")
        except SecureLinkBroken as broken:
            if broken.error is not None:
                raise broken.error from broken.__cause__
            raise

    def advance(self) -> bool:
        """Take the handshake as far as it goes without waiting; whether it is complete.

        Raises:
            SecureLinkBroken: It failed.
        """
        with suppress(BlockingIOError, InterruptedError), self._lock:
            while not self._shake():
                self._listen(DONT_WAIT)
        return self._is_established

    def flush(self) -> bool:
        """Write the ciphertext that waits for room; whether all of it has left."""
        with self._lock:
            if self._is_writing:  # a signal handler's send, amid this very function
                return False
            self._is_writing = True
            try:
                is_empty = self._failure is not None or self._write()
            except OSError:
                raise
            except BaseException:
                # How much of a record has left is unknown, so no byte may follow.
                self._fail("interrupted in the middle of a record")
                raise
            finally:
                self._is_writing = False
            if is_empty and self._is_ending:
                self._is_ending = False
                self._sock.shutdown(socket.SHUT_WR)
            return is_empty

    def _shake(self) -> bool:
        """Take one step of the handshake; whether it is complete. Under the lock."""
        if self._failure is not None:
            self._is_told = True
            raise self._failure.with_traceback(None)
        if self._is_established:
            return True
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush_quietly()
            return False
        except ssl.SSLError as error:
            raise self._fail(explain(error, self._is_server)) from error
        self._verify()
        self._is_established = True
        self._flush_quietly()
        return True

    def _listen(self, flags: int) -> None:
        """Read what the peer has to say in the handshake."""
        try:
            data = self._sock.recv(_RECORD, flags)
        except ConnectionError as error:
            raise self._fail(_CUT[self._is_server]) from error
        with self._lock:
            if not data:
                raise self._fail(_CUT[self._is_server])
            if self._greeting is not None:
                self._look_at(self._greeting, data)
            self._incoming.write(data)

    def _look_at(self, greeting: bytearray, data: bytes) -> None:
        """See whether the first bytes are TLS at all, and for us."""
        greeting += data
        first = greeting[0]
        if first != _HANDSHAKE and (self._is_server or first != _ALERT):
            raise self._refuse(_PROTOCOL_VERSION, _PLAINTEXT[self._is_server])
        if not self._is_server or len(greeting) > _GREETING:
            self._greeting = None
            return
        offered = offered_protocols(greeting)
        if offered is None:
            return
        self._greeting = None
        # RFC 7301 §3.2 wants this; CPython tells OpenSSL to go on without (it answers
        # SSL_TLSEXT_ERR_NOACK), and afterwards nobody can tell that from no offer.
        if offered and not {name.encode() for name in PROTOCOLS} & set(offered):
            raise self._refuse(
                _NO_APPLICATION_PROTOCOL,
                f"the client wants to speak {', '.join(map(repr, offered[:4]))} over "
                f"TLS; here it is {' or '.join(PROTOCOLS)}",
            )

    def _verify(self) -> None:
        """Let ``check`` see the server's certificate; our half has not left yet."""
        der = self._tls.getpeercert(True)
        if self._check is None or der is None:
            return
        try:
            error = self._check(der)
        except OSError as problem:
            text = f"the pin of the server cannot be kept: {problem}"
            raise self._refuse(_CERTIFICATE_UNKNOWN, text) from problem
        if error is not None:
            raise self._refuse(_CERTIFICATE_UNKNOWN, str(error), error) from error

    def _refuse(
        self, alert: bytes, text: str, error: HiSockError | None = None
    ) -> SecureLinkBroken:
        """Tell the peer with an alert of ours; it has to be the next that it reads."""
        # Until it has our half of the handshake a peer reads alerts that are not
        # encrypted; in TLS 1.2 it may have it already, and then sees a broken record.
        self._outgoing.read()
        self._outgoing.write(alert)
        return self._fail(text, error)

    def _fail(self, text: str, error: HiSockError | None = None) -> SecureLinkBroken:
        """This link is broken for good; OpenSSL's alert leaves if there is room."""
        self._flush_quietly()
        if self._failure is None:
            self._failure = SecureLinkBroken(text, error)
        return self._failure

    def _receive(self, size: int, flags: int) -> bytes:
        """As ``recv``, but leaves it to the caller to say that nothing is torn."""
        if self._is_torn:
            # A KeyboardInterrupt struck amid this: plaintext is lost.
            self._is_torn = False
            self._fail("interrupted in the middle of a record")
        while size > 0:
            with self._lock:
                is_established = self._shake()
            if not is_established:
                self._listen(flags)
                continue
            self._is_torn = True
            data = self._decrypt(size)
            if data is not None:
                return data
            self._is_torn = False
            # Beside what OpenSSL has of a record, so much is at most ``size`` of
            # plaintext. ``map`` puts a wait and keeping what came into one step.
            part = max(_RECORD, min(size, _AT_ONCE) - _RECORD)
            self._taken.extend(map(self._sock.recv, (part,), (flags,)))
        return b""

    def _decrypt(self, size: int) -> bytes | None:
        """What there is, at most ``size``; ``None`` if it takes more ciphertext."""
        with self._lock:
            for data in self._taken:
                self._incoming.write(data)
                # Without a close_notify, too: cut short or not, a message that is not
                # whole is none, and who ends in order says so in our own protocol.
                self._eof = self._eof or not data
            self._taken.clear()
            parts = self._read_records(size)
            if self._outgoing.pending:
                self._answer()
            if parts:
                return parts[0] if len(parts) == 1 else b"".join(parts)
            if self._failure is not None:
                self._shake()  # raises it
            if not self._eof:
                return None
            self._is_told = True
            return b""

    def _read_records(self, size: int) -> list[bytes]:
        parts: list[bytes] = []
        while size > 0:
            try:
                part = self._tls.read(min(size, _RECORD))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:  # both sides have said goodbye
                part = b""
            except ssl.SSLError as error:
                # Raised by the next call: first comes what was sent before it.
                text = explain(error, self._is_server)
                # Another try would be answered the same.
                is_refused = not self._is_server and "ALERT" in (error.reason or "")
                final = NotSecure(text) if is_refused else None
                self._fail(text, final).__cause__ = error
                break
            if not part:
                self._eof = True
                break
            parts.append(part)
            size -= len(part)
            if not (self._incoming.pending or self._tls.pending()):
                break  # saves an exception
        return parts

    def _answer(self) -> None:
        """Write what OpenSSL itself says, such as that it does not renegotiate."""
        self._flush_quietly()
        if self.pending > _MOST_PENDING:
            self._fail("the peer asks and asks in TLS itself, and reads no answer")

    def _write(self) -> bool:
        while self._rest or self._outgoing.pending:
            if not self._rest:
                self._rest = memoryview(self._outgoing.read())
            try:
                sent = self._sock.send(self._rest, DONT_WAIT)
            except (BlockingIOError, InterruptedError):
                return False
            self._rest = self._rest[sent:]
            if self._rest:
                return False
        return True

    def _flush_quietly(self) -> None:
        """Write, and leave it to the next read to tell why that is not possible: the
        peer's last words may still wait there."""
        with suppress(OSError):
            self.flush()


def offered_protocols(greeting: bytes | bytearray) -> tuple[bytes, ...] | None:
    """The protocols (ALPN, RFC 7301) that a ClientHello offers.

    Returns:
        ``None`` if more bytes are needed. Nonsense offers nothing: OpenSSL reads it,
        too, and says what is wrong with it.
    """
    hello = bytearray()
    at = 0
    while len(greeting) >= at + 5:
        end = at + 5 + _number(greeting, at + 3, 2)
        if greeting[at] != _HANDSHAKE:
            return ()
        hello += greeting[at + 5 : end]
        at = end
    if len(hello) < 4 or len(hello) < 4 + _number(hello, 1, 3):
        return None
    # RFC 8446 §4.1.2: version and random, then session id, ciphers and compression,
    # each behind its length.
    at = 4 + 2 + 32
    for width in (1, 2, 1):
        at += width + _number(hello, at, width)
    at += 2
    while at + 4 <= len(hello):
        kind, size = _number(hello, at, 2), _number(hello, at + 2, 2)
        if kind == 16:
            return _read_names(hello[at + 6 : at + 4 + size])
        at += 4 + size
    return ()


def _number(data: bytes | bytearray, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], "big")


def _read_names(data: bytearray) -> tuple[bytes, ...]:
    names = []
    while data:
        size = 1 + data[0]
        names.append(bytes(data[1:size]))
        del data[:size]
    return tuple(names)


class ServerTls:
    """What a server with ``tls=`` makes of its connections."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def fingerprint(self) -> str | None:
        """Of the certificate; ``None`` with an ``SSLContext``."""
        return self._source.fingerprint

    def wrap(self, sock: socket.socket, now: float | None = None) -> SecureSocket:
        """Make an accepted connection one that encrypts; never waits.

        A certificate whose files have changed is loaded again, for this connection
        and those after it; they are looked at once a second at most.
        """
        context = self._source.look(time.monotonic() if now is None else now)
        return SecureSocket(sock, context, is_server=True)


def server_context(tls: object) -> ServerTls:
    """What a server's ``tls=`` means: an ``SSLContext``, files, or ``"auto"``.

    Raises:
        InvalidOption: It means nothing, or a file is not what it should be.
    """
    return ServerTls(certificates.read_server(tls, PROTOCOLS))


class ClientTls:
    """What a client with ``tls=`` makes of its connections."""

    def __init__(
        self, context: ssl.SSLContext, hostname: str | None, pin: str | None
    ) -> None:
        self._context = context
        self._hostname = hostname
        self._pin = pin

    def wrap(self, sock: socket.socket, address: object) -> SecureSocket:
        """Make a connection one that encrypts; never waits.

        Args:
            sock: Connected.
            address: What pins are kept for: ``(host, port)`` as the user gave it.
        """
        return SecureSocket(
            sock,
            self._context,
            is_server=False,
            hostname=self._hostname,
            check=partial(certificates.check_pin, self._pin, address),
        )


def client_context(
    tls: object, host: str, *, protocols: tuple[str, ...] = PROTOCOLS[:1]
) -> ClientTls | None:
    """What a client's ``tls=`` means; ``None`` if it does not encrypt.

    Args:
        tls: As the user gave it.
        host: Of the address; empty for a unix socket.
        protocols: What it offers to speak (ALPN).

    Raises:
        InvalidOption: It means nothing, or a file is not what it should be.
    """
    if tls is None or tls is False:
        return None
    return ClientTls(*certificates.read_client(tls, host, protocols))
