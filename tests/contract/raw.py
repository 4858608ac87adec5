"""Peers that are nothing but a socket, and say what they are told to.

They show what is on the wire at which moment, which no real peer can. What they say and
hear is written as bodies of the 1.1 wire (``b"command content"``, ``b"$DISCONN$"``), so
that a test about bytes is written once; each knows how its wire spells them.
"""

from __future__ import annotations

__all__ = ("PATIENCE", "RAW_PEERS", "Raw", "RawClassic", "RawCompact", "RawListener")

import contextlib
import json
import select
import socket
import time
from collections import deque
from typing import Any

import msgspec

#: Seconds after which what was promised counts as broken.
PATIENCE = 5.0
LOCALHOST = "127.0.0.1"
PROBE = b"$DH_NUMS$"


class Raw:
    """What raw peers of all wires have in common."""

    #: Whether it plays the server.
    is_server = False

    def __init__(self, sock: socket.socket, header_len: int = 16) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.header_len = header_len
        self._held = b""
        self._bodies: deque[bytes] = deque()

    # --- the beginning ---------------------------------------------------------

    def greet(self, name: str | None, group: str | None, *saying: bytes) -> None:
        """Say hello as a client, and some messages in the same write."""
        raise NotImplementedError

    def answer_hello(self) -> dict[str, Any]:
        """Read a client's hello as a server, and answer it."""
        self.is_server = True
        body = self.receive()
        assert body.startswith(b"$CLTHELLO$ ")
        hello: dict[str, Any] = json.loads(body.partition(b" ")[2])
        if "proto" in hello:
            assert self.receive() == PROBE
            self._answer(hello)
        return hello

    def _answer(self, hello: dict[str, Any]) -> None:
        raise NotImplementedError

    # --- saying ----------------------------------------------------------------

    def classic(self, body: bytes) -> bytes:
        """A body with the header of the 1.1 wire."""
        return str(len(body)).ljust(self.header_len).encode() + body

    def frame(self, body: bytes) -> bytes:
        """A body as it is written now."""
        return self.classic(body)

    def send(self, *bodies: bytes) -> None:
        """Write messages, all at once."""
        self.sock.sendall(b"".join(map(self.frame, bodies)))

    def send_raw(self, *contents: bytes) -> None:
        """Write content without a command, whatever it looks like."""
        self.send(*contents)

    # --- hearing ---------------------------------------------------------------

    def receive(self) -> bytes:
        """The next body."""
        while not self._bodies:
            if not self._sort_out():
                data = self.sock.recv(1 << 16)
                assert data, f"the other side ended after {self._held!r:.80}"
                self._held += data
        return self._bodies.popleft()

    def take(self, count: int) -> list[bytes]:
        """The next bodies."""
        return [self.receive() for _ in range(count)]

    def take_one_read(self) -> list[bytes]:
        """The bodies that a single ``recv`` gives."""
        assert not self._held
        assert not self._bodies
        self._held = self.sock.recv(1 << 20)
        while self._sort_out():
            pass
        assert not self._held
        bodies = list(self._bodies)
        self._bodies.clear()
        return bodies

    @property
    def has_mail(self) -> bool:
        """Whether something can be read right now."""
        return bool(self._bodies or self._held or self.is_readable)

    @property
    def is_readable(self) -> bool:
        """Whether something can be read right now, the end included."""
        return bool(select.select([self.sock], [], [], 0)[0])

    def expect_end(self) -> None:
        """Wait for the other side to end the connection; nothing may come before."""
        assert not self._bodies
        assert self._held + self.sock.recv(1 << 16) == b""

    def expect_cut(self) -> None:
        """Wait for the end of the connection, before which nobody says goodbye."""
        with contextlib.suppress(ConnectionResetError):
            while data := self.sock.recv(1 << 16):
                self._held += data
                while self._sort_out():
                    pass
        assert not self._bodies
        assert not self._held

    def close(self) -> None:
        """End the connection."""
        self.sock.close()

    def _sort_out(self) -> bool:
        """Move one whole body out of what is held; whether there was one."""
        body = self._cut(self.header_len)
        if body is not None:
            self._bodies.append(body)
        return body is not None

    def _cut(self, header_len: int) -> bytes | None:
        head = self._held[:header_len]
        if len(head) < header_len:
            return None
        end = header_len + self._length(head)
        if len(self._held) < end:
            return None
        body, self._held = self._held[header_len:end], self._held[end:]
        return body

    def _length(self, head: bytes) -> int:
        return int(head)


class RawClassic(Raw):
    """A peer of hisock 1.1."""

    def greet(self, name: str | None, group: str | None, *saying: bytes) -> None:
        """Say hello as a client, and some messages in the same write."""
        who = json.dumps({"name": name, "group": group}).encode()
        self.send(b"$CLTHELLO$ " + who, *saying)

    def _answer(self, hello: dict[str, Any]) -> None:
        self.send(b"$NOTLS$")


class RawCompact(Raw):
    """A peer of ours, with a MessagePack of its own.

    What it says before the other side has answered the hello is still classic.
    """

    #: Not for tests: what a client of ours asks for, and acknowledgements.
    _SILENT = frozenset({11, 32})

    def __init__(self, sock: socket.socket, header_len: int = 16) -> None:
        super().__init__(sock, header_len)
        self._reads_compact = False
        self._writes_compact = False
        #: Frames as they came, for tests that look closer.
        self.frames: deque[list[Any]] = deque()
        #: What its hello says of a session; nothing for none.
        self.claim: dict[str, Any] = {}
        #: What the server answered.
        self.welcome: dict[str, Any] = {}

    def greet(self, name: str | None, group: str | None, *saying: bytes) -> None:
        """Say hello as a client, and some messages in the same write."""
        now = int(time.monotonic() * 1000)
        who = {"name": name, "group": group, "proto": 2, "now": now, **self.claim}
        self.send(b"$CLTHELLO$ " + json.dumps(who).encode(), PROBE, *saying)

    def _answer(self, hello: dict[str, Any]) -> None:
        now = int(time.monotonic() * 1000)
        name, group = hello["name"], hello["group"]
        welcome = {"proto": 2, "name": name, "group": group, "now": now}
        self.send(b"$WELCOME$ " + json.dumps(welcome).encode())
        self._writes_compact = True

    def wait_for_answer(self) -> None:
        """Read until the server has welcomed or refused it."""
        while not (self.welcome or self._bodies):
            self._held += self.sock.recv(1 << 16)
            self._sort_out()

    def frame(self, body: bytes) -> bytes:
        """A body as it is written now."""
        if not self._writes_compact:
            self._skip_silent()  # the welcome may be there
        if not self._writes_compact:
            return self.classic(body)
        return self.pack(self._array(body))

    def send_raw(self, *contents: bytes) -> None:
        """Write content without a command, whatever it looks like."""
        self._skip_silent()
        if self._writes_compact:
            self.sock.sendall(b"".join(self.pack([1, None, c]) for c in contents))
        else:
            self.send(*contents)

    @property
    def has_mail(self) -> bool:
        """Whether something can be read right now that is not silent."""
        self._skip_silent()
        return super().has_mail

    def _skip_silent(self) -> None:
        """Read what is for nobody's ears, and leave the rest where it is."""
        while not self._held and self.is_readable:
            seen = self.sock.recv(1 << 16, socket.MSG_PEEK)
            head_len = 4 if self._reads_compact else self.header_len
            if len(seen) < head_len:
                return
            size = head_len + self._length(seen[:head_len])
            body = seen[head_len:size]
            silent = body.startswith((b"$WELCOME$ ", b"$COMPACT$"))
            if self._reads_compact:
                silent = body[1] in self._SILENT
            if not silent or len(seen) < size:
                return
            self._held = self.sock.recv(size)
            self._sort_out()

    @staticmethod
    def pack(array: list[Any]) -> bytes:
        """A frame of the compact wire."""
        packed = msgspec.msgpack.encode(array)
        return len(packed).to_bytes(4, "big") + packed

    def _array(self, body: bytes) -> list[Any]:
        word, _, rest = body.partition(b" ")
        match word:
            case b"$CHNAME$":
                return [9, rest.decode() or None]
            case b"$CHGROUP$":
                return [10, rest.decode() or None]
            case b"$CLTCONN$":
                return [12, json.loads(rest)]
            case b"$USRCLOSE$" | b"$DISCONN$":
                return [35, 0, "", None]
        if b" " in body:
            return [1, word.decode(), rest]
        return [1, None, body]

    def _sort_out(self) -> bool:
        body = self._cut(4 if self._reads_compact else self.header_len)
        if body is None:
            return False
        if self._reads_compact:
            array = msgspec.msgpack.decode(body)
            self.frames.append(array)
            if array[0] not in self._SILENT:
                self._bodies.append(self._spell(array))
        elif body.startswith(b"$WELCOME$ "):
            self.welcome = json.loads(body.partition(b" ")[2])
            self.sock.sendall(self.classic(b"$COMPACT$"))
            self._reads_compact = self._writes_compact = True
        elif body == b"$COMPACT$":
            self._reads_compact = True
        else:
            self._bodies.append(body)
        return True

    def _length(self, head: bytes) -> int:
        return int.from_bytes(head, "big") if self._reads_compact else int(head)

    def _spell(self, array: list[Any]) -> bytes:
        """A frame as the body that says the same on the 1.1 wire."""
        match array:
            case [1, None, content, *_]:
                return _text(content)
            case [1, command, content, *_]:
                return str(command).encode() + b" " + _text(content)
            case [9 | 10 as kind, name]:
                word = b"$CHNAME$" if kind == 9 else b"$CHGROUP$"
                return word if name is None else word + b" " + str(name).encode()
            case [12 | 13 as kind, info]:
                word = b"$CLTCONN$ " if kind == 12 else b"$CLTDISCONN$ "
                return word + json.dumps(info).encode()
            case [35, *_]:
                return b"$USRCLOSE$" if self.is_server else b"$DISCONN$"
            case _:
                return b"%r" % array


def _text(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    return b"" if content is None else str(content).encode()


RAW_PEERS: dict[str, type[Raw]] = {"classic": RawClassic, "compact": RawCompact}


class RawListener:
    """A server that is nothing but a listening socket."""

    def __init__(self, peer: type[Raw]) -> None:
        self._peer = peer
        self._sock = socket.create_server((LOCALHOST, 0))
        self._sock.settimeout(PATIENCE)
        self.addr: tuple[str, int] = self._sock.getsockname()[:2]

    def accept(self, header_len: int = 16) -> Raw:
        """The next client that called."""
        return self._peer(self._sock.accept()[0], header_len)

    def close(self) -> None:
        """Stop listening."""
        self._sock.close()
